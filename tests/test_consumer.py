"""A program that installs the client alone can use it, with whichever nats-py it has."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
SERVERS_OWN = {"asyncpg", "httptools", "prometheus_client", "starlette", "uvicorn", "uvloop"}
PROGRAM = """
import asyncio, json, sys
import nats
from responder import NotFoundError, TokenVerifier, UsersClient

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
    interpreter = directory / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, directory], check=True)
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", interpreter, request.param, wheel],
        check=True,
    )
    return interpreter


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
    assert [True] * 6 == said
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
