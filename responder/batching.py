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
# What comes faster than it is answered is refused: a line has no more room than is answered in time
# (see `room`).
#
# What a key means and how a batch is answered is not known here. Nothing here does I/O.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from math import ceil
from typing import Any, Final, Generic, TypeAlias, TypeVar

from responder.afterwards import Afterwards
from responder.alarm import Alarm
from responder.errors import RefusedError, ResponderError
from responder.room import CROWD, PATIENCE, Clock, Room

Key = TypeVar("Key")
How = TypeVar("How")
Answer: TypeAlias = bytes | ResponderError
Callback: TypeAlias = Callable[[Answer], None]

SPARING: Final = 1.5  # times as many may wait, for those who are spared
TOO_MANY: Final = "too many requests are waiting"


class Again(Generic[Key]):
    """In place of an answer: ask for this key, in a batch of its own."""

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        self.key: Key = key


class Line(Generic[Key, How]):
    """A line of keys that wait, and how a batch of them is answered.

    Args:
        how: is for the sources to know.
        max_batch: how many keys may go together.
        crowd: so many keys or fewer are not shared among the sources that are free.
        apart: seconds for which keys go alone after one of them was too slow. Where one page has
            run into its timeout, for example, the next may, and would take others along.
        patience: share of the timeout, for which a key may have to wait in an overload.
    """

    def __init__(
        self,
        how: How,
        *,
        max_batch: int,
        crowd: int = CROWD,
        apart: float = 0.0,
        patience: float = PATIENCE,
    ) -> None:
        self.how: How = how
        self.max_batch = max_batch
        self.crowd = crowd
        self.apart = apart
        self.apart_until: float = 0.0  # the loop's time
        self.waiting: deque[Waiter[Key]] = deque()
        self.room: Room = Room(max_batch, patience)

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


class Batch(Generic[Key, How]):
    """Lookups that are answered together, by the source that took them.

    It ends with one call of `answer`, `fail`, `retry` or `retry_once`.
    """

    __slots__ = ("_batching", "keys", "line", "waiters")

    def __init__(
        self,
        batching: Batching[How],
        line: Line[Key, How],
        waiters: Sequence[Waiter[Key]],
        keys: Sequence[Key],
    ) -> None:
        self._batching = batching
        self.line: Line[Key, How] = line
        self.waiters: Sequence[Waiter[Key]] = waiters
        self.keys: Sequence[Key] = keys  # of each, in order of arrival

    @property
    def retried(self) -> bool:
        """Whether some of its lookups have been asked once more already."""
        return any(waiter.retried for waiter in self.waiters)

    def answer(self, answers: Sequence[Answer | Again[Key]]) -> None:
        """Give each lookup its answer; those that are to be asked again wait again."""
        batching, again = self._batching, []
        for waiter, answer in zip(self.waiters, answers, strict=True):
            if isinstance(answer, Again):
                waiter.key, waiter.largest_batch = answer.key, 1
                again.append(waiter)
            elif (callback := waiter.callback) is not None:
                # As `Batching.answer` does, whose call for each key would show in the benchmark.
                waiter.callback = None
                batching.pending -= 1
                callback(answer)
        if again:
            self.line.room.put_back(len(again))
        batching.end(self, again)
        batching.clock.tick()

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


Take: TypeAlias = Callable[[Batch[Any, How]], None]  # must not raise


