"""What is released installs into an empty environment and works there, away from the tree."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LINK = re.compile(r"\]\((?!https?://|#)([^)]*)\)")  # into the repository
PROGRAM = """
import asyncio, os, sys
from responder import TokenVerifier, UsersClient

async def main():
    async with UsersClient.connect(os.environ["NATS_URL"]) as users:
        owner = await users.get(sys.argv[1])
        print(owner.name, len([each async for each in users.org_list(owner.organization_id)]))
    async with TokenVerifier.connect(os.environ["BETTER_AUTH_URL"]) as tokens:
        print((await tokens.verify(os.environ["OWNER"])).user_id == owner.id)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The directory of what is released: that of `make release`, else built here."""
    if given := os.environ.get("RESPONDER_TEST_DIST"):
        return Path(given)
    directory = tmp_path_factory.mktemp("dist")
    build = ("build", "--quiet", "--no-build-isolation", "--python", sys.executable)
    subprocess.run([BIN / "uv", *build, "--out-dir", directory, ROOT], check=True)
    return directory


@pytest.fixture(scope="module")
def wheel(files) -> Path:
    (wheel,) = files.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """Where the programs of an environment are that has what `responder dev` needs."""
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run(
        [BIN / "uv", "venv", "--quiet", "--python", sys.executable, directory], check=True
    )
    install = ("pip", "install", "--quiet", "--python", directory / "bin" / "python")
    subprocess.run(
        [BIN / "uv", *install, f"better-auth-responder[dev] @ {wheel.as_uri()}"], check=True
    )
    return directory / "bin"


def test_the_files_are_as_they_should_be(files, wheel):
    """Index and installer take both files, and nothing is in the wheel that is not ours."""
    (source,) = files.glob("*.tar.gz")
    subprocess.run([BIN / "twine", "check", "--strict", source, wheel], check=True)
    subprocess.run([BIN / "check-wheel-contents", wheel], check=True)

    with tarfile.open(source) as archive:
        held = {each.partition("/")[2] for each in archive.getnames()}
    readme = (ROOT / "README.md").read_text()
    led_to = {each.partition("#")[0].rstrip("/") for each in LINK.findall(readme)}
    assert led_to
    assert led_to <= held
    assert f"better_auth_responder-{VERSION}.tar.gz" == source.name
    assert f"better_auth_responder-{VERSION}-py3-none-any.whl" == wheel.name
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_it_says_of_itself_leads_somewhere(programs):
    """The description that an index shows has the README, without links into the repository."""
    show = "from importlib.metadata import metadata; print(metadata('better-auth-responder'))"
    told = subprocess.run(
        [programs / "python", "-c", show], capture_output=True, text=True, check=True
    ).stdout

    assert "docs/operating.md" in told
    assert not LINK.search(told)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every account may enter, as PostgreSQL's must."""
    with tempfile.TemporaryDirectory(prefix="responder-release-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def test_it_works_away_from_the_tree(programs, place):
    """With `responder dev`, from its command and from a program, users are answered."""
    environment = {"PATH": os.defpath, "TMPDIR": str(place)}
    dev = await asyncio.create_subprocess_exec(
        programs / "responder", "dev", cwd=place, env=environment, stdout=PIPE
    )
    assert dev.stdout
    try:
        async with asyncio.timeout(60):
            printed = (await dev.stdout.readuntil(b"Ctrl-C")).decode()
        (place / "program.py").write_text(PROGRAM)
        (source,), (request, *_) = (
            re.findall(rf"^  ({word} .*)$", printed, re.MULTILINE)
            for word in ("source", "responder request")
        )
        owner = request.split()[-1]
        lines = (source, "responder --version", request, f"{programs}/python program.py {owner}")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-ec", "\n".join(lines)), cwd=place, env=environment, stdout=PIPE
        )
        async with asyncio.timeout(60):
            output, _ = await shell.communicate()
    finally:
        dev.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            await dev.communicate()

    version, *answer = output.decode().splitlines()
    assert (0, 0, VERSION) == (shell.returncode, dev.returncode, version)
    assert f'  "id": "{owner}",' in answer
    assert ["Zoë Lindqvist 184", "True"] == answer[-2:]
    assert ["program.py"] == [each.name for each in place.iterdir()]
