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
def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order: each name and what follows it."""
    text = (ROOT / "Dockerfile").read_text()
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


def test_the_variables_are_settings(compose, instructions):
    """Each variable that the image or the compose file sets is a setting, and its value is good."""
    image = environment(instructions)
    image.pop("PATH")
    service = compose["services"]["responder"]["environment"]

    assert set() == (image.keys() | service.keys()) - NAMES
    settings = Settings.read(image | service)
    assert settings.http_listen
    assert settings.admin_listen
    assert ("0.0.0.0", "0.0.0.0") == (settings.http_listen[0], settings.admin_listen[0])
    assert settings.dsn


def test_tokens_are_required_but_in_a_trial(compose, instructions):
    """The image requires tokens; the compose file does not, and says that it is for a trial."""
    assert "RESPONDER_HTTP_AUTH" not in environment(instructions)
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.search(
        r"# For a trial only[^\n]*\n(\s+#[^\n]*\n)*\s+RESPONDER_HTTP_AUTH: disabled", text
    )


def test_what_is_mounted_exists(compose):
    """Each file that the compose file mounts is in the project, and is mounted read-only."""
    mounts = [
        mount.split(":")
        for service in compose["services"].values()
        for mount in service.get("volumes", ())
    ]

    assert mounts
    for source, _, mode in mounts:
        assert (source, True, "ro") == (source, (ROOT / source).is_file(), mode)


def test_nothing_is_published_beyond_this_machine(compose):
    """Every published port is on loopback, and leads to where responder listens."""
    for service in compose["services"].values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
    published = {port.rpartition(":")[2] for port in compose["services"]["responder"]["ports"]}
    assert {"8080", "8081"} == published


def test_responder_waits_for_postgres_and_nats(compose, instructions):
    """Responder starts when PostgreSQL and NATS are healthy, each of which says when it is."""
    services = compose["services"]
    needed = services["responder"]["depends_on"]

    assert {"postgres", "nats"} == needed.keys()
    for name, how in needed.items():
        assert "service_healthy" == how["condition"]
        assert services[name]["healthcheck"]["test"]
    assert any(name == "HEALTHCHECK" for name, _ in instructions)


def test_the_grace_period_is_longer_than_the_drain(compose):
    """A stopped service has time to answer what has arrived before it is killed."""
    grace = compose["services"]["responder"]["stop_grace_period"]

    assert float(grace.removesuffix("s")) > Settings.read({}).drain_timeout


def test_the_addresses_are_those_of_the_services(compose):
    """Responder connects to PostgreSQL and NATS where the compose file runs them."""
    variables = compose["services"]["responder"]["environment"]
    database = httpx.URL(variables["DATABASE_URL"])
    made = compose["services"]["postgres"]["environment"]

    assert (made["POSTGRES_USER"], made["POSTGRES_PASSWORD"], f"/{made['POSTGRES_DB']}") == (
        database.username,
        database.password,
        database.path,
    )
    assert {database.host, httpx.URL(variables["NATS_URL"]).host} <= compose["services"].keys()


def test_the_image_has_what_it_copies(instructions):
    """Each file that the image copies is in the project, and not left out by .dockerignore."""
    rules = (ROOT / ".dockerignore").read_text().split()
    copied = [
        source.removeprefix("./")
        for name, rest in instructions
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert copied
    for source in copied:
        # The last rule that matches decides.
        ignored = [
            not rule.startswith("!") for rule in rules if fnmatch(source, rule.removeprefix("!"))
        ]
        assert (source, True, False) == (source, (ROOT / source).exists(), ignored[-1])


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
