"""Keep a number of HTTP requests outstanding, one on each connection, and measure the cost."""

# The load speaks HTTP/1.1 over bare sockets, for the reason given in `load`. A caller is a
# connection that is kept, with a token of its own.

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from figures import Figures
from load import PATIENCE
from traffic import Stream, measured, undisturbed

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GOOD = b"HTTP/1.1 200"


async def measure(
    port: int,
    stream: Stream,
    tokens: Sequence[str],
    *,
    seconds: float,
    pids: Mapping[str, int],
) -> Figures:
    """Ask, on a connection for each token, in a closed loop."""
    loop = asyncio.get_running_loop()
    callers: list[_Caller] = []

    async def drained() -> int:
        return sum(await asyncio.gather(*(each.drained() for each in callers)))

    with undisturbed():
        try:
            for token in tokens:
                connect = partial(_Caller, stream, token)
                callers.append((await loop.create_connection(connect, "127.0.0.1", port))[1])
            return await measured([stream], drained, seconds=seconds, pids=pids)
        finally:
            for each in callers:
                each.close()


class _Caller(asyncio.Protocol):
    _transport: Any = None  # uvloop's own kind

    def __init__(self, stream: Stream, token: str) -> None:
        self._stream = stream
        self._tail = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n\r\n" % (
            token.encode()
        )
        self._rest = b""
        self._key = b""
        self._sent = 0.0
        self._stopping = False
        self._drained = asyncio.Event()

    async def drained(self) -> int:
        """Send nothing more, and return how many never got an answer."""
        self._stopping = True
        try:
            async with asyncio.timeout(PATIENCE):
                await self._drained.wait()
        except TimeoutError:
            return 1
        return 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take the answer when it is whole, and send the next request."""
        now = time.perf_counter()
        data = self._rest + data if self._rest else data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if end >= 0 and length is None:
            raise ConnectionError(f"an answer without a length: {data[:end]!r}")
        if length is None or len(data) < end + 4 + int(length[1]):
            self._rest = data
            return
        self._rest = b""
        refused = not data.startswith(GOOD)
        self._stream.take(self._key, data[end + 4 :], now - self._sent, refused=refused)
        if self._stopping:
            self._drained.set()
        else:
            self._send()

    def _send(self) -> None:
        self._key, _ = next(self._stream.requests)
        self._sent = time.perf_counter()
        self._transport.write(self._stream.lookup.payload(self._key) + self._tail)
