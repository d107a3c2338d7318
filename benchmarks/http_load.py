"""Keep a number of HTTP requests outstanding, one on each connection, and measure the cost."""

# The load speaks HTTP/1.1 over bare sockets, for the reason given in `load`. A caller is a
# connection that is kept, with a token of its own.

from __future__ import annotations

import asyncio
import gc
import re
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from figures import Figures, of
from load import KEEP, KEPT, PATIENCE, WARM_UP, Log, is_right, shuffled
from lookups import Lookup
from processes import resident, spent, usages

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GOOD = b"HTTP/1.1 200"


async def measure(
    port: int,
    lookup: Lookup,
    tokens: Sequence[str],
    *,
    seconds: float,
    pids: Mapping[str, int],
) -> Figures:
    """Ask for keys at random, on a connection for each token."""
    log, keys = Log(), shuffled(lookup.keys)
    loop = asyncio.get_running_loop()
    callers: list[_Caller] = []
    gc.collect()
    gc.disable()  # a pause here would be a latency there
    try:
        for token in tokens:
            connect = partial(_Caller, lookup, keys, token, log)
            callers.append((await loop.create_connection(connect, "127.0.0.1", port))[1])
        await asyncio.sleep(WARM_UP)
        log.latencies = array("d")
        before, began = usages(pids), time.perf_counter()
        await asyncio.sleep(seconds)
        latencies, log.latencies = log.latencies, array("d")
        after, ended = usages(pids), time.perf_counter()
        memory = resident(pids["worker"])
        lost = sum(await asyncio.gather(*(each.drained() for each in callers)))
    finally:
        gc.enable()
        for each in callers:
            each.close()
    if not latencies:
        raise TimeoutError("not one answer")
    return of(
        latencies,
        seconds=ended - began,
        cpu={name: spent(before[name], after[name]) for name in after},
        memory=memory,
        failures=log.failures + lost + sum(not is_right(lookup, *each) for each in log.kept),
    )


class _Caller(asyncio.Protocol):
    _transport: Any = None  # uvloop's own kind

    def __init__(self, lookup: Lookup, keys: Iterator[bytes], token: str, log: Log) -> None:
        self._log = log
        self._keys = keys
        self._head = lookup.head
        self._tail = b"%b HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n\r\n" % (
            lookup.tail,
            token.encode(),
        )
        self._rest = b""
        self._key = b""
        self._sent = 0.0
        self._until_kept = KEEP
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
        self._take(data[:end], data[end + 4 :], now)
        if self._stopping:
            self._drained.set()
        else:
            self._send()

    def _take(self, head: bytes, body: bytes, now: float) -> None:
        log = self._log
        log.latencies.append(now - self._sent)
        if not head.startswith(GOOD) or self._key not in body:
            log.failures += 1
            return
        self._until_kept -= 1
        if not self._until_kept:
            self._until_kept = KEEP
            if len(log.kept) < KEPT:
                log.kept.append((self._key, body))

    def _send(self) -> None:
        self._key = next(self._keys)
        self._sent = time.perf_counter()
        self._transport.write(self._head + self._key + self._tail)
