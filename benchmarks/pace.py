"""When the next request is sent: when another was answered, or whatever is answered."""

# In a closed loop a number of requests is outstanding: each answer brings the next request, so that
# nothing is asked while answers are late. Real callers do not wait for one another. In an open loop
# requests arrive at random, so many a second, each independent of the others (a Poisson process),
# and a latency counts from when a request was meant to be sent, not from when the load got to it.

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

CONNECTIONS = 8  # of an open loop
_CLOCK_MONOTONIC = 1  # that of time.perf_counter
_ABSOLUTE = 1
_EXPIRED = 8  # bytes that tell how often
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Pace:
    """A closed loop with so many requests outstanding, or an open one at a rate.

    Args:
        outstanding: in the closed loop, over all connections.
        rate: of the open loop, in requests a second; instead of the former.
        connections: over which they are spread.
    """

    outstanding: int = 0
    rate: float = 0.0
    connections: int = 1

    def __str__(self) -> str:
        if self.rate:
            return f"{self.rate:,.0f}/s"
        return f"{self.outstanding} outstanding"


class Arrivals:
    """Calls back with the times at which requests are due, until closed."""

    # Timers of an event loop are as fine as a millisecond, which is more than an answer takes.

    def __init__(self, rate: float, due: Callable[[list[float]], None]) -> None:
        self._rate = rate
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._timer = _LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop.add_reader(self._timer, self._ring)
        self._next = time.perf_counter()
        self._set()

    def close(self) -> None:
        """Let nothing more be due."""
        self._loop.remove_reader(self._timer)
        os.close(self._timer)

    def _ring(self) -> None:
        os.read(self._timer, _EXPIRED)
        now = time.perf_counter()
        due = []
        while self._next <= now:
            due.append(self._next)
            self._next += random.expovariate(self._rate)
        self._set()
        if due:
            self._due(due)

    def _set(self) -> None:
        seconds = int(self._next)
        value = struct.pack("4q", 0, 0, seconds, int((self._next - seconds) * 1e9))
        if _LIBC.timerfd_settime(self._timer, _ABSOLUTE, value, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
