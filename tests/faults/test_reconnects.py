"""Connections that are lost again and again leave nothing behind.

RESPONDER_TEST_FAULTS=20 is a thousand of each.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import asyncpg
import httpx
import nats as nats_py
import psutil
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from responder.app import serving
from responder.dev import nats
from responder.settings import Settings
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.load

TIMES = 50 * int(os.environ.get("RESPONDER_TEST_FAULTS", "1"))
SETTLED = TIMES // 5  # losses after which all that is made once has been made
GROWTH = 4_000_000  # bytes that the allocator may keep besides


@dataclass(frozen=True)
class Held:
    """What this process holds, which is the service's and the test's."""

    tasks: int
    files: int
    memory: int  # bytes

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        process = psutil.Process()
        return cls(len(asyncio.all_tasks()), process.num_fds(), process.memory_info().rss)


@dataclass(frozen=True)
class Site:
    """A service whose connection to NATS can be reset."""

    to_nats: Proxy
    nc: Client
    http: httpx.AsyncClient
    database: asyncpg.Connection
    user: str

    async def reconnected(self, times: int) -> None:
        """Wait until there has been a connection to NATS again so often, and it answers."""
        async with asyncio.timeout(60):
            while f"responder_nats_reconnects_total {times}.0\n" not in await self.metrics():
                await asyncio.sleep(0.005)
            await self.answered()

    async def backends(self, instead_of: Sequence[int] = ()) -> list[int]:
        """Wait for as many connections to PostgreSQL as the service has, none of them one of these,
        and for an answer; return their process ids.
        """
        async with asyncio.timeout(60):
            while len(pids := await self._pids()) < 3 or set(pids) & set(instead_of):
                await asyncio.sleep(0.005)
            await self.answered()
        return pids

    async def _pids(self) -> list[int]:
        rows = await self.database.fetch(
            "select pid from pg_stat_activity where datname = current_database()"
            " and application_name = 'responder'"
        )
        return [pid for (pid,) in rows]

    async def answered(self) -> None:
        """Wait until a request is answered with the user."""
        while True:
            # The server may have sent one to a connection of whose end it did not know yet.
            with suppress(NatsTimeoutError, NoRespondersError):
                reply = await self.nc.request("users.get", self.user.encode(), timeout=3)
                if b'{"id"' in reply.data:
                    return
            await asyncio.sleep(0.005)

    async def metrics(self) -> str:
        return (await self.http.get("/metrics")).text


@pytest.fixture
async def site(template, create_database):
    url = await create_database(template=template[0])
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(nats.running())
        to_nats = await enter(Proxy(int(server.url.rpartition(":")[2])).listening())
        settings = Settings.read(
            {
                "DATABASE_URL": url,
                "NATS_URL": f"nats://127.0.0.1:{to_nats.port}",
                "RESPONDER_HTTP_LISTEN": "off",
                "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
            }
        )
        running = await enter(serving(settings))
        await running.wait_ready()
        nc = await nats_py.connect(server.url)
        stack.push_async_callback(nc.close)
        http = await enter(httpx.AsyncClient(base_url=running.admin_url or "", trust_env=False))
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        yield Site(to_nats, nc, http, database, template[1].owner.id)


async def test_connections_to_nats_that_are_reset_leave_nothing(site, note):
    """Tasks and files are as many as before, and memory is as much, however often it happens."""
    for lost in range(1, TIMES + 1):
        site.to_nats.reset()
        await site.reconnected(lost)
        if lost == SETTLED:
            before = Held.now()
    after = Held.now()
    note(times=TIMES, before=before, after=after)

    assert (before.tasks, before.files) == (after.tasks, after.files)
    assert after.memory < before.memory + GROWTH


async def test_connections_to_postgres_that_are_ended_leave_nothing(site, note):
    """Likewise, with every connection ended each time."""
    backends = await site.backends()
    for lost in range(1, TIMES + 1):
        await site.database.execute("select pg_terminate_backend(unnest($1::int[]))", backends)
        backends = await site.backends(instead_of=backends)
        if lost == SETTLED:
            first = Held.now()
    last = Held.now()
    note(times=TIMES, before=first, after=last)

    assert (first.tasks, first.files) == (last.tasks, last.files)
    assert last.memory < first.memory + GROWTH
