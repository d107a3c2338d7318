"""Many concurrent lookups become few queries."""

# A source of answers (a connection to PostgreSQL) that is free takes all the keys that wait in a
# line, as one batch; while no source is free, keys pile up in their lines. No timer delays a batch:
# an idle system answers at once, and a busy one batches by itself. Waking a process costs far more
# than a lookup, so fewer and fuller wake-ups win on every side. Only a crowd is shared among the
# sources that are free, because one batch of all would have worker and database wait for each other
# in turn. Lines take turns.
#
# What shares a batch was already waiting when the batch was taken. That is what makes a shared
# answer as fresh as one's own: the snapshot is taken after every one of these requests arrived.
#
# No lookup depends on another: each has its own deadline and its own callback. A batch that fails
# waits again in smaller parts, until the key that spoils it is alone: of a, b, c and d, where c
# makes a query fail, a and b are answered by the next query, c and d fail again together and go
# alone then, and only c gets the error. A lookup that has had its answer (that of its deadline,
# say) ignores any later one.
#
# What comes faster than it is answered is refused, as early as it is known that it would wait for
# too long: a key that has waited for most of its deadline has taken the place of one that had not.
# So it is measured how many keys of a line are answered in a second while some wait, and no more
# wait in it than are answered within its patience, a share of the timeout. An example: 8,000 pages
# a second are asked for, 2,000 are answered, and the patience is 0.25 s: 500 pages wait, each for
# 0.25 s, and of the others each is refused. A FEW may wait for half of the timeout: 100 that come
# together, where 200 a second are answered, are no overload. (The age of a line's head would say
# this too late: of keys that come four times too fast, the last waits for four times as long.)
#
# But to wait for PostgreSQL while it answers nothing is another matter. It may be back soon, and
# then all that waited is answered in less time than the outage took. So answers are measured by a
# clock that runs only while batches are answered, and stands still between two of them that are far
# apart (PAUSE). And after such a pause keys may wait for longer, by the length of the pause at
# first, and then for less and less. An example: 20,000 keys a second come, and PostgreSQL is gone
# for 0.3 s. 6,000 keys wait. When it is back it answers 40,000 a second: 0.3 s later no key waits
# for long, and none was refused.
#
# What a key means and how a batch is answered is not known here. Nothing here does I/O.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from math import ceil
from typing import Any, Final, Generic, TypeAlias, TypeVar

from responder.afterwards import Afterwards
from responder.alarm import Alarm
from responder.errors import RefusedError, ResponderError

Key = TypeVar("Key")
Source = TypeVar("Source")
Answer: TypeAlias = bytes | ResponderError
Callback: TypeAlias = Callable[[Answer], None]

CROWD: Final = 32  # keys that are no crowd yet
PATIENCE: Final = 0.05  # share of the timeout, for which a key may have to wait
FEW: Final = 256  # keys that are no overload if half of the timeout suffices for them
SPARING: Final = 1.5  # times as many may wait, for those who are spared
MEASURED: Final = 0.05  # seconds in which it is counted how many keys are taken, at least
SEVERAL: Final = 8  # batches, likewise: the first and the last may be anywhere in that time
STEADY: Final = 4  # measurements of which a line's room is about the mean
FORGOTTEN: Final = 1.0  # seconds after which that says nothing any more
UNKNOWN: Final = 128  # batches that may wait in a line of which nothing is known
PAUSE: Final = 0.1  # seconds without an answer after which waiting is no sign of an overload
LENIENCE: Final = 0.25  # share of the timeout, by which keys may wait for longer after a pause
FORGETTING: Final = 4  # times as long as a pause it is remembered
TOO_MANY: Final = "too many requests are waiting"


class Alone:
    """In place of an answer: this key wants a batch of its own."""


ALONE: Final = Alone()


class Line(Generic[Key, Source]):
    """A line of keys that wait, and how a batch of them is answered.

    `fetch(source, keys)` returns an answer for each key, in order; in place of one it may say ALONE
    to be asked again with that key only, which it must not say of a lone key.

    Args:
        max_batch: how many keys may go together.
        crowd: so many keys or fewer are not shared among the sources that are free.
        apart: seconds for which keys go alone after one of them was too slow. Where one page has
            run into its timeout, for example, the next may, and would take others along.
        patience: share of the timeout, for which a key may have to wait in an overload.
    """

    def __init__(
        self,
        fetch: Callable[[Source, Sequence[Key]], Awaitable[Sequence[Answer | Alone]]],
        *,
        max_batch: int,
        crowd: int = CROWD,
        apart: float = 0.0,
        patience: float = PATIENCE,
    ) -> None:
        self.fetch = fetch
        self.patience = patience
        self.max_batch = max_batch
        self.crowd = crowd
        self.apart = apart
        self.apart_until: float = 0.0  # the loop's time
        self.waiting: deque[Waiter[Key]] = deque()
        self.room: float = UNKNOWN * max_batch  # so many keys may wait
        self.taken = self.batches = 0  # keys, and batches of them, since the measurement began
        self.measured_from: float = 0.0  # by the clock of Batching, as is the next
        self.measured_at: float = 0.0

    def keep_apart(self) -> None:
        """Let keys go alone for a while, because one was too slow."""
        self.apart_until = asyncio.get_running_loop().time() + self.apart


