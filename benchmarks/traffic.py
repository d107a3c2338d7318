"""Requests of one kind, or of several, and what became of them."""

# Every answer is looked at: whether it is an error, and whether it holds the end of the key asked
# for. Some answers are kept, and compared to the last field after the measurement.

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from figures import Figures, of
from lookups import Lookup
from processes import resident, spent, usages

KEEP = 499  # one answer of so many is compared whole
KEPT = 200  # at most
TELLING = 32  # bytes at the end of a key, which the answer must hold
PICKS = 10_000  # of which stream is next, before they repeat
WARM_UP = 0.5  # seconds: connections, statements, plans

T = TypeVar("T")
Request = tuple[bytes, bytes]  # a key, and the token of a caller, or none


class Stream:
    """Requests of one kind, and what became of them.

    Args:
        lookup: what is asked for.
        requests: without end, or as many as there can be; keys at random by default.
        subject: over NATS.
        fixed: what every answer holds, of a program that looks nothing up.
        share: of all requests, beside the shares of others.
    """

    def __init__(
        self,
        lookup: Lookup,
        requests: Iterator[Request] | None = None,
        *,
        subject: str = "",
        fixed: bytes | None = None,
        share: float = 1.0,
    ) -> None:
        self.lookup = lookup
        self.requests = requests or ((key, b"") for key in shuffled(lookup.keys))
        self.subject = subject.encode()
        self.share = share
        self.latencies = array("d")
        self.failures = 0
        self._fixed = fixed
        self._holds = fixed or lookup.holds
        self._kept: list[tuple[bytes, bytes]] = []
        self._until_kept = KEEP

    def take(self, key: bytes, answer: bytes, latency: float, *, refused: bool) -> None:
        """Take the answer to the request for a key, after so many seconds."""
        self.latencies.append(latency)
        if refused or (self._holds or key[-TELLING:]) not in answer:
            self.failures += 1
            return
        self._until_kept -= 1
        if not self._until_kept:
            self._until_kept = KEEP
            if len(self._kept) < KEPT:
                self._kept.append((key, answer))

    def wrong(self) -> int:
        """Return how many of the answers that were kept are wrong."""
        return 0 if self._fixed else sum(not self._is_right(*each) for each in self._kept)

    def _is_right(self, key: bytes, answer: bytes) -> bool:
        try:
            return self.lookup.is_right(key, answer)
        except (ValueError, KeyError, AttributeError, TypeError):  # it may be anything
            return False


def mixed(streams: Sequence[Stream]) -> Iterator[tuple[Stream, Request]]:
    """Return the requests of all streams, by their shares and in a random order."""
    picks = random.choices(streams, [each.share for each in streams], k=PICKS)
    for stream in itertools.cycle(picks):
        if (request := next(stream.requests, None)) is None:
            return
        yield stream, request


def shuffled(values: Sequence[T]) -> Iterator[T]:
    """Return all in a random order, again and again."""
    return itertools.cycle(random.sample(values, len(values)))


async def measured(
    streams: Sequence[Stream],
    drained: Callable[[], Awaitable[int]],
    *,
    seconds: float,
    pids: Mapping[str, int],
) -> Figures:
    """Return the figures of the first stream while all are asked for, after a time to warm up.

    CPU is that of all requests, divided by their number; failures are those of all. `drained` asks
    for nothing more, and returns how many requests never got an answer. `pids` are the processes
    whose CPU time is wanted; of the one called `worker` the memory too.
    """
    await asyncio.sleep(WARM_UP)
    for each in streams:
        each.latencies = array("d")
    before, began = usages(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    latencies = [each.latencies for each in streams]
    for each in streams:
        each.latencies = array("d")
    after, ended = usages(pids), time.perf_counter()
    memory = resident(pids["worker"])
    lost = await drained()
    if not latencies[0]:
        raise TimeoutError(f"not one answer to {streams[0].lookup.name}")
    if any(next(each.requests, None) is None for each in streams):
        raise SystemExit("there were too few requests")
    return of(
        latencies[0],
        seconds=ended - began,
        answers=sum(map(len, latencies)),
        cpu={name: spent(before[name], after[name]) for name in after},
        memory=memory,
        failures=lost + sum(each.failures + each.wrong() for each in streams),
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Collect no garbage while the context is open: a pause here would be a latency there."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
