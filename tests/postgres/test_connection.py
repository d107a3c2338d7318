"""A connection to PostgreSQL: what it makes of a server that hangs, and of types that change."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from responder.postgres.connection import connect
from responder.postgres.dsn import parse
from responder.postgres.errors import LostError
from responder.postgres.pulse import Pulse
from tests.pausing import paused


async def test_a_server_that_hangs_is_given_up(people_service, caplog):
    """A query that is not answered in time has lost its connection, and the log says why."""
    connection = await connect(parse(people_service.url), timeout=0.5)
    ((pid,),) = await connection.fetch("select pg_backend_pid()")
    with paused(pid):
        async with asyncio.timeout(60):
            with pytest.raises(LostError):
                await connection.fetch("select 1")
    connection.terminate()

    assert "PostgreSQL has not answered within 0.50 s" in caplog.messages


async def test_a_statement_outlives_a_change_of_its_types(create_database):
    """A query whose columns have other types than when it was prepared is prepared again."""
    url = await create_database()
    owner = await asyncpg.connect(url)
    await owner.execute("create table numbers as select 7 as number")
    connection = await connect(parse(url), timeout=30)
    try:
        before = await connection.fetch("select number from public.numbers")
        await owner.execute("alter table numbers alter number type text")
        after = await connection.fetch("select number from public.numbers")
    finally:
        connection.terminate()
        await owner.close()

    assert [(7,), ("7",)] == [tuple(rows[0]) for rows in (before, after)]


async def test_a_loop_that_is_late_gives_up_no_connection(people_service, monkeypatch, caplog):
    """An answer that has arrived while the process had no time to read it is an answer."""
    connection = await connect(parse(people_service.url), timeout=0.5)
    execute = connection._execute

    async def starved(sql, arguments):
        asked = asyncio.ensure_future(execute(sql, arguments))
        await asyncio.sleep(0.01)  # it is sent
        time.sleep(1.0)  # noqa: ASYNC251 - longer than the patience of the connection
        return await asked

    monkeypatch.setattr(connection, "_execute", starved)
    try:
        rows = await connection.fetch("select pg_sleep(0.05)::text, 1 as one")
    finally:
        connection.terminate()

    assert [1] == [row["one"] for row in rows]
    assert not [each for each in caplog.messages if "has not answered" in each]


async def test_an_outage_counts_from_the_oldest_query_without_an_answer():
    """Neither when it is noticed nor how often something is asked meanwhile matters, and any
    answer ends it.
    """
    pulse = Pulse(patience=0.2)
    pulse.start()
    pulse.answered()
    loop = asyncio.get_running_loop()
    try:
        pulse.asked()
        asked = loop.time()
        async with asyncio.timeout(60):
            while not pulse.silent:
                pulse.asked()
                await asyncio.sleep(0.01)
        noticed = loop.time()
        pulse.answered()
        silent = pulse.silent
    finally:
        pulse.stop()

    assert noticed - asked > 0.19  # the loop's time is in milliseconds
    assert not silent


async def test_nothing_asked_is_no_outage():
    """However long nothing is asked, PostgreSQL is not taken for dead."""
    pulse = Pulse(patience=0.02)
    pulse.start()
    pulse.answered()
    try:
        await asyncio.sleep(0.1)
        silent = pulse.silent
    finally:
        pulse.stop()

    assert not silent