class Waiter(Generic[Key]):
    """A lookup under way: its key, its deadline (the loop's time), the callback for its answer."""

    __slots__ = ("callback", "deadline", "key", "largest_batch", "retried")

    def __init__(self, key: Key, deadline: float, callback: Callback, largest_batch: int) -> None:
        self.key: Key = key
        self.deadline: float = deadline
        self.callback: Callback | None = callback  # None once it has its answer
        self.largest_batch: int = largest_batch  # that it may be in
        self.retried: bool = False  # whether its batch has been asked once more as it was


class Batch(Generic[Key, Source]):
    """Lookups that are answered together, by the source that took them.

    It ends with one call of `answer`, `fail`, `retry` or `retry_once`.
    """

    __slots__ = ("_batching", "keys", "line", "waiters")

    def __init__(
        self,
        batching: Batching[Source],
        line: Line[Key, Source],
        waiters: Sequence[Waiter[Key]],
    ) -> None:
        self._batching = batching
        self.line: Line[Key, Source] = line
        self.waiters: Sequence[Waiter[Key]] = waiters
        self.keys: list[Key] = [waiter.key for waiter in waiters]  # in order of arrival

    @property
    def retried(self) -> bool:
        """Whether some of its lookups have been asked once more already."""
        return any(waiter.retried for waiter in self.waiters)

    def answer(self, answers: Sequence[Answer | Alone]) -> None:
        """Give each lookup its answer; those that want to be alone wait again."""
        alone = []
        for waiter, answer in zip(self.waiters, answers, strict=True):
            if isinstance(answer, Alone):
                waiter.largest_batch = 1
                alone.append(waiter)
            else:
                self._batching.answer(waiter, answer)
        self._batching.end(self, alone)
        self._batching.tick()

    def fail(self, error: ResponderError) -> None:
        """Give all its lookups the same error."""
        self.answer([error] * len(self.waiters))

    def retry(self, *, largest_batch: int) -> None:
        """Let its lookups wait again, ahead of the others, in batches of at most that size."""
        for waiter in self.waiters:
            waiter.largest_batch = min(waiter.largest_batch, max(largest_batch, 1))
        self._batching.end(self, self.waiters)

    def retry_once(self) -> None:
        """Let its lookups wait again as they are; those that it happens to twice, alone."""
        largest_batch = 1 if self.retried else len(self.waiters)
        for waiter in self.waiters:
            waiter.retried = True
        self.retry(largest_batch=largest_batch)


Take: TypeAlias = Callable[[Batch[Any, Source]], None]  # must not raise


