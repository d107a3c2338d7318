"""One timer of the loop for many deadlines: one for each would cost a tenth of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, Generic, Protocol, TypeVar

TICK: Final = 0.01  # seconds between two alarms: in an overload each request has its own deadline


class _Timed(Protocol):
    deadline: float  # the loop's time


Item = TypeVar("Item", bound=_Timed)


class Alarm(Generic[Item]):
    """Goes off at the earliest deadline of what waits.

    Args:
        waiting: returns all that waits.
        expire: called with each that is late.

    Attributes:
        at: when it goes off, the loop's time; has to be `set` for a deadline that is earlier.
    """

    def __init__(
        self, waiting: Callable[[], Iterable[Item]], expire: Callable[[Item], None]
    ) -> None:
        self.at: float = inf
        self._waiting, self._expire = waiting, expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None

    def set(self, when: float) -> None:
        """Go off then, and not when it was set for before."""
        if self._timer is not None:
            self._timer.cancel()
        self.at = when
        self._timer = self._loop.call_at(when, self._go_off)

    def _go_off(self) -> None:
        self._timer, self.at = None, inf
        now = self._loop.time()
        for late in [each for each in self._waiting() if each.deadline <= now]:
            self._expire(late)
        if left := [each.deadline for each in self._waiting()]:
            self.set(max(min(left), now + TICK))
