"""Batching: who shares a query with whom, and who never suffers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.batching import (
    Again,
    Answer,
    Batch,
    Batching,
    Line,
    Waiter,
)
from responder.errors import InternalError, RequestTimeoutError, UnavailableError
from responder.room import FEW, LATELY, MEASURED, PATIENCE, SEVERAL, Clock, Room

SOON = 10.0

How: TypeAlias = Callable[[Sequence[Any]], Awaitable[Sequence[Answer | Again[Any]]]]


class Table:
    """Answers keys with themselves, and remembers the batches it was asked for."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def fetch(self, keys: Sequence[str]) -> Sequence[Answer | Again[str]]:
        self.batches.append(list(keys))
        return [key.encode() for key in keys]


async def taken(batching: Batching[How]) -> Batch[Any, How]:
    """Return a batch, once keys wait."""
    batch: asyncio.Future[Batch[Any, How]] = asyncio.get_running_loop().create_future()
    batching.offer(batch.set_result)
    try:
        return await batch
    finally:
        batching.withdraw(batch.set_result)


class Bench:
    """A batching with one kind of lookup, and whoever answers started by hand."""

    def __init__(self, table: Any = None, *, max_batch: int = 100, max_pending: int = 1000) -> None:
        self.table = table or Table()
        self.batching = Batching[How](
            max_pending=max_pending, timeout=SOON, late=RequestTimeoutError
        )
        self.line = Line[str, How](self.table.fetch, max_batch=max_batch)
        self.batching.add(self.line)

    def load(self, key: str, *, within: float = SOON) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self.batching.load(
            self.line, key, deadline=loop.time() + within, callback=answer.set_result
        )
        return answer

    def beside(self, key: str) -> Table:
        """Add another kind of lookup, in which a key waits."""
        other = Table()
        lookup = Line[str, How](other.fetch, max_batch=10)
        self.batching.add(lookup)
        loop = asyncio.get_running_loop()
        done = loop.create_future().set_result
        self.batching.load(lookup, key, deadline=loop.time() + SOON, callback=done)
        return other

    async def take(self) -> Batch[Any, How]:
        """Take a batch, as a source does that is free."""
        return await taken(self.batching)

    async def answer_one(self) -> None:
        batch = await self.take()
        batch.answer(await batch.line.how(batch.keys))


async def test_all_that_waits_is_taken_at_once():
    """Keys that wait when someone becomes free go together, in order of arrival."""
    bench = Bench()
    answers = [bench.load(key) for key in "abc"]

    await bench.answer_one()

    assert [["a", "b", "c"]] == bench.table.batches
    assert [b"a", b"b", b"c"] == await asyncio.gather(*answers)


async def test_a_lone_key_is_taken_at_once_by_whoever_is_free():
    """A key that arrives while someone is free waits for nobody else."""
    bench = Bench()
    free = asyncio.create_task(bench.answer_one())
    await asyncio.sleep(0)

    assert b"a" == await bench.load("a")

    await free


async def test_what_arrives_while_a_query_is_out_does_not_share_it():
    """A batch that was taken is closed: later keys go with the next, and see a later snapshot."""
    bench = Bench()
    bench.load("early")
    batch = await bench.take()
    late = bench.load("late")

    batch.answer(await batch.line.how(batch.keys))

    assert not late.done()
    assert [["early"]] == bench.table.batches


async def test_no_more_go_together_than_allowed():
    """A batch holds at most max_batch keys; the rest is left for the next."""
    bench = Bench(max_batch=2)
    answers = [bench.load(key) for key in "abc"]

    await bench.answer_one()
    await bench.answer_one()

    assert [["a", "b"], ["c"]] == bench.table.batches
    assert all(answer.done() for answer in answers)


async def test_one_arrival_wakes_one_and_a_crowd_wakes_as_many_as_it_needs():
    """Those who are free are woken one by one, as long as something is left to take."""
    bench = Bench(max_batch=1)
    free = [asyncio.create_task(bench.answer_one()) for _ in range(3)]
    await asyncio.sleep(0)

    answers = [bench.load(key) for key in "ab"]
    await asyncio.gather(*answers)

    assert 1 == sum(not task.done() for task in free)
    for task in free:
        task.cancel()
    await asyncio.gather(*free, return_exceptions=True)


