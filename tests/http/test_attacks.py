"""Attacks over HTTP, on a service that runs as its operator runs it: docs/http.md."""

# Each attack goes on until every honest caller has had its answers: services over NATS, callers
# over HTTP on new connections and on kept ones, and the probes of an orchestrator. What is asserted
# is that all of them were answered, within the time that a caller waits by default, and how much
# memory the service took beyond that of its quiet state.

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import sys
import sysconfig
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats as nats_py
import psutil
import pytest

from responder.dev import launch, nats
from responder.dev.tokens import Mint
from tests import privacy
from tests.raw_http import ask_once, connected, get

pytestmark = pytest.mark.load

RESPONDER = Path(sysconfig.get_path("scripts")) / "responder"
READY = re.compile(r"(?:ready|workers): HTTP (\S+), admin (http://[\w.:]+)")
WAIT = 30.0  # seconds; how soon answers come is what `make attacks` tells
ENOUGH = 40  # answers of each honest caller
MEMORY = 60 * 2**20  # bytes beyond those of the quiet service
FILES = 1024  # what many systems let a process begin with


@pytest.fixture(scope="module", autouse=True)
def many_files():
    """Let the attackers have as many connections as they want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Target:
    """A `responder serve` that is attacked, and its honest callers."""

    process: Process
    http: str
    admin: str
    nats: str
    user: str
    token: str
    failures: list[str] = field(default_factory=list)

    def request(self, target: str = "") -> bytes:
        """A request for a user by a caller with a token."""
        headers = f"Host: x\r\nAuthorization: Bearer {self.token}\r\n".encode()
        return get(target or f"/api/v1/users/{self.user}", headers)

    @property
    def memory(self) -> int:
        """Bytes that all of its processes have."""
        parent = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in (parent, *parent.children()))

    async def honest(self) -> None:
        """Return when every honest caller has had its answers; note what went wrong."""
        nc = await nats_py.connect(self.nats)
        try:
            async with connected(self.http) as kept:
                await asyncio.gather(
                    self._again("a service", lambda: self._serve(nc)),
                    self._again("a new connection", self._open),
                    self._again("a kept connection", lambda: self._keep(kept)),
                    self._again("/live", lambda: self._probe("/live")),
                    self._again("/ready", lambda: self._probe("/ready")),
                )
        finally:
            await nc.close()

    async def _again(self, who: str, ask: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(ENOUGH):
            if len(self.failures) > ENOUGH / 10:
                return
            try:
                async with asyncio.timeout(WAIT):
                    if not await ask():
                        self.failures.append(f"{who}: a wrong answer")
            except (OSError, EOFError, nats_py.errors.Error) as error:
                self.failures.append(f"{who}: {type(error).__name__}")

    async def _serve(self, nc: Any) -> bool:
        reply = await nc.request("users.get", self.user.encode(), timeout=WAIT)
        return not reply.headers and self.user.encode() in reply.data

    async def _open(self) -> bool:
        return (await ask_once(self.http, self.request())).status == 200

    async def _keep(self, kept: Any) -> bool:
        return (await kept.ask(self.request())).status == 200

    async def is_ready(self) -> bool:
        """Whether all of its workers are."""
        return await self._probe("/ready")

    async def _probe(self, path: str) -> bool:
        return (await ask_once(self.admin, get(path))).status == 200


@asynccontextmanager
async def running(
    url: str, directory: Path, user: str, *arguments: str, ulimit: str = f"-Sn {FILES}"
) -> AsyncIterator[Target]:
    """Run `responder serve`, which begins with few files, and a NATS server."""
    mint, log = Mint(), directory / "log"
    async with nats.running() as server:
        variables = {
            "DATABASE_URL": url,
            "NATS_URL": server.url,
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
            "RESPONDER_TIMEOUT": "30",
            **mint.publish(directory / "keys.json"),
        }
        privacy.note_settings(variables)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), "-1", "-1"),
                *("/bin/sh", "-c", f'ulimit {ulimit} && exec "$0" serve "$@"', RESPONDER),
                *arguments,
                cwd=directory,
                env={**kept, **variables},
                stderr=file,
            )
        try:
            async with asyncio.timeout(60):
                while not (match := READY.search(log.read_text())):
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.02)
            token = mint.token(user)
            privacy.LEDGER.use(token)
            target = Target(process, match[1], match[2], server.url, user, token)
            async with asyncio.timeout(60):
                while not await target.is_ready():
                    await asyncio.sleep(0.02)
            await target.honest()  # what is loaded and remembered at first is no attack's
            assert [] == target.failures
            yield target
        finally:
            process.terminate()
            await process.wait()
            privacy.LEDGER.hear("standard error", log.read_text())


@pytest.fixture(scope="module")
async def target(template, create_database, tmp_path_factory) -> AsyncIterator[Target]:
    url, cast = await create_database(template=template[0]), template[1]
    directory = tmp_path_factory.mktemp("attacked")
    async with running(url, directory, cast.owner.id) as found:
        yield found


@asynccontextmanager
async def under(*attackers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let attackers go on while the context is open."""
    tasks = [asyncio.create_task(each) for each in attackers]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in results if not isinstance(each, asyncio.CancelledError)]


