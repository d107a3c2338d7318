"""How many keys may wait in a line: as many as are answered in time."""

# What comes faster than it is answered is refused, as early as it is known that it would wait for
# too long: a key that has waited for most of its deadline has taken the place of one that had not.
# So it is measured how many keys of a line are answered in a second while some wait, and no more
# wait in it than are answered within its patience, a share of the timeout. An example: 8,000 pages
# a second are asked for, 2,000 are answered, and the patience is 0.15 s: 300 pages wait, each for
# 0.15 s, and of the others each is refused. (The age of a line's head would say this too late: of
# keys that come four times too fast, the last waits for four times as long.) Where none was refused
# LATELY, a FEW may wait for half of the timeout: 100 that come together, where 200 a second are
# answered, are no overload. Nor are they a minute after one, if nothing has come in that minute.
#
# But to wait for PostgreSQL while it answers nothing is another matter. It may be back soon, and
# then all that waited is answered in less time than the outage took. So answers are measured by a
# clock that runs only while batches are answered, and stands still between two of them that are far
# apart (PAUSE). And after such a pause keys may wait for longer, by the length of the pause at
# first, and then for less and less. An example: 20,000 keys a second come, and PostgreSQL is gone
# for 0.3 s. 6,000 keys wait. When it is back it answers 40,000 a second: 0.3 s later no key waits
# for long, and none was refused.

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

CROWD: Final = 32  # keys that are no crowd yet
PATIENCE: Final = 0.05  # share of the timeout, for which a key may have to wait
FEW: Final = 256  # keys that are no overload if half of the timeout suffices for them
LATELY: Final = 1.0  # seconds in which a refusal tells of an overload
MEASURED: Final = 0.05  # seconds in which it is counted how many keys are taken, at least
SEVERAL: Final = 8  # batches, likewise: the first and the last may be anywhere in that time
STEADY: Final = 4  # measurements of which a line's room is about the mean
FORGOTTEN: Final = 1.0  # seconds after which that says nothing any more
UNKNOWN: Final = 128  # batches that may wait in a line of which nothing is known
PAUSE: Final = 0.1  # seconds without an answer after which waiting is no sign of an overload
LENIENCE: Final = 0.25  # share of the timeout, by which keys may wait for longer after a pause
FORGETTING: Final = 4  # times as long as a pause it is remembered


class Clock:
    """A clock that runs while batches are answered.

    Args:
        now: returns the time, in seconds.
        timeout: seconds that a lookup has, usually.

    Attributes:
        seconds: what it shows.
        leniency: seconds for which keys may wait for longer now.
        timeout: likewise.
        now: likewise.
    """

    def __init__(self, now: Callable[[], float], timeout: float) -> None:
        self.seconds: float = 0.0
        self.leniency: float = 0.0
        self.timeout: float = timeout
        self.now: Callable[[], float] = now
        self._ticked = 0.0
        self._pause, self._resumed = 0.0, 0.0  # how long the last pause was; the clock at its end

    def start(self) -> None:
        """Run from now on: a key waits, and before it none did."""
        self._ticked = self.now()

    def tick(self) -> None:
        """Run on: a batch was answered."""
        now = self.now()
        passed = now - self._ticked
        self._ticked = now
        if passed <= PAUSE:
            self.seconds += passed
            if not self.leniency:  # nothing of a pause is left
                return
        left = max(self._pause - (self.seconds - self._resumed) / FORGETTING, 0.0)
        if passed > max(PAUSE, left):
            left = self._pause = min(passed, LENIENCE * self.timeout)
            self._resumed = self.seconds
        self.leniency = left


class Room:
    """The room in a line.

    Args:
        max_batch: how many keys of the line may go together.
        patience: share of the timeout, for which a key may have to wait in an overload.

    Attributes:
        keys: so many may wait.
        refused_at: when a key was refused, the last time.
    """

    def __init__(self, max_batch: int, patience: float) -> None:
        self.keys: float = UNKNOWN * max_batch
        self.refused_at: float = -inf
        self._unknown = self.keys
        self._patience = patience
        self._rate = 0.0  # keys a second, likewise about the mean
        self._taken = self._batches = 0  # keys, and batches of them, since the measurement began
        self._measured_from = 0.0  # by the clock, as is the next
        self._measured_at = 0.0

    def begin(self, clock: Clock) -> None:
        """Begin to measure: a key waits, and before it none did."""
        self._reset(clock)
        if clock.seconds - self._measured_at > FORGOTTEN:
            self.keys = self._unknown
        if self.keys < FEW:  # as it was at the end of an overload, maybe
            self.keys = max(self.keys, self._few(clock))

    def put_back(self, keys: int) -> None:
        """Do not count keys that were taken, and are asked for again."""
        self._taken -= keys

    def measure(self, taken: int, clock: Clock) -> None:
        """Find out how many keys are taken in a second, of those taken while others are left."""
        self._taken, self._batches = self._taken + taken, self._batches + 1
        passed = clock.seconds - self._measured_from
        if passed >= MEASURED and self._batches >= SEVERAL:
            rate = self._taken / passed
            self._rate += (rate - self._rate) / STEADY if self._rate else rate
            within = (self._patience * clock.timeout + clock.leniency) * rate
            room = max(within, self._few(clock), CROWD)
            known = self.keys < self._unknown
            self.keys = self.keys + (room - self.keys) / STEADY if known else room
            self._measured_at = clock.seconds
            self._reset(clock)

    def _reset(self, clock: Clock) -> None:
        self._taken, self._batches, self._measured_from = 0, 0, clock.seconds

    def _few(self, clock: Clock) -> float:
        """Return how many may wait for as long as half of the timeout."""
        if clock.now() - self.refused_at <= LATELY:
            return 0.0
        return min(FEW, clock.timeout / 2 * self._rate)