async def test_a_source_that_is_gone_takes_nothing():
    """What waits is left to another that is free, even if it came before the source was gone."""
    bench = Bench()
    gone: list[Batch[Any, How]] = []
    take = gone.append
    other = asyncio.create_task(bench.answer_one())
    await asyncio.sleep(0)
    bench.batching.offer(take)
    answer = bench.load("a")

    bench.batching.withdraw(take)

    assert b"a" == await answer
    assert not gone
    await other


async def test_what_is_answered_at_once_is_answered_by_as_few_as_there_are():
    """A source that is free again within its call takes the next batch, without end."""
    bench = Bench(max_batch=1, max_pending=5000)
    bench.line.room.keys = 5000

    def take(batch: Batch[Any, How]) -> None:
        batch.fail(UnavailableError("at once"))
        bench.batching.offer(take)

    answers = [bench.load(str(number)) for number in range(3000)]

    bench.batching.offer(take)

    assert all(answer.done() for answer in answers)


async def test_a_failing_batch_is_narrowed_down_to_the_key_that_fails():
    """Put back in halves, everyone gets an answer but the one key that spoils its batch."""
    bench = Bench()
    answers = {key: bench.load(key) for key in "abcdefgh"}

    while bench.batching.pending:
        batch = await bench.take()
        if "d" in batch.keys and len(batch.keys) > 1:
            batch.retry(largest_batch=len(batch.keys) // 2)
        elif "d" in batch.keys:
            batch.fail(InternalError())
        else:
            batch.answer(await batch.line.how(batch.keys))

    failed = answers.pop("d")
    assert isinstance(failed.result(), InternalError)
    assert {key.encode() for key in answers} == {answer.result() for answer in answers.values()}


async def test_a_key_that_wants_to_be_alone_is_asked_again_alone():
    """Again in place of an answer brings the key back in a batch of its own."""

    class Shy(Table):
        async def fetch(self, keys: Sequence[str]) -> Sequence[Answer | Again[str]]:
            answers = await super().fetch(keys)
            return [
                Again(key) if key == "b" and len(keys) > 1 else answer
                for key, answer in zip(keys, answers, strict=True)
            ]

    bench = Bench(Shy())
    answers = [bench.load(key) for key in "abc"]

    await bench.answer_one()
    await bench.answer_one()

    assert [["a", "b", "c"], ["b"]] == bench.table.batches
    assert [b"a", b"b", b"c"] == await asyncio.gather(*answers)


async def test_a_key_may_be_asked_again_as_another():
    """As a page is, that has to be shorter: even of a lone one another key may be the answer to."""

    class Shorter(Table):
        async def fetch(self, keys: Sequence[str]) -> Sequence[Answer | Again[str]]:
            answers = await super().fetch(keys)
            return [
                Again("b") if key == "a" else answer
                for key, answer in zip(keys, answers, strict=True)
            ]

    bench = Bench(Shorter())
    answer = bench.load("a")

    await bench.answer_one()
    await bench.answer_one()

    assert [["a"], ["b"]] == bench.table.batches
    assert b"b" == await answer


async def test_a_deadline_passes_for_one_and_not_for_its_neighbours():
    """Whoever runs out of time is told so, while the rest of the batch goes on waiting."""
    bench = Bench()
    hurried, patient = bench.load("hurried", within=0.01), bench.load("patient")
    batch = await bench.take()

    late = await hurried

    assert isinstance(late, RequestTimeoutError)
    assert not patient.done()
    batch.answer([b"too late", b"in time"])
    assert b"in time" == await patient


async def test_what_is_late_before_it_is_asked_is_never_asked():
    """A key whose deadline passed while it waited touches no database."""
    bench = Bench()
    late, patient = bench.load("late", within=0.0), bench.load("patient")

    await bench.answer_one()

    assert isinstance(await late, RequestTimeoutError)
    assert [["patient"]] == bench.table.batches
    assert b"patient" == await patient


async def test_too_much_waiting_is_refused():
    """Beyond max_pending a key is refused at once, and room comes back with each answer."""
    bench = Bench(max_pending=1)
    first = bench.load("a")

    with pytest.raises(UnavailableError, match="waiting"):
        bench.load("b")

    await bench.answer_one()
    assert b"a" == await first
    second = bench.load("b")
    await bench.answer_one()
    assert b"b" == await second


class SlowTable(Table):
    async def fetch(self, keys: Sequence[str]) -> Sequence[Answer | Again[str]]:
        await asyncio.sleep(0.004)  # what a query takes where PostgreSQL is slow
        return await super().fetch(keys)


async def test_a_burst_that_can_be_answered_in_time_is_no_overload():
    """Where answers are known to be slow, some hundreds may still wait for theirs."""
    bench = Bench(SlowTable(), max_batch=1)

    async def answer() -> None:
        while True:
            await bench.answer_one()

    source = asyncio.create_task(answer())
    try:
        await asyncio.gather(*(bench.load(f"first {n}") for n in range(40)))
        burst = [bench.load(f"{n}") for n in range(200)]
        answers = await asyncio.gather(*burst)
    finally:
        source.cancel()

    assert [b"%d" % n for n in range(200)] == answers


async def test_few_batches_say_nothing_of_what_is_answered():
    """On a machine that is busy a moment may pass for each: hundreds may wait all the same."""
    bench = Bench(max_batch=8)
    for key in range(300):
        bench.load(f"{key}")

    for _ in range(SEVERAL - 1):
        bench.batching.clock.seconds += MEASURED
        await bench.answer_one()

    assert [bench.load(f"more {key}") for key in range(300)]


async def test_a_moment_in_which_little_is_answered_takes_little_room():
    """How many may wait changes step by step, because what is answered in a moment differs."""
    clock, room = Clock(asyncio.get_running_loop().time, SOON), Room(256, PATIENCE)
    rooms = []
    for taken in (1000, 16):
        clock.seconds += MEASURED
        for _ in range(SEVERAL):
            room.measure(taken // SEVERAL, clock)
        rooms.append(room.keys)

    assert PATIENCE * SOON * 1000 / MEASURED == pytest.approx(rooms[0])
    assert rooms[0] * 3 / 4 <= rooms[1] < rooms[0]


class Overload:
    """A line of which 200 keys are answered in a second, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(lambda: self.now, SOON)
        self.room = Room(256, PATIENCE)

    def go_on(self, *, refusing: bool) -> float:
        """Answer keys for ten seconds; return how many may wait then."""
        self.room.begin(self.clock)
        for _ in range(200):
            if refusing:
                self.room.refused_at = self.now
            self.now += 10 / 200
            self.clock.tick()
            self.room.measure(10, self.clock)
        return self.room.keys


async def test_a_few_may_wait_for_longer_until_keys_are_refused():
    """Once more come than are answered, none waits for longer than the patience of its line."""
    line = Overload()

    assert FEW == line.go_on(refusing=False)
    assert PATIENCE * SOON * 200 == pytest.approx(line.go_on(refusing=True), rel=0.1)
    line.now += 2 * LATELY
    assert FEW == pytest.approx(line.go_on(refusing=False), rel=0.1)


async def test_of_a_crowd_that_comes_after_an_overload_a_few_may_wait_at_once():
    """An overload that has been over for a while shortens no line, if nothing has come since."""
    line = Overload()
    overloaded = line.go_on(refusing=True)

    line.room.begin(line.clock)
    assert overloaded == line.room.keys

    line.now += 2 * LATELY
    line.room.begin(line.clock)
    assert FEW == line.room.keys


async def test_draining_waits_for_what_is_being_answered():
    """drained() returns once everyone has an answer, not before."""
    bench = Bench()
    bench.load("a")
    batch = await bench.take()
    drained = asyncio.create_task(bench.batching.drained())
    await asyncio.sleep(0)
    before = drained.done()

    batch.answer([b"a"])
    await drained

    assert not before
    assert 0 == bench.batching.pending


async def test_failing_everyone_reaches_the_waiting_and_those_under_way():
    """fail() gives an answer to each, whether taken or still waiting."""
    bench = Bench(max_batch=1)
    taken, waiting = bench.load("taken"), bench.load("waiting")
    await bench.take()

    bench.batching.fail(UnavailableError("over"))

    assert isinstance(taken.result(), UnavailableError)
    assert isinstance(waiting.result(), UnavailableError)
    assert 0 == bench.batching.pending


async def test_the_kind_that_has_waited_longest_goes_first():
    """Kinds of lookups take turns by the arrival of their oldest key."""
    bench = Bench()
    other = bench.beside("first")
    bench.load("second")

    await bench.answer_one()

    assert [["first"]] == other.batches
    assert [] == bench.table.batches
    await bench.answer_one()


async def test_a_crowd_of_one_kind_keeps_no_other_waiting():
    """However many of one kind wait, the next batch after theirs is of the other."""
    bench = Bench()
    crowd = [bench.load(str(number)) for number in range(35)]
    other = bench.beside("other")

    await bench.answer_one()
    await bench.answer_one()

    assert [["other"]] == other.batches
    while bench.batching.pending:
        await bench.answer_one()
    assert 35 == len(await asyncio.gather(*crowd))


@pytest.mark.parametrize(("free", "sizes"), [(1, [100]), (2, [50, 50]), (3, [34, 33, 33])])
async def test_a_crowd_is_shared_among_those_who_are_free(free, sizes):
    """However many are free, each takes its share of a crowd."""
    batching = Batching[How](max_pending=1000, timeout=SOON, late=RequestTimeoutError)
    lookup = Line[int, How](never, max_batch=256)
    batching.add(lookup)
    taking = [asyncio.create_task(taken(batching)) for _ in range(free)]
    await asyncio.sleep(0)
    for key in range(100):
        batching.load(lookup, key, deadline=inf, callback=lambda _: None)

    batches = [await batch for batch in taking]

    assert sizes == sorted((len(batch.keys) for batch in batches), reverse=True)
    assert set(range(100)) == {key for batch in batches for key in batch.keys}


@pytest.mark.parametrize(("apart", "sizes"), [(60.0, [1, 1, 1, 1]), (0.0, [1, 1, 1, 2])])
async def test_after_one_was_too_slow_those_like_it_go_alone(apart, sizes):
    """Not only those who were with it: nobody else shall wait for the next of its kind."""
    bench = Bench()
    bench.line.apart = apart
    for key in "abc":
        bench.load(key)
    batch = await bench.take()
    bench.line.keep_apart()
    batch.retry(largest_batch=1)
    for key in "de":
        bench.load(key)

    assert sizes == [len((await bench.take()).keys) for _ in range(4)]


async def never(*_):
    """Fetches nothing."""
    raise AssertionError


async def test_deadlines_are_looked_for_together(monkeypatch):
    """However many deadlines there are, they cost one look at the queue for each tick."""
    bench = Bench(max_pending=1000)
    looks = []
    waiters = bench.batching._waiters

    def look() -> list[Waiter[Any]]:
        looks.append(1)
        return waiters()

    monkeypatch.setattr(bench.batching, "_waiters", look)

    answers = [bench.load("late", within=number / 5000) for number in range(1000)]
    await asyncio.gather(*answers)

    assert len(looks) < 100


async def test_what_is_lost_twice_is_asked_alone():
    """Keys whose source was lost go together once more; after that, each of them goes alone."""
    bench = Bench()
    for key in "abc":
        bench.load(key)

    sizes = []
    for _ in range(3):
        batch = await bench.take()
        sizes.append(len(batch.keys))
        batch.retry_once()

    assert [3, 3, 1] == sizes


class Play:
    """A batching whose every move is made by hand."""

    def __init__(self) -> None:
        self.bench = Bench(max_batch=3)
        self.answers: list[list[Answer]] = []
        self.taken: list[Any] = []

    async def load(self, *, within: float = SOON) -> None:
        got: list[Answer] = []
        self.answers.append(got)
        deadline = asyncio.get_running_loop().time() + within
        self.bench.batching.load(self.bench.line, "key", deadline=deadline, callback=got.append)

    async def load_hurried(self) -> None:
        await self.load(within=0)

    async def take(self) -> None:
        taking = asyncio.ensure_future(self.bench.take())
        await asyncio.sleep(0)
        if taking.done():
            self.taken.append(taking.result())
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    async def settle(self) -> None:
        if self.taken:
            batch = self.taken.pop()
            batch.answer([b""] * len(batch.keys))

    async def fail(self) -> None:
        if self.taken:
            self.taken.pop().fail(InternalError())

    async def put_back(self) -> None:
        if self.taken:
            batch = self.taken.pop()
            batch.retry(largest_batch=len(batch.keys) // 2)

    async def ask_alone(self) -> None:
        if self.taken:
            batch = self.taken.pop()
            batch.answer([Again(key) if len(batch.keys) > 1 else b"" for key in batch.keys])


MOVES = [Play.load, Play.load_hurried, Play.take, Play.settle]
MOVES += [Play.fail, Play.put_back, Play.ask_alone]


@given(moves=st.lists(st.sampled_from(MOVES), max_size=60))
def test_everyone_is_answered_exactly_once(moves):
    """Whatever happens in whatever order, each key gets one answer, and none is left behind."""

    async def run() -> Play:
        play = Play()
        for move in [*moves, *[Play.take, Play.settle] * (2 * len(moves))]:
            await move(play)
        return play

    play = asyncio.run(run())

    assert [1] * len(play.answers) == [len(got) for got in play.answers]
    assert 0 == play.bench.batching.pending
