"""Many concurrent lookups become few queries."""

# Strategy: whoever can answer (a free database connection) takes all that is waiting, as one batch;
# while nobody is free, lookups pile up. No timer and nothing to tune: an idle system answers at
# once, and a busy one batches by itself. Waking a process costs far more than a lookup, so fewer and
# fuller wake-ups win on every side. Only where several can answer is a crowd taken in shares: one batch
# of all would have worker and database wait for each other in turn. Kinds of lookups take turns.
#
# What shares a batch was already waiting when the batch was taken. That is what makes a shared
# answer as fresh as one's own: the snapshot is taken after every one of these requests arrived.
#
# Nobody waits for anybody else: each lookup has its own deadline and its own way to be told, a batch
# that fails is put back in smaller parts until the one that spoils it is alone, and a lookup that
# has had its answer (its deadline, say) ignores any later one.
#
# What a lookup asks and how a batch is answered is not known here. Nothing here does I/O.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from math import ceil
from typing import Any, Final, Generic, TypeAlias, TypeVar

from responder.errors import ResponderError, UnavailableError

Key = TypeVar("Key")
Source = TypeVar("Source")
Answer: TypeAlias = bytes | ResponderError
Done: TypeAlias = Callable[[Answer], None]


CROWD: Final = 32  # lookups that are no crowd yet
NEVER: Final = float("inf")
TICK: Final = 0.01  # seconds that an answer may be later than its deadline


class Alone:
    """In place of an answer: this key wants a batch of its own."""


ALONE: Final = Alone()


class Lookup(Generic[Key, Source]):
    """A kind of question: its waiting keys, and how a batch of them is answered.

    `fetch(source, keys)` returns an answer for each key, in order; in place of one it may say ALONE
    to be asked again with that key only, which it must not say of a lone key.

    Args:
        max_batch: how many keys may go together.
        crowd: so many keys or fewer are not shared among those who can answer.
        apart: seconds for which keys go alone after one of them was too slow; for those that can be.
    """

    def __init__(
        self,
        fetch: Callable[[Source, Sequence[Key]], Awaitable[Sequence[Answer | Alone]]],
        *,
        max_batch: int,
        crowd: int = CROWD,
        apart: float = 0.0,
    ) -> None:
        self.fetch = fetch
        self.max_batch = max_batch
        self.crowd = crowd
        self.apart = apart
        self.apart_until = 0.0  # the loop's time
        self.waiting: deque[Waiter[Key]] = deque()

    def keep_apart(self) -> None:
        """Let keys go alone for a while: one was too slow."""
        self.apart_until = asyncio.get_running_loop().time() + self.apart


class Waiter(Generic[Key]):
    """One lookup under way: its key, its deadline (the loop's time), and who wants the answer."""

    __slots__ = ("again", "deadline", "done", "key", "together")

    def __init__(self, key: Key, deadline: float, done: Done, together: int) -> None:
        self.key = key
        self.deadline = deadline
        self.done: Done | None = done  # None once it has its answer
        self.together = together  # the largest batch it may be in
        self.again = False  # whether it has been asked once more as it was


class Batch(Generic[Key, Source]):
    """Lookups that are answered together, by whoever took them."""

    __slots__ = ("_batching", "lookup", "waiters")

    def __init__(
        self,
        batching: Batching[Source],
        lookup: Lookup[Key, Source],
        waiters: Sequence[Waiter[Key]],
    ) -> None:
        self._batching = batching
        self.lookup = lookup
        self.waiters = waiters

    @property
    def keys(self) -> list[Key]:
        """The keys, in order of arrival."""
        return [waiter.key for waiter in self.waiters]

    def settle(self, answers: Sequence[Answer | Alone]) -> None:
        """Give each its answer."""
        alone = []
        for waiter, answer in zip(self.waiters, answers, strict=True):
            if isinstance(answer, Alone):
                waiter.together = 1
                alone.append(waiter)
            else:
                self._batching.settle(waiter, answer)
        self._batching.end(self, alone)

    def fail(self, error: ResponderError) -> None:
        """Give everyone the same error."""
        self.settle([error] * len(self.waiters))

    @property
    def again(self) -> bool:
        """Whether some have been asked once more already."""
        return any(waiter.again for waiter in self.waiters)

    def put_back_once(self) -> None:
        """Let everyone wait again as they are; whoever that happens to twice, alone."""
        together = 1 if self.again else len(self.waiters)
        for waiter in self.waiters:
            waiter.again = True
        self.put_back(together=together)

    def put_back(self, *, together: int) -> None:
        """Let everyone wait again, ahead of the rest, in batches of at most `together`."""
        for waiter in self.waiters:
            waiter.together = min(waiter.together, max(together, 1))
        self._batching.end(self, self.waiters)


