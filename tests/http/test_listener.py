"""A connection on which no request arrives in time is closed, and one that is answered is not."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from typing import Any

import httpx
import pytest

from responder.http import acceptor, listener, protocol
from tests.raw_http import RawClient, connected

SHORT = 0.3  # seconds


async def slow(_: Any, __: Any, send: Any) -> None:
    """An app that takes longer than the head of a request may."""
    await asyncio.sleep(3 * SHORT)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def address(monkeypatch):
    """Host and port of a listener that has little patience."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", SHORT)
    async with listener.listening(slow, ("127.0.0.1", 0), "SETTING", drain_timeout=1) as found:
        url = httpx.URL(found)
        yield url.host, url.port


async def after(address: tuple[str, int], *parts: bytes) -> bytes:
    """Return what the listener sends, until it closes, after each part of a request."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(SHORT / 3)
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_the_head_of_a_request_has_to_arrive(address, sent):
    """Without a request, or with half a head, a connection is closed and nothing is sent."""
    assert b"" == await after(address, sent)


async def test_an_answer_may_take_longer(address):
    """Once its head has arrived, a request is answered however long that takes."""
    answer = await after(address, b"GET / HTTP/1.1\r\nHost: x\r\n", b"Connection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 204 ")


async def test_the_next_request_has_to_arrive_too(address):
    """A connection on which another request begins, and does not end, is closed as well."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(4):  # less than uvicorn keeps a connection without a request
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET / HT")
            rest = await reader.read()
    finally:
        writer.close()

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"" == rest


# The end of a listener


async def soon(_: Any, __: Any, send: Any) -> None:
    """An app that takes a moment."""
    await asyncio.sleep(0.002)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def ask_again_and_again(url: str, seen: Counter[str], *, pause: float) -> None:
    """Send requests on connections that are kept, until none can be made; count how each ends."""
    while True:
        try:
            async with connected(url) as client:
                seen["connections"] += 1
                await _ask_on(client, seen, pause)
        except ConnectionRefusedError:
            return
        except (OSError, asyncio.IncompleteReadError) as error:
            seen[type(error).__name__] += 1


async def _ask_on(client: RawClient, seen: Counter[str], pause: float) -> None:
    while True:
        answer = await client.ask(REQUEST)
        seen[str(answer.status)] += 1
        if answer.header("connection") == "close":
            return
        await asyncio.sleep(pause * random.random())


@pytest.mark.parametrize("pause", [0, 0.02, 0.4])
async def test_no_request_is_lost_when_a_listener_ends(pause):
    """Clients that keep connections, and ask at any moment, are all answered to the last."""
    seen: Counter[str] = Counter()
    for _ in range(2):
        async with (
            asyncio.TaskGroup() as clients,
            listener.listening(soon, ("127.0.0.1", 0), "SETTING", drain_timeout=2) as url,
        ):
            for _ in range(64):
                clients.create_task(ask_again_and_again(url, seen, pause=pause))
            async with asyncio.timeout(60):
                while seen["204"] < 200:
                    await asyncio.sleep(0.01)

    assert {"204", "connections"} == seen.keys()


async def test_what_waits_to_be_accepted_is_answered_when_a_listener_ends():
    """A connection that is in the backlog when the listener is told to end is served."""
    sock = listener.bind(("127.0.0.1", 0), setting="SETTING")
    address = sock.getsockname()
    accepting = acceptor.Acceptor(sock, protocol.Shared(soon, keep_alive=75), limit=1000)
    accepting.open()
    clients = [socket.create_connection(address) for _ in range(200)]  # the loop does not turn
    accepting.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    await accepting.wait_closed()
    for client in clients:
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(REQUEST)
        async with asyncio.timeout(60):
            answer = await reader.read()  # until it is closed
        writer.close()

        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"connection: close" in answer.lower()