class Batching(Generic[Source]):
    """The lookups waiting to be answered and those being answered, in every line.

    Args:
        max_pending: how many may wait or be under way in all lines together; more are refused,
            whatever they wait for.
        timeout: seconds that a lookup has, usually.
        late: makes the error for a lookup whose deadline has passed.
        afterwards: ends reads.

    Attributes:
        pending: how many wait or are under way.
        sparing: whether what is loaded now may find a longer line, because its sender sends little.
    """

    def __init__(
        self,
        *,
        max_pending: int,
        timeout: float,
        late: Callable[[], ResponderError],
        afterwards: Afterwards | None = None,
    ) -> None:
        self.pending: int = 0
        self.sparing = False
        self._now = asyncio.get_running_loop().time
        self._afterwards = afterwards or Afterwards()
        self._timeout = timeout
        self._leniency = 0.0  # seconds for which keys may wait for longer now
        self._max_pending = max_pending
        self._late = late
        self._lines: list[Line[Any, Source]] = []
        self._turns: deque[Line[Any, Source]] = deque()  # the lines in which keys wait
        self._under_way: set[Batch[Any, Source]] = set()
        self._free: list[Take[Source]] = []  # of each source that waits for a batch
        self._serving = False  # now, or at the end of the read
        self._drained: list[asyncio.Future[None]] = []  # of each that waits until all is answered
        self._alarm = Alarm(self._waiters, lambda waiter: self.answer(waiter, late()))
        self._clock = 0.0  # seconds, of those in which batches are answered
        self._ticked = 0.0  # the loop's time
        self._pause, self._resumed = 0.0, 0.0  # how long the last pause was; the clock at its end

    def add(self, line: Line[Any, Source]) -> None:
        """Serve this line too."""
        self._lines.append(line)

    def load(
        self,
        line: Line[Key, Source],
        key: Key,
        *,
        deadline: float,
        callback: Callback,
        urgent: bool = False,
    ) -> None:
        """Let a key wait in a line for its answer.

        Args:
            line: one that has been added.
            key: what its `fetch` takes.
            deadline: the loop's time until which the answer is wanted.
            callback: called once, with the answer, soon after `deadline` at the latest. It must not
                raise: other lookups are answered in the same turn.
            urgent: whether the key may wait however many do.

        Raises RefusedError if too much is waiting already.
        """
        full = self.pending >= self._max_pending or len(line.waiting) >= line.room
        if full and not urgent and not self._has_room(line):
            raise RefusedError(TOO_MANY)
        if self.pending == 0:
            self._ticked = self._now()
        self.pending += 1
        if not line.waiting:
            self._turns.append(line)
            line.taken, line.batches, line.measured_from = 0, 0, self._clock
        line.waiting.append(Waiter(key, deadline, callback, line.max_batch))
        if deadline < self._alarm.at:
            self._alarm.set(deadline)
        if self._free and not self._serving:
            self._serving = True
            self._afterwards.call(self._serve)

    def _has_room(self, line: Line[Any, Source]) -> bool:
        """Tell whether a full line has room for one who is spared."""
        spared = self.sparing and self.pending < self._max_pending
        return spared and len(line.waiting) < SPARING * line.room

    def offer(self, take: Take[Source]) -> None:
        """Let a source take a batch, once: now if keys wait, else as soon as they do."""
        self._free.append(take)
        if self._turns and not self._serving:
            self._serve()

    def withdraw(self, take: Take[Source]) -> None:
        """Let a source take no batch, if it has not taken one."""
        if take in self._free:
            self._free.remove(take)

    def _serve(self) -> None:
        # The last to become free takes all there is first: its connection is the warmest.
        self._serving = True  # a source may be free again at once
        while self._turns and self._free:
            line = self._turns.popleft()
            waiters = self._head(line)
            if line.waiting:
                self._turns.append(line)
            if waiters:
                self._under_way.add(batch := Batch(self, line, waiters))
                self._free.pop()(batch)
        self._serving = False

    async def drained(self) -> None:
        """Wait until every lookup has its answer."""
        if self.pending:
            drained = asyncio.get_running_loop().create_future()
            self._drained.append(drained)
            await drained

    def fail(self, error: ResponderError) -> None:
        """Give this error to every lookup that waits or is being answered."""
        for waiter in self._waiters():
            self.answer(waiter, error)

    def answer(self, waiter: Waiter[Any], answer: Answer) -> None:
        """Give a lookup its answer, if it has none yet."""
        callback, waiter.callback = waiter.callback, None
        if callback is None:
            return
        self.pending -= 1
        while self._drained and not self.pending:
            drained = self._drained.pop()
            if not drained.done():
                drained.set_result(None)
        callback(answer)

    def tick(self) -> None:
        """Let the clock run on: a batch was answered."""
        now = self._now()
        passed = now - self._ticked
        self._ticked = now
        self._clock += passed if passed <= PAUSE else 0.0
        left = max(self._pause - (self._clock - self._resumed) / FORGETTING, 0.0)
        if passed > max(PAUSE, left):
            left = self._pause = min(passed, LENIENCE * self._timeout)
            self._resumed = self._clock
        self._leniency = left

    def end(self, batch: Batch[Any, Source], again: Sequence[Waiter[Any]]) -> None:
        """Forget a batch; some of its lookups may have to wait again."""
        self._under_way.discard(batch)
        if again:
            if not batch.line.waiting:
                self._turns.appendleft(batch.line)
            batch.line.waiting.extendleft(reversed(again))
            if not self._serving:
                self._serving = True
                self._afterwards.call(self._serve)

    def _head(self, line: Line[Key, Source]) -> list[Waiter[Key]]:
        """Take those that may go together; drop those that have their answer or are too late."""
        now = self._now()
        head: list[Waiter[Key]] = []
        waiting, free = line.waiting, len(self._free)
        most = 1 if now < line.apart_until else max(ceil(len(waiting) / free), line.crowd)
        while waiting and len(head) < (most := min(most, waiting[0].largest_batch)):
            waiter = waiting.popleft()
            if waiter.deadline <= now:
                self.answer(waiter, self._late())
            elif waiter.callback is not None:
                head.append(waiter)
        self._measure(line, len(head))
        return head

    def _measure(self, line: Line[Any, Source], taken: int) -> None:
        """Find out how many keys of a line are taken in a second, while some are left."""
        if not line.waiting:
            if self._clock - line.measured_at > FORGOTTEN:
                line.room = UNKNOWN * line.max_batch
            return
        line.taken, line.batches = line.taken + taken, line.batches + 1
        passed = self._clock - line.measured_from
        if passed >= MEASURED and line.batches >= SEVERAL:
            patience = line.patience * self._timeout + self._leniency
            rate = line.taken / passed
            room = max(patience * rate, min(FEW, self._timeout / 2 * rate), CROWD)
            known = line.room < UNKNOWN * line.max_batch
            line.room = line.room + (room - line.room) / STEADY if known else room
            line.taken, line.batches, line.measured_from = 0, 0, self._clock
            line.measured_at = self._clock

    def _waiters(self) -> list[Waiter[Any]]:
        lines, batches = self._lines, self._under_way
        groups = chain((each.waiting for each in lines), (each.waiters for each in batches))
        return [waiter for group in groups for waiter in group if waiter.callback is not None]