class Batching(Generic[Source]):
    """The lookups waiting to be answered and those being answered, of every kind.

    Args:
        max_pending: how many may wait or be under way; more are refused, because a queue that
            outlasts its callers' patience answers nobody.
        late: makes the error for a lookup whose deadline has passed.
    """

    def __init__(self, *, max_pending: int, late: Callable[[], ResponderError]) -> None:
        self.pending = 0
        self._max_pending = max_pending
        self._late = late
        self._turns: deque[Lookup[Any, Source]] = deque()  # those that have somebody waiting
        self._lookups: list[Lookup[Any, Source]] = []
        self._under_way: set[Batch[Any, Source]] = set()
        self._free: list[asyncio.Future[None]] = []
        self._waking = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = NEVER

    def add(self, lookup: Lookup[Any, Source]) -> None:
        """Serve this kind of lookup too."""
        self._lookups.append(lookup)

    def load(
        self,
        lookup: Lookup[Key, Source],
        key: Key,
        *,
        deadline: float,
        done: Done,
        urgent: bool = False,
    ) -> None:
        """Ask for a key; `done` is called once, with the answer, soon after `deadline` at the latest.

        It must not raise: others are told in the same breath.

        Raises UnavailableError if too much is waiting already, unless it is urgent.
        """
        if self.pending >= self._max_pending and not urgent:
            raise UnavailableError("too many requests are waiting")
        if self.pending == 0:
            self._idle.clear()
        self.pending += 1
        if not lookup.waiting:
            self._turns.append(lookup)
        lookup.waiting.append(Waiter(key, deadline, done, lookup.max_batch))
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        if not self._waking:
            self._wake()

    async def take(self) -> Batch[Any, Source]:
        """Wait until something is waiting, and take all of one kind that may go together."""
        while True:
            while self._turns:
                lookup = self._turns.popleft()
                waiters = self._head(lookup)
                if lookup.waiting:
                    self._turns.append(lookup)
                if waiters:
                    batch = Batch(self, lookup, waiters)
                    self._under_way.add(batch)
                    if self._turns:
                        self._wake()
                    return batch
            free = asyncio.get_running_loop().create_future()
            self._free.append(free)
            try:
                await free
            except asyncio.CancelledError:
                if free in self._free:
                    self._free.remove(free)
                self._wake()
                raise
            self._waking = False

    async def drained(self) -> None:
        """Wait until everyone has an answer."""
        await self._idle.wait()

    def fail(self, error: ResponderError) -> None:
        """Give everyone who waits or is being answered this error."""
        for waiter in self._waiters():
            self.settle(waiter, error)

    def settle(self, waiter: Waiter[Any], answer: Answer) -> None:
        """Give one its answer, if it has none yet."""
        done, waiter.done = waiter.done, None
        if done is None:
            return
        self.pending -= 1
        if self.pending == 0:
            self._idle.set()
        done(answer)

    def end(self, batch: Batch[Any, Source], again: Sequence[Waiter[Any]]) -> None:
        """Forget a batch; some of those in it may have to wait again."""
        self._under_way.discard(batch)
        if again:
            if not batch.lookup.waiting:
                self._turns.appendleft(batch.lookup)
            batch.lookup.waiting.extendleft(reversed(again))
            self._wake()

    def _head(self, lookup: Lookup[Key, Source]) -> list[Waiter[Key]]:
        """Take those that may go together; drop those that have their answer or are too late."""
        now = asyncio.get_running_loop().time()
        head: list[Waiter[Key]] = []
        waiting = lookup.waiting
        share = ceil(len(waiting) / (1 + len(self._free)))
        most = 1 if now < lookup.apart_until else max(share, lookup.crowd)
        while waiting and len(head) < (most := min(most, waiting[0].together)):
            waiter = waiting.popleft()
            if waiter.deadline <= now:
                self.settle(waiter, self._late())
            elif waiter.done is not None:
                head.append(waiter)
        return head

    def _wake(self) -> None:
        # One is woken at a time, and takes all there is before the next is. The last to become free
        # comes first: its connection is the warmest.
        self._waking = False
        while self._free and not self._waking:
            free = self._free.pop()
            if not free.done():
                free.set_result(None)
                self._waking = True

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._alarm, self._alarm_at = None, NEVER
        now = asyncio.get_running_loop().time()
        for waiter in self._waiters():
            if waiter.deadline <= now:
                self.settle(waiter, self._late())
        if left := [waiter.deadline for waiter in self._waiters()]:
            # Not at each deadline: in an overload each waiter has its own.
            self._set_alarm(max(min(left), now + TICK))

    def _waiters(self) -> list[Waiter[Any]]:
        groups = chain(
            (lookup.waiting for lookup in self._lookups),
            (batch.waiters for batch in self._under_way),
        )
        return [waiter for group in groups for waiter in group if waiter.done is not None]