class Batching(Generic[How]):
    """The lookups waiting to be answered and those being answered, in every line.

    Args:
        max_pending: how many may wait or be under way in all lines together; more are refused,
            whatever they wait for.
        timeout: seconds that a lookup has, usually.
        late: makes the error for a lookup whose deadline has passed.
        afterwards: ends reads.

    Attributes:
        pending: how many wait or are under way.
        clock: runs while batches are answered.
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
        self.clock: Clock = Clock(self._now, timeout)
        self._afterwards = afterwards or Afterwards()
        self._max_pending = max_pending
        self._late = late
        self._lines: list[Line[Any, How]] = []
        self._turns: deque[Line[Any, How]] = deque()  # the lines in which keys wait
        self._under_way: set[Batch[Any, How]] = set()
        self._free: list[Take[How]] = []  # of each source that waits for a batch
        self._serving = False  # now, or at the end of the read
        self._drained: list[asyncio.Future[None]] = []  # of each that waits until all is answered
        self._alarm = Alarm(self._waiters, lambda waiter: self.answer(waiter, late()))

    def add(self, line: Line[Any, How]) -> None:
        """Serve this line too."""
        self._lines.append(line)

    def load(
        self,
        line: Line[Key, How],
        key: Key,
        *,
        deadline: float,
        callback: Callback,
        urgent: bool = False,
    ) -> None:
        """Let a key wait in a line for its answer.

        Args:
            line: one that has been added.
            key: that is looked up as the line says.
            deadline: the loop's time until which the answer is wanted.
            callback: called once, with the answer, soon after `deadline` at the latest. It must not
                raise: other lookups are answered in the same turn.
            urgent: whether the key may wait however many do.

        Raises RefusedError if too much is waiting already.
        """
        full = self.pending >= self._max_pending or len(line.waiting) >= line.room.keys
        if full and not urgent and not self._has_room(line):
            line.room.refused_at = self._now()
            raise RefusedError(TOO_MANY)
        if self.pending == 0:
            self.clock.start()
        self.pending += 1
        if not line.waiting:
            self._turns.append(line)
            line.room.begin(self.clock)
        line.waiting.append(Waiter(key, deadline, callback, line.max_batch))
        if deadline < self._alarm.at:
            self._alarm.set(deadline)
        if self._free and not self._serving:
            self._serving = True
            self._afterwards.call(self._serve)

    def _has_room(self, line: Line[Any, How]) -> bool:
        """Tell whether a full line has room for one who is spared."""
        spared = self.sparing and self.pending < self._max_pending
        return spared and len(line.waiting) < SPARING * line.room.keys

    def offer(self, take: Take[How]) -> None:
        """Let a source take a batch, once: now if keys wait, else as soon as they do."""
        self._free.append(take)
        if self._turns and not self._serving:
            self._serve()

    def withdraw(self, take: Take[How]) -> None:
        """Let a source take no batch, if it has not taken one."""
        if take in self._free:
            self._free.remove(take)

    def _serve(self) -> None:
        # The last to become free takes all there is first: its connection is the warmest.
        self._serving = True  # a source may be free again at once
        try:
            while self._turns and self._free:
                line = self._turns.popleft()
                batch = self._head(line)
                if line.waiting:
                    self._turns.append(line)
                if batch.keys:
                    self._under_way.add(batch)
                    self._free.pop()(batch)
        finally:
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
        callback(answer)
        if self._drained and not self.pending:
            self._tell_drained()

    def end(self, batch: Batch[Any, How], again: Sequence[Waiter[Any]]) -> None:
        """Forget a batch; some of its lookups may have to wait again."""
        self._under_way.discard(batch)
        if self._drained and not self.pending:
            self._tell_drained()
        if again:
            if not batch.line.waiting:
                self._turns.appendleft(batch.line)
            batch.line.waiting.extendleft(reversed(again))
            if not self._serving:
                self._serving = True
                self._afterwards.call(self._serve)

    def _tell_drained(self) -> None:
        for drained in self._drained:
            if not drained.done():
                drained.set_result(None)
        self._drained.clear()

    def _head(self, line: Line[Key, How]) -> Batch[Key, How]:
        """Take those that may go together; drop those that have their answer or are too late."""
        now = self._now()
        head: list[Waiter[Key]] = []
        keys: list[Key] = []
        waiting, most = line.waiting, line.crowd
        if now < line.apart_until:
            most = 1
        elif len(waiting) > most:
            most = max(ceil(len(waiting) / len(self._free)), most)
        while waiting and len(head) < (most := min(most, waiting[0].largest_batch)):
            waiter = waiting.popleft()
            if waiter.deadline <= now:
                self.answer(waiter, self._late())
            elif waiter.callback is not None:
                head.append(waiter)
                keys.append(waiter.key)
        if waiting:
            line.room.measure(len(head), self.clock)
        return Batch(self, line, head, keys)

    def _waiters(self) -> list[Waiter[Any]]:
        lines, batches = self._lines, self._under_way
        groups = chain((each.waiting for each in lines), (each.waiters for each in batches))
        return [waiter for group in groups for waiter in group if waiter.callback is not None]
