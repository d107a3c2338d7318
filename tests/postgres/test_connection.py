"""A connection to PostgreSQL: what it makes of a server that hangs, and of types that change."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest

from responder.postgres.connection import LostError, connect
from responder.postgres.dsn import parse


async def test_a_server_that_hangs_is_given_up(people_service, caplog):
    """A query that is not answered in time has lost its connection, and the log says why."""
    connection = await connect(parse(people_service.url), timeout=0.5)
    ((pid,),) = await connection.fetch("select pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(LostError):
                await connection.fetch("select 1")
    finally:
        os.kill(pid, signal.SIGCONT)
        connection.terminate()

    assert "PostgreSQL has not answered within 0.50 s" in caplog.messages


async def test_a_statement_outlives_a_change_of_its_types(create_database):
    """A query whose columns have other types than when it was prepared is prepared again."""
    url = await create_database()
    owner = await asyncpg.connect(url)
    await owner.execute("create table numbers as select 7 as number")
    connection = await connect(parse(url), timeout=2)
    try:
        before = await connection.fetch("select number from public.numbers")
        await owner.execute("alter table numbers alter number type text")
        after = await connection.fetch("select number from public.numbers")
    finally:
        connection.terminate()
        await owner.close()

    assert [(7,), ("7",)] == [tuple(rows[0]) for rows in (before, after)]
