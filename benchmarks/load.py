"""Keep a number of requests outstanding, and measure what that costs everyone."""

# Speaks the NATS protocol itself: a client library would cost more than what it measures.
#
# A closed loop: each slot sends its next request when it has the answer to its last. What arrives in
# one read is answered with one write, as any busy client would do.

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

WARM_UP = 0.5  # seconds: connections, statements, plans
PATIENCE = 5.0  # seconds for the last answers; what is missing then has failed
INBOX = b"_INBOX.load."


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one measurement found; CPU is in microseconds per request, by process."""

    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]
    failures: int


async def measure(
    nats_url: str,
    subject: str,
    ids: Sequence[str],
    *,
    outstanding: int,
    seconds: float,
    processes: Mapping[str, int],
    fixed: str | None = None,
) -> Figures:
    """Ask for ids at random; an answer is right if it contains the id, or `fixed` if given."""
    url = urlsplit(nats_url)
    load = _Load(subject, ids, outstanding=outstanding, fixed=fixed)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: load, url.hostname, url.port)
    try:
        await asyncio.sleep(WARM_UP)
        load.latencies = array("d")
        before, began = _cpu(processes), time.perf_counter()
        await asyncio.sleep(seconds)
        latencies, load.latencies = load.latencies, array("d")
        after, ended = _cpu(processes), time.perf_counter()
        lost = await load.drained()
    finally:
        transport.close()
    if not latencies:
        raise TimeoutError(f"not one answer on {subject}")
    ordered = sorted(latencies)
    return Figures(
        rate=len(ordered) / (ended - began),
        p50=ordered[len(ordered) // 2] * 1e3,
        p99=ordered[len(ordered) * 99 // 100] * 1e3,
        cpu={name: (after[name] - before[name]) / len(ordered) * 1e6 for name in after},
        failures=load.failures + lost,
    )


class _Load(asyncio.Protocol):
    def __init__(
        self, subject: str, ids: Sequence[str], *, outstanding: int, fixed: str | None
    ) -> None:
        self.latencies = array("d")
        self.failures = 0
        self._ids = itertools.cycle([id_.encode() for id_ in random.sample(ids, len(ids))])
        size = len(_payload(ids[0].encode()))
        self._heads = [
            b"PUB %b %b%d %d\r\n" % (subject.encode(), INBOX, slot, size)
            for slot in range(outstanding)
        ]
        self._fixed = fixed.encode() if fixed else None
        self._expected = [b""] * outstanding
        self._sent = [0.0] * outstanding
        self._waiting = outstanding
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

    def connection_made(self, transport: Any) -> None:  # uvloop's own kind
        self._transport = transport
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        transport.write(b"CONNECT %b\r\nSUB %b* 1\r\n" % (options.encode(), INBOX))
        self._send(range(len(self._heads)))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._rest + data
        at = 0
        answered = []
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            at, start = end + 2, at
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                stop = at + int(words[-1])
                if len(data) < stop + 2:
                    at = start
                    break
                slot = int(words[1][len(INBOX) :])
                self.latencies.append(now - self._sent[slot])
                if (self._fixed or self._expected[slot]) not in data[at:stop]:
                    self.failures += 1
                answered.append(slot)
                at = stop + 2
            elif line == b"PING":
                self._transport.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise ConnectionError(line.decode())
        self._rest = data[at:]
        if self._stopping:
            self._waiting -= len(answered)
            if not self._waiting:
                self._drained.set()
        elif answered:
            self._send(answered)

    def _send(self, slots: Sequence[int]) -> None:
        messages = []
        for slot, id_ in zip(slots, self._ids, strict=False):
            self._expected[slot] = id_
            messages += self._heads[slot], _payload(id_), b"\r\n"
        now = time.perf_counter()
        for slot in slots:
            self._sent[slot] = now
        self._transport.write(b"".join(messages))


def _payload(id_: bytes) -> bytes:
    return b'{"id":"%b"}' % id_


def _cpu(processes: Mapping[str, int]) -> dict[str, float]:
    return {name: _cpu_seconds(pid) for name, pid in processes.items()} | {
        "load": time.process_time()
    }


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children; it has inherited that of those which ended."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children():
        times = child.cpu_times()
        total += times.user + times.system
    return float(total)
