"""What asks a connection needs no task: this holds of the version of asyncpg that is pinned."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import asyncpg
import pytest

from responder.errors import InternalError
from responder.postgres.connection import Connection, connect
from responder.postgres.dsn import parse
from responder.postgres.errors import LostError


@pytest.fixture
async def connection(people_service) -> AsyncIterator[Connection]:
    opened = await connect(parse(people_service.url), timeout=5)
    yield opened
    opened.terminate()


async def end_of(connection: Connection, coroutine: Coroutine[Any, Any, None]) -> Any:
    """Run a coroutine without a task, and return what it has raised."""
    end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    connection.runner.run(coroutine, lambda _, error: end.set_result(error))
    async with asyncio.timeout(60):
        return await end


def callers() -> set[str]:
    return {frame.name for frame in traceback.extract_stack()}


async def test_rows_are_dealt_with_in_the_call_that_reads_them(connection):
    """Neither a task nor another turn of the loop is between the socket and what asks."""
    rows, tasks, calls = [], [], []

    async def ask() -> None:
        for number in range(3):
            rows.append(await connection.fetch("select $1::int", number))
            tasks.append(asyncio.current_task())
            calls.append(callers())

    assert await end_of(connection, ask()) is None
    assert [[(0,)], [(1,)], [(2,)]] == rows
    assert [None] * 3 == tasks
    assert all("data_received" in each for each in calls)


async def test_what_waits_for_anything_else_goes_on_likewise(connection):
    """A lock or a pause between two queries is waited for, too."""
    lock, rows = asyncio.Lock(), []
    await lock.acquire()

    async def ask() -> None:
        rows.append(await connection.fetch("select 1"))
        async with lock:
            await asyncio.sleep(0.001)
        rows.append(await connection.fetch("select 2"))

    asyncio.get_running_loop().call_later(0.01, lock.release)

    assert await end_of(connection, ask()) is None
    assert [[(1,)], [(2,)]] == rows


async def test_what_a_query_raises_is_raised_where_it_was_asked(connection):
    """Arguments that cannot be written, and errors of PostgreSQL; the connection goes on."""
    raised = []

    async def ask() -> None:
        for sql, argument in (("select $1::int", "no number"), ("select 1 / $1::int", 0)):
            try:
                await connection.fetch(sql, argument)
            except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raised.append(type(error))
        assert await connection.fetch("select 7") == [(7,)]
        raise InternalError

    assert isinstance(await end_of(connection, ask()), InternalError)
    assert [asyncpg.DataError, asyncpg.DivisionByZeroError] == raised


@pytest.mark.parametrize("how", ["here", "there"])
async def test_a_connection_that_is_lost_ends_what_waits_for_it(connection, create_database, how):
    """Whether it is closed here or by the server."""
    ((pid,),) = await connection.fetch("select pg_backend_pid()")
    owner = await asyncpg.connect(await create_database())

    async def ask() -> None:
        await connection.fetch("select pg_sleep(60)")

    ending = asyncio.create_task(end_of(connection, ask()))
    await asyncio.sleep(0)
    try:
        if how == "here":
            connection.terminate()
        else:
            await owner.execute("select pg_terminate_backend($1)", pid)
        assert isinstance(await ending, LostError)
    finally:
        await owner.close()


async def test_what_is_stopped_ends_where_it_is(connection):
    """Nothing of it runs later, but for what ends it."""
    ran, ends = [], []

    async def ask() -> None:
        try:
            ran.append(await connection.fetch("select 1 from pg_sleep(0.05)"))
        finally:
            ends.append(1)

    connection.runner.run(ask(), lambda *end: ends.append(end))
    connection.runner.stop()
    connection.terminate()  # which ends the query
    await asyncio.sleep(0)

    assert not ran
    assert [1] == ends
