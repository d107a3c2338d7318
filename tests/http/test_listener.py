"""A connection on which no request arrives in time is closed, and one that is answered is not."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from responder.http import listener, protocol

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
        async with asyncio.timeout(5):
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