async def survives(target: Target, *attackers: Coroutine[Any, Any, None]) -> None:
    """Attack, ask honestly meanwhile, and look at what it took."""
    target.failures.clear()
    quiet, most = target.memory, 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, target.memory)
            await asyncio.sleep(0.02)

    async with under(watch(), *attackers):
        await target.honest()

    assert [] == target.failures
    assert most - quiet < MEMORY


@asynccontextmanager
async def raw_socket(url: str) -> AsyncIterator[socket.socket]:
    """A connection without any library between: what the server sends stays unread."""
    at = httpx.URL(url)
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (at.host, at.port))
        yield sock


async def pour(url: str, data: bytes) -> None:
    """Send without ever reading; connect again when the server has closed."""
    loop = asyncio.get_running_loop()
    while True:
        with suppress(OSError):
            async with raw_socket(url) as sock:
                while True:
                    await loop.sock_sendall(sock, data)


async def repeat(url: str, request: bytes) -> None:
    """Send a request again as soon as it is answered; connect again when the server has closed."""
    while True:
        with suppress(OSError, EOFError):
            async with connected(url) as client:
                while True:
                    answer = await client.ask(request)
                    if answer.header("connection") == "close":
                        break


async def hold(url: str, count: int, sent: bytes = b"", *, again: bool = False) -> None:
    """Hold connections on which nothing follows; `again` opens one more for each that is closed."""
    async with AsyncExitStack() as stack:
        while True:
            for _ in range(count):
                with suppress(OSError):
                    sock = await stack.enter_async_context(raw_socket(url))
                    sock.send(sent)
            if not again:
                await asyncio.Event().wait()
            await stack.aclose()


PIPELINED = {
    "refused": b"GET / HTTP/1.1\r\n\r\n",
    "no-route": get("/"),
    "document": get("/openapi.json"),
    "no-token": get("/api/v1/users/x"),
    "gone": get("/users/x", method="DELETE"),
}


