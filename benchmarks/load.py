"""Keep a number of requests outstanding over NATS, and measure what that costs each process."""

# The load speaks the NATS protocol itself: a client library would cost more than what it measures.
#
# The load is a closed loop: each slot sends its next request when it has the answer to its last.
# What arrives in one read is answered with one write, as any busy client would do.
#
# Every answer is looked at: whether it is an error, and whether it holds the end of the key asked
# for. Some answers are kept, and compared to the last field after the measurement.

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from figures import Figures, of
from lookups import Lookup
from processes import resident, spent, usages

WARM_UP = 0.5  # seconds: connections, statements, plans
PATIENCE = 5.0  # seconds for the last answers; what is missing then has failed
KEEP = 499  # one answer of so many is compared whole
KEPT = 200  # at most
ERROR = b"Nats-Service-Error"
REFUSED = b"NATS/1.0 503"  # no responders
TELLING = 32  # bytes at the end of a key, which the answer must hold


async def measure(
    nats_url: str,
    subject: str,
    lookup: Lookup,
    *,
    outstanding: int,
    connections: int = 1,
    seconds: float,
    pids: Mapping[str, int],
    fixed: bytes | None = None,
) -> Figures:
    """Ask for keys at random; `fixed` is what every answer holds, if not the key.

    `pids` are the processes whose CPU time is wanted; of the one called `worker` the memory too.
    """
    log = Log()
    share = outstanding // connections
    async with asking(
        nats_url, subject, lookup, log, outstanding=share, connections=connections, fixed=fixed
    ) as loads:
        await asyncio.sleep(WARM_UP)
        log.latencies = array("d")
        before, began = usages(pids), time.perf_counter()
        await asyncio.sleep(seconds)
        latencies, log.latencies = log.latencies, array("d")
        after, ended = usages(pids), time.perf_counter()
        memory = resident(pids["worker"])
        lost = await drained(loads)
    if not latencies:
        raise TimeoutError(f"not one answer on {subject}")
    wrong = 0 if fixed else sum(not is_right(lookup, *each) for each in log.kept)
    return of(
        latencies,
        seconds=ended - began,
        cpu={name: spent(before[name], after[name]) for name in after},
        memory=memory,
        failures=log.failures + lost + wrong,
    )


def is_right(lookup: Lookup, key: bytes, answer: bytes) -> bool:
    """Whether an answer is right, whatever it may be."""
    try:
        return lookup.is_right(key, answer)
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


@asynccontextmanager
async def asking(
    nats_url: str,
    subject: str,
    lookup: Lookup,
    log: Log,
    *,
    outstanding: int,
    connections: int = 1,
    fixed: bytes | None = None,
) -> AsyncIterator[list[Load]]:
    """Keep `outstanding` requests on each connection while the context is open."""
    url = urlsplit(nats_url)
    loop = asyncio.get_running_loop()
    keys = shuffled(lookup.keys)
    connect = partial(Load, subject, lookup, keys, log, outstanding=outstanding, fixed=fixed)
    loads: list[Load] = []
    gc.collect()
    gc.disable()  # a pause here would be a latency there
    try:
        for _ in range(connections):
            made = await loop.create_connection(connect, url.hostname or "", url.port or 0)
            loads.append(made[1])
        yield loads
    finally:
        gc.enable()
        for each in loads:
            each.close()


async def drained(loads: Iterable[Load]) -> int:
    """Send nothing more, and return how many never got an answer."""
    return sum(await asyncio.gather(*(each.drained() for each in loads)))


def shuffled(keys: Sequence[bytes]) -> Iterator[bytes]:
    """Return the keys in a random order, again and again."""
    return itertools.cycle(random.sample(keys, len(keys)))


class Log:
    """What the connections of one measurement saw."""

    def __init__(self, wanted: int | None = None) -> None:
        self.latencies = array("d")
        self.wanted = wanted
        self.reached = asyncio.Event()  # as many answers as wanted
        self.failures = 0
        self.kept: list[tuple[bytes, bytes]] = []


class Load(asyncio.Protocol):
    """A connection to the NATS server with requests outstanding."""

    _transport: Any = None  # uvloop's own kind

    def __init__(
        self,
        subject: str,
        lookup: Lookup,
        keys: Iterator[bytes],
        log: Log,
        *,
        outstanding: int,
        fixed: bytes | None = None,
    ) -> None:
        self._log = log
        self._keys = keys
        self._inbox = b"_INBOX.load%x." % random.getrandbits(64)
        self._heads = [
            b"PUB %b %b%d " % (subject.encode(), self._inbox, slot) for slot in range(outstanding)
        ]
        self._head, self._tail = b"\r\n" + lookup.head, lookup.tail + b"\r\n"
        self._around = len(lookup.head) + len(lookup.tail)
        self._fixed = fixed
        self._asked = [b""] * outstanding
        self._sent = [0.0] * outstanding
        self._waiting = outstanding
        self._until_kept = KEEP
        self._stopping = False
        self._drained = asyncio.Event()
        self._rest = b""

    async def drained(self) -> int:
        """Send nothing more, and return how many never got an answer."""
        self._stopping = True
        try:
            async with asyncio.timeout(PATIENCE):
                await self._drained.wait()
        except TimeoutError:
            return self._waiting
        return 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Subscribe to the answers and send the first requests."""
        self._transport = transport
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        transport.write(b"CONNECT %b\r\nSUB %b* 1\r\n" % (options.encode(), self._inbox))
        self._send(range(len(self._heads)))

    def data_received(self, data: bytes) -> None:
        """Take the answers, and send as many requests."""
        now = time.perf_counter()
        data = self._rest + data if self._rest else data
        at = 0
        answered = []
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            start, at = at, end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                stop = at + int(words[-1])
                if len(data) < stop + 2:
                    at = start
                    break
                slot = int(words[1][len(self._inbox) :])
                body = at + int(words[-2]) if line.startswith(b"H") else at
                self._take(slot, data[body:stop], now, headers=data[at:body])
                answered.append(slot)
                at = stop + 2
            elif line == b"PING":
                self._transport.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise ConnectionError(line.decode())
        self._rest = data[at:]
        if self._log.wanted and len(self._log.latencies) >= self._log.wanted:
            self._log.reached.set()
        if self._stopping:
            self._waiting -= len(answered)
            if not self._waiting:
                self._drained.set()
        elif answered:
            self._send(answered)

    def _take(self, slot: int, answer: bytes, now: float, *, headers: bytes) -> None:
        log, key = self._log, self._asked[slot]
        log.latencies.append(now - self._sent[slot])
        if (
            headers.startswith(REFUSED)
            or ERROR in headers
            or (self._fixed or key[-TELLING:]) not in answer
        ):
            log.failures += 1
            return
        self._until_kept -= 1
        if not self._until_kept:
            self._until_kept = KEEP
            if len(log.kept) < KEPT:
                log.kept.append((key, answer))

    def _send(self, slots: Sequence[int]) -> None:
        messages: list[bytes] = []
        for slot, key in zip(slots, self._keys, strict=False):
            self._asked[slot] = key
            size = b"%d" % (self._around + len(key))
            messages += self._heads[slot], size, self._head, key, self._tail
        now = time.perf_counter()
        for slot in slots:
            self._sent[slot] = now
        self._transport.write(b"".join(messages))
