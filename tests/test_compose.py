"""The image and the compose file agree with the code, as far as reading them shows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shlex
import socket
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema.validators import validator_for
from ruamel.yaml import YAML

from responder.settings import Settings

ROOT = Path(__file__).parent.parent
NAMES = {str(field.alias) for field in Settings.model_fields.values()}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return document


@pytest.fixture(scope="module")
def responders(compose) -> list[dict[str, Any]]:
    return [each for name, each in compose["services"].items() if name.startswith("responder-")]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order: each name and what follows it."""
    return instructions_of(ROOT / "Dockerfile")


def instructions_of(file: Path) -> list[tuple[str, str]]:
    text = file.read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


def environment(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """Return the variables that the image sets."""
    pairs = [shlex.split(rest) for name, rest in instructions if name == "ENV"]
    return dict(pair.split("=", 1) for each in pairs for pair in each)


def test_the_compose_file_is_valid(compose):
    """The compose file is valid by the compose specification's own schema."""
    package = importlib.util.find_spec("check_jsonschema")
    assert package
    assert package.origin
    file = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(file.read_text())

    assert [] == [each.message for each in validator_for(schema)(schema).iter_errors(compose)]


def test_the_variables_are_settings(responders, instructions):
    """Each variable that the image or the compose file sets is a setting, and its value is good."""
    image = environment(instructions)
    image.pop("PATH")

    assert 2 == len(responders)
    for each in responders:
        assert set() == (image.keys() | each["environment"].keys()) - NAMES
        settings = Settings.read(image | each["environment"])
        assert settings.http_listen
        assert settings.admin_listen
        assert ("0.0.0.0", "0.0.0.0") == (settings.http_listen[0], settings.admin_listen[0])
        assert settings.dsn


def test_tokens_are_required(responders, instructions):
    """Neither the image nor the compose file lets HTTP be asked without a token."""
    for each in (environment(instructions), *(each["environment"] for each in responders)):
        assert "RESPONDER_HTTP_AUTH" not in each


def test_nothing_is_published_beyond_this_machine(compose, responders):
    """Every published port is on loopback, once, and leads to where responder listens."""
    published = [
        port.rpartition(":")
        for each in compose["services"].values()
        for port in each.get("ports", ())
    ]

    assert all(address.startswith("127.0.0.1:") for address, _, _ in published)
    assert len(published) == len({address for address, _, _ in published})
    for each in responders:
        assert {"8080", "8081"} == {port.rpartition(":")[2] for port in each["ports"]}


def test_each_waits_for_what_it_needs(compose, responders, instructions):
    """Responder starts when NATS is healthy and people have signed up with the application."""
    services = compose["services"]

    for each in responders:
        assert {"nats", "seed"} == each["depends_on"].keys()
    assert {"better-auth"} == services["seed"]["depends_on"].keys()
    assert {"postgres"} == services["better-auth"]["depends_on"].keys()
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            ends = "command" in services[name] and "healthcheck" not in services[name]
            condition = "service_completed_successfully" if ends else "service_healthy"
            assert condition == how["condition"]
    assert any(name == "HEALTHCHECK" for name, _ in instructions)


def test_the_grace_period_is_longer_than_the_drain(responders):
    """A stopped service has time to answer what has arrived before it is killed."""
    for each in responders:
        grace = each["stop_grace_period"]
        assert float(grace.removesuffix("s")) > Settings.read({}).drain_timeout


def test_the_addresses_are_those_of_the_services(compose, responders):
    """PostgreSQL, NATS and the keys are asked for where the compose file runs them."""
    services = compose["services"]
    made = services["postgres"]["environment"]
    application = services["better-auth"]["environment"]
    database = httpx.URL(application["DATABASE_URL"])

    assert (made["POSTGRES_USER"], made["POSTGRES_PASSWORD"], f"/{made['POSTGRES_DB']}") == (
        database.username,
        database.password,
        database.path,
    )
    assert application == services["seed"]["environment"]
    for each in responders:
        variables = each["environment"]
        keys = httpx.URL(variables["RESPONDER_JWKS_URL"])
        hosts = {database.host, httpx.URL(variables["NATS_URL"]).host, keys.host}
        assert hosts == {"postgres", "nats", "better-auth"}
        for name in ("DATABASE_URL", "BETTER_AUTH_URL"):
            assert application[name] == variables[name]
        assert application["BETTER_AUTH_SECRET"] == variables["RESPONDER_JWT_SECRET"]
        browsers = httpx.URL(variables["BETTER_AUTH_URL"])
        assert [f"127.0.0.1:{browsers.port}:{keys.port}"] == services["better-auth"]["ports"]


@pytest.mark.parametrize(
    "folder", [ROOT, ROOT / "examples" / "better-auth"], ids=["ours", "theirs"]
)
def test_an_image_has_what_it_copies(folder):
    """Each file that an image copies is in its folder, and not left out by .dockerignore."""
    rules = (folder / ".dockerignore").read_text().split()
    copied = [
        source.removeprefix("./")
        for name, rest in instructions_of(folder / "Dockerfile")
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert copied
    for source in copied:
        # The last rule that matches decides.
        ignored = [False] + [
            not rule.startswith("!") for rule in rules if fnmatch(source, rule.removeprefix("!"))
        ]
        assert (source, True, False) == (source, (folder / source).exists(), ignored[-1])


def test_the_image_is_lean_and_unprivileged(instructions):
    """The image runs as an ordinary account, with pinned requirements and without demo servers."""
    last = dict(instructions)
    (install,) = [rest for name, rest in instructions if name == "RUN" and "pip install" in rest]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert "pip install --no-cache-dir --require-hashes -r requirements-image.lock" in install
    assert "pip install --no-cache-dir --no-deps --no-build-isolation ." in install
    assert "[" not in install
    assert re.match(r"python:3\.\d+-slim", last["FROM"])
    assert ["responder", "serve"] == json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])


async def test_the_health_check_follows_ready(instructions, people_service):
    """The image's health check succeeds where /ready does, and fails where nothing listens."""
    (rest,) = [rest for name, rest in instructions if name == "HEALTHCHECK"]
    program, *arguments = json.loads(rest[rest.index("[") :])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        admin = httpx.URL(people_service.running.admin_url)

        codes = []
        for port in (admin.port, unused.getsockname()[1]):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env={"RESPONDER_ADMIN_LISTEN": f"0.0.0.0:{port}"},
                stderr=asyncio.subprocess.DEVNULL,
            )
            codes.append(await process.wait())

    assert "python" == program
    assert [0, 1] == codes


async def test_the_health_check_runs_no_code_of_the_working_directory(instructions, tmp_path):
    """A file `http.py` where the container works is not what the health check imports."""
    (rest,) = [rest for name, rest in instructions if name == "HEALTHCHECK"]
    _, *arguments = json.loads(rest[rest.index("[") :])
    (tmp_path / "http.py").write_text("open('trace', 'w')")

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=tmp_path,
        env={"RESPONDER_ADMIN_LISTEN": "0.0.0.0:1"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()

    assert [tmp_path / "http.py"] == list(tmp_path.iterdir())
