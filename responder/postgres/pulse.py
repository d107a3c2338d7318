"""Whether PostgreSQL answers at all, whichever the connection."""

# An outage is waited out for one timeout. It begins with the oldest query that has no answer, not
# when that is noticed: where the network swallows what is sent, a connection is given up after half
# of the timeout, and only then is there an error. An example, with a timeout of 2 s: a query is
# sent at 0 s, its connection is given up at 1.25 s, and no other can be made. Lookups are refused
# from 2 s on, and not from 3.25 s on.
#
# Any answer ends the silence, of whichever query: one that hangs, behind a lock, is no outage.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from responder.histogram import Histogram

LATE: Final = 0.1  # seconds by which the loop may be late
TICK: Final = 0.05  # seconds between two looks at what lasts
SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


class Watch:
    """Notices that something lasts for too long.

    But not while it is the loop that is late: then an answer may be there that is not read yet.
    One alarm serves for ever: one for each query would cost a lone lookup a tenth of our time.

    Args:
        patience: seconds for which it may last.
        overdue: called when it has lasted for longer, again and again.

    Attributes:
        since: the loop's time at which it began; infinite while there is nothing.
    """

    def __init__(self, patience: float, overdue: Callable[[], None]) -> None:
        self.since = inf
        self._patience = patience
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._look_at(self._loop.time() + self._patience)

    def stop(self) -> None:
        """Look no more."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _look_at(self, when: float) -> None:
        self._due = when
        self._alarm = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        on_time = now - self._due <= LATE
        due = min(self.since, now) + self._patience
        self._look_at(max(due, now + TICK))
        if on_time and due <= now:
            self._overdue()


class Pulse:
    """Knows for how long nothing has been answered that was asked.

    Args:
        patience: seconds after which that is an outage.

    Attributes:
        silent: whether it is one.
        seconds: of each query, whether it was answered or failed.
    """

    def __init__(self, *, patience: float) -> None:
        self.silent: bool = False
        self.seconds: Histogram = Histogram(SECONDS)
        self._now = asyncio.get_running_loop().time
        self._watch = Watch(patience, self._fall_silent)

    def start(self) -> None:
        """Begin to look: PostgreSQL is waited for from now on."""
        self.asked()
        self._watch.start()

    def stop(self) -> None:
        """Look no more."""
        self._watch.stop()

    def asked(self, since: float | None = None) -> None:
        """Note that something is asked, or has to be, now or since a moment of the loop's time."""
        self._watch.since = min(self._watch.since, self._now() if since is None else since)

    def answered(self) -> None:
        """Note that PostgreSQL has answered."""
        self._watch.since = inf
        self.silent = False

    def _fall_silent(self) -> None:
        self.silent = True