@pytest.mark.parametrize("connections", [1, 30])
@pytest.mark.parametrize("request_", PIPELINED.values(), ids=PIPELINED)
async def test_requests_without_end_whose_answers_are_not_read(target, request_, connections):
    """Clients that send requests over and over, and never read, cost no memory and no answer."""
    data = request_ * (256_000 // len(request_))

    await survives(target, *(pour(target.http, data) for _ in range(connections)))


async def test_hundreds_of_clients_that_ask_without_end(target):
    """However many clients keep asking, those who ask over NATS, and the probes, get their turn."""
    await survives(target, *(pour(target.http, get("/") * 100) for _ in range(600)))


async def test_requests_of_a_caller_whose_answers_are_not_read(target):
    """The same holds for a caller with a good token, whose requests reach PostgreSQL."""
    data = target.request() * 300

    await survives(target, *(pour(target.http, data) for _ in range(10)))


async def test_bytes_that_are_no_requests(target):
    """Clients that send anything else, or bodies without end, disturb no other."""
    body = b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
    chunks = b"POST /users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    kinds = (
        b"\0" * 256_000,
        b"\r\n" * 128_000,
        b"GET /" + b"a" * 256_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 40_000,
        body + b"x" * 256_000,
        chunks + b"1\r\nx\r\n" * 40_000,
    )

    await survives(target, *(pour(target.http, kind) for kind in kinds for _ in range(3)))


LONG = {
    "query": f"/api/v1/users/x?{'a&' * 30_000}",
    "query-within-bounds": f"/api/v1/users/x?{'a&' * 4_000}",
    "path": f"/api/v1/users/{'%01' * 20_000}",
    "path-within-bounds": f"/api/v1/users/{'%01' * 2_700}",
    "email": f"/api/v1/users/email/{'%C3%B6' * 1_300}",
    "organization": f"/api/v1/users/x?organizationId={'%zz' * 2_700}",
    "no-route": "/" + "a/" * 4_000,
    "write": f"/api/v1/users/{'%01' * 2_700}?{'a&' * 1_000}",
}


@pytest.mark.parametrize("headers", [b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer x\r\n"])
@pytest.mark.parametrize("path", LONG.values(), ids=LONG)
async def test_long_targets(target, path, headers):
    """Thirty clients that ask for long targets keep no other waiting, token or none."""
    await survives(target, *(repeat(target.http, get(path, headers)) for _ in range(30)))


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: x\r\n" * 2,
        b"Host: x\r\n" * 100,
        b"Host: x\r\n" + b"a:\r\n" * 16_000,
        b"Host: x\r\n" + b"Authorization: Bearer x\r\n" * 100,
        b"Host: x\r\nAuthorization: Bearer " + b"x" * 60_000 + b"\r\n",
        b"Host: x\r\nX: " + b"x" * 200_000 + b"\r\n",
        b"",
    ],
)
async def test_many_headers(target, headers):
    """Thirty clients with too many headers, or too large ones, are refused at no one's cost."""
    request = get("/api/v1/users/x", headers)

    await survives(target, *(repeat(target.http, request) for _ in range(30)))


SENT = {
    "nothing": b"",
    "half-a-head": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 60_000,
    "no-body": b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    "an-unread-answer": get("/openapi.json") * 10,
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_connections_that_are_only_held(target, sent):
    """1,300 connections on which nothing happens are in the way of none, nor of the probes."""
    await survives(target, *(hold(target.http, 130, sent) for _ in range(10)))


async def test_connections_that_are_only_held_where_files_are_few(
    template, create_database, tmp_path, cast
):
    """The same holds where the system allows no more than 1,024 files at all."""
    url = await create_database(template=template[0])
    async with running(url, tmp_path, cast.owner.id, ulimit=f"-n {FILES}") as target:
        assert (FILES, FILES) == psutil.Process(target.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        await survives(target, *(hold(target.http, 130) for _ in range(10)))
        await survives(target, *(hold(target.http, 100, again=True) for _ in range(10)))


async def test_connections_that_are_only_held_by_workers(template, create_database, tmp_path, cast):
    """The same holds for a service of several processes, whose probes are answered by another."""
    url = await create_database(template=template[0])
    workers = ("--workers", "2")
    async with running(url, tmp_path, cast.owner.id, *workers, ulimit=f"-n {FILES}") as target:
        await survives(target, *(hold(target.http, 200) for _ in range(10)))


async def test_connections_that_are_opened_again_and_again(target):
    """Clients that open connections as fast as they can are in the way of none."""
    await survives(target, *(hold(target.http, 100, again=True) for _ in range(10)))
