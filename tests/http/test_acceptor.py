"""How many connections there may be, and which are closed for others: docs/http.md, Limits."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import pytest

from responder.http import acceptor
from responder.http.acceptor import max_connections
from responder.http.listener import listening
from responder.http.protocol import Connection
from tests.raw_http import RawClient, ask_once, connected, get
from tests.waiting import until

LIMIT = 4


class Gated:
    """An app that answers at once, except below /wait, where it waits to be let go on."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opened = asyncio.Event()

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            self.waiting += 1
            await self.opened.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    address, setting = ("127.0.0.1", 0), "RESPONDER_HTTP_LISTEN"
    async with listening(app, address, setting, drain_timeout=1, connections=LIMIT) as url:
        yield url


async def hold(stack: AsyncExitStack, url: str, count: int) -> list[RawClient]:
    """Open connections that are kept after an answer, one after the other."""
    held = []
    for _ in range(count):
        held.append(await stack.enter_async_context(connected(url)))
        await held[-1].ask(get("/"))
    return held


async def test_at_the_limit_the_longest_idle_connection_makes_room():
    """A new connection is served, and the one that has been idle for longest is closed for it."""
    async with served(Gated()) as url, AsyncExitStack() as stack:
        first, second, third, fourth = await hold(stack, url, LIMIT)
        await first.ask(get("/"))

        assert 200 == (await ask_once(url, get("/"))).status
        assert b"" == await second.rest()
        for each in (third, fourth, first):
            assert 200 == (await each.ask(get("/"))).status


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_clients_that_only_hold_connections_are_in_no_other_s_way(sent):
    """However many connections wait for a client to go on, each new one is served."""
    async with served(Gated()) as url, AsyncExitStack() as stack:
        for _ in range(5 * LIMIT):
            idle = await stack.enter_async_context(connected(url))
            await idle.send(sent)
            assert 200 == (await ask_once(url, get("/"))).status


async def test_a_client_that_takes_no_answer_is_in_no_other_s_way():
    """A connection whose client does not read makes room like an idle one."""

    async def large(scope: Any, _: Any, send: Any) -> None:
        body = b"x" * 20_000_000 if scope["path"] == "/large" else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async with served(large) as url, AsyncExitStack() as stack:
        for _ in range(3 * LIMIT):
            deaf = await stack.enter_async_context(connected(url))
            transport: Any = deaf.writer.transport
            transport.pause_reading()
            await deaf.send(get("/large"))
            assert 200 == (await ask_once(url, get("/"))).status


async def test_a_connection_with_a_request_under_way_is_never_closed_for_another():
    """While every connection is being answered on, a new one waits until one is done with."""
    app = Gated()
    async with served(app) as url, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(connected(url)) for _ in range(LIMIT)]
        for each in busy:
            await each.send(get("/wait"))
        await until(lambda: app.waiting == LIMIT)
        later = [asyncio.create_task(ask_once(url, get("/"))) for _ in range(3 * LIMIT)]
        await asyncio.sleep(0)
        answered_early = [each for each in later if each.done()]
        app.opened.set()
        answers = [await each.answer() for each in busy]
        late = await asyncio.gather(*later)

    assert [] == answered_early
    assert [200] * LIMIT == [each.status for each in answers]
    assert [200] * 3 * LIMIT == [each.status for each in late]


async def test_a_burst_of_connections_never_exceeds_the_limit_by_much(monkeypatch):
    """Of many connections at once only a few are open at a time, and all requests are answered."""
    now: set[Any] = set()
    most = 0

    class Counted(Connection):
        def connection_made(self, transport: Any) -> None:
            nonlocal most
            now.add(self)
            most = max(most, len(now))
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            now.discard(self)
            super().connection_lost(error)

    monkeypatch.setattr(acceptor, "Connection", Counted)
    async with served(Gated()) as url:
        address = url.removeprefix("http://").split(":")
        at = (address[0], int(address[1]))
        with ExitStack() as crowd:
            for _ in range(100):
                crowd.enter_context(socket.create_connection(at))
            assert 200 == (await ask_once(url, get("/"))).status

    assert most <= LIMIT + acceptor.ACCEPTED_AT_ONCE


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_connections_are_accepted_again_once_there_are_descriptors(
    monkeypatch, caplog, number
):
    """Where none can be accepted, connections wait; the log says so once."""
    accept, failures = socket.socket.accept, [number] * 3

    def failing(sock: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "no more of them")
        return accept(sock)

    async with served(Gated()) as url, AsyncExitStack() as stack:
        (idle,) = await hold(stack, url, 1)
        monkeypatch.setattr(socket.socket, "accept", failing)
        assert 200 == (await ask_once(url, get("/"))).status
        assert b"" == await idle.rest()  # it made room

    records = [each for each in caplog.records if each.name.startswith("responder.http")]
    lines = [each.getMessage() for each in records]
    assert ["HTTP connections cannot be accepted: no more of them"] == lines


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (1024, 768),
        (4096, 3840),
        (20_000, 10_000),
        (1_048_576, 10_000),
        (resource.RLIM_INFINITY, 10_000),
        (256, 64),
    ],
)
def test_the_limit_leaves_files_for_everything_else(monkeypatch, files, expected):
    """There may be 10,000 connections, or as many as leave 256 files for the rest."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))

    assert expected == max_connections()
