"""Errands: coroutines that go on without a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from responder.errands import Errand, Prompt
from responder.errors import InternalError


async def test_an_errand_goes_on_in_the_call_that_settles_what_it_waits_for():
    """No turn of the loop is in between, at its begin or later."""
    prompt = Prompt[int]()
    steps: list[Any] = []

    async def run() -> None:
        steps.append("begun")
        steps.append(await prompt)

    Errand().run(run(), lambda *_: steps.append("ended"))
    assert ["begun"] == steps

    prompt.settle(7)

    assert ["begun", 7, "ended"] == steps


async def test_what_an_errand_returns_is_passed_on():
    """With nothing in place of an error."""
    ends: list[tuple[Any, BaseException | None]] = []

    async def run() -> int:
        await asyncio.sleep(0)
        return 7

    Errand().run(run(), lambda *end: ends.append(end))
    await asyncio.sleep(0)

    assert [(7, None)] == ends


async def test_a_task_may_wait_for_a_prompt_future_too():
    """It is a future like any other, and has one result."""
    prompt = Prompt[int]()
    waiting = asyncio.create_task(asyncio.wait_for(prompt, 60))
    await asyncio.sleep(0)

    prompt.settle(7)
    prompt.settle(8)

    assert 7 == await waiting


async def test_an_errand_waits_for_what_a_task_would():
    """A turn of the loop, a lock, and a task."""
    lock = asyncio.Lock()
    await lock.acquire()
    end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        await asyncio.sleep(0)
        async with lock:
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    Errand().run(run(), lambda _, error: end.set_result(error))
    await asyncio.sleep(0)
    lock.release()

    assert await asyncio.wait_for(end, 60) is None


async def test_what_an_errand_raises_is_passed_on():
    """Be it raised at its begin, or where it waits."""
    prompt = Prompt[int]()
    ends: list[BaseException | None] = []

    async def fail() -> None:
        raise InternalError

    async def wait() -> None:
        await prompt

    Errand().run(fail(), lambda _, error: ends.append(error))
    Errand().run(wait(), lambda _, error: ends.append(error))
    prompt.settle(TimeoutError())

    assert [InternalError, TimeoutError] == [type(each) for each in ends]


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_an_errand_that_is_ended_hears_no_more_of_what_it_waited_for(how):
    """It ends where it waits: `cancel` tells it so, and may be answered by waiting for another."""
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    steps: list[Any] = []

    async def run() -> None:
        try:
            await first
        except asyncio.CancelledError:
            steps.append("cancelled")
            await second
        finally:
            steps.append("end")

    errand = Errand()
    errand.run(run(), lambda _, error: steps.append(error))
    getattr(errand, how)()
    first.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert steps == (["cancelled"] if how == "cancel" else ["end"])
    second.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert steps == (["cancelled", "end", None] if how == "cancel" else ["end"])
