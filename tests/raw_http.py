"""A client of HTTP that sends what no library would, and reads answers as they are on the wire."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
PATIENCE = 60  # seconds


@dataclass(frozen=True)
class Answer:
    """An answer as it was on the wire."""

    status: int
    headers: list[tuple[str, str]]  # by lower-cased name
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header; it must not be there twice."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) < 2, (name, values)
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of an error, after a look at what every error has in common."""
        assert "application/problem+json" == self.header("content-type")
        assert {"type", "title", "status", "detail", "code"} <= self.json.keys()
        assert self.status == self.json["status"]
        return self.status, self.json["code"]


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        """Send these bytes, each part by itself."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """Read one answer."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            body = await self.reader.readexactly(0 if bodiless else _length(head))
        return _answer(head, body)

    async def ask(self, *parts: bytes) -> Answer:
        """Send a request, and read its answer."""
        await self.send(*parts)
        return await self.answer()

    async def answers(self) -> list[Answer]:
        """Read answers until the server closes; there is nothing else between or behind them."""
        found, rest = [], await self.rest()
        while rest:
            head, end, rest = rest.partition(b"\r\n\r\n")
            assert end, head
            head += end
            body, rest = rest[: _length(head)], rest[_length(head) :]
            assert len(body) == _length(head)
            found.append(_answer(head, body))
        return found

    async def rest(self) -> bytes:
        """Read all that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


def _length(head: bytes) -> int:
    match = _LENGTH.search(head)
    return int(match[1]) if match else 0


def _answer(head: bytes, body: bytes) -> Answer:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    return Answer(int(first.split(" ")[1]), [(name.lower(), value) for name, value in pairs], body)


@asynccontextmanager
async def connected(url: object) -> AsyncIterator[RawClient]:
    """Connect to where a URL points, while the context is open."""
    at = httpx.URL(str(url))
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(at.host, at.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


def get(target: str | bytes, headers: bytes = b"Host: x\r\n", *, method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    written = target if isinstance(target, bytes) else target.encode("latin-1")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), written, headers)


async def ask_once(url: object, request: bytes) -> Answer:
    """Send a request on a connection of its own, and read its answer."""
    async with connected(url) as client:
        return await client.ask(request)
