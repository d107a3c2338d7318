"""A service under load, and one thing after another that fails: what its callers notice.

`make faults` has a table of what was counted. RESPONDER_TEST_FAULTS=10 is ten times as much of
what is repeated.

What is asserted has to hold on a machine that does much else, too: BUSY is for how long a program
may have no time there, and LATE how late all may be. What holds on a quiet one is in the table.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import asyncpg
import nats as nats_py
import psutil
import pytest

from responder.dev import nats, people, postgres, process, tables
from responder.errors import ResponderError
from responder.nats.connection import connected
from tests import programs
from tests.faults.load import LOST, NO_WORKER, VALUE, Asked, full, paced
from tests.faults.proxy import Proxy
from tests.programs import SERVE, until_ready

pytestmark = pytest.mark.load

TIMES = int(os.environ.get("RESPONDER_TEST_FAULTS", "1"))
RATE = 500  # requests a second
TIMEOUT = 2.0  # seconds that a request may take by default
HOLE = 5.0  # seconds for which nothing passes
BEFORE, AFTER = 0.3, 1.2  # seconds of load without a fault
BUSY, LATE = 1.0, 3.0  # seconds


@dataclass
class Site:
    """Two workers, their servers, and what lies between."""

    postgres: postgres.Postgres
    nats_port: int
    to_postgres: Proxy
    to_nats: Proxy
    database: str  # its URL, past the proxy
    cast: people.Cast
    service: asyncio.subprocess.Process
    ready: str  # the URL
    stack: AsyncExitStack
    nats_stack: AsyncExitStack

    @asynccontextmanager
    async def load(self):
        """Load by a program whose own connection does not fail; yields it."""
        client = await nats_py.connect(
            f"nats://127.0.0.1:{self.nats_port}",
            reconnect_time_wait=0.02,
            max_reconnect_attempts=-1,
            error_cb=_ignored,
        )
        try:
            async with paced(client, self.cast.owner.id, rate=RATE) as load:
                await asyncio.sleep(BEFORE)
                yield load
                await asyncio.sleep(AFTER)
        finally:
            await client.close()

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [each.pid for each in psutil.Process(self.service.pid).children()]


async def _ignored(_: Exception) -> None:
    """nats-py would write it to the log."""


def by(proxy: Proxy, url: str) -> str:
    """Return a URL with the port of a proxy."""
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")


@pytest.fixture(scope="module")
async def site(tmp_path_factory):
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres.running())
        database = await server.create_database("people")
        connection = await asyncpg.connect(database)
        await tables.create_tables(connection)
        cast = await tables.insert_people(connection)
        await connection.close()
        nats_stack = await stack.enter_async_context(AsyncExitStack())
        broker = await nats_stack.enter_async_context(nats.running())
        nats_port = urlsplit(broker.url).port
        assert nats_port
        to_postgres = await stack.enter_async_context(Proxy(server.port).listening())
        to_nats = await stack.enter_async_context(Proxy(nats_port).listening())
        service, ready = await stack.enter_async_context(
            programs.running(
                *(*SERVE, "--workers", "2"),
                directory=tmp_path_factory.mktemp("service"),
                DATABASE_URL=by(to_postgres, database),
                NATS_URL=by(to_nats, broker.url),
            )
        )
        yield Site(
            *(server, nats_port, to_postgres, to_nats, database, cast),
            *(service, ready, stack, nats_stack),
        )


def told(load, since: float) -> dict[str, object]:
    """Return what is noted of each fault."""
    late = Counter(each.answer for each in load.asked if each.at and each.late > 0.05)
    return {
        **load.counts(),
        "late": dict(late),
        "latest ms beyond its deadline": round(load.latest() * 1000),
        "normal after ms": round(load.normal_after(since) * 1000),
    }


async def test_postgres_in_a_black_hole(site, note):
    """Requests wait in vain for one timeout, then they are refused at once; all is well once the
    network is.
    """
    async with site.load() as load:
        site.to_postgres.hold()
        start = monotonic()
        await asyncio.sleep(HOLE)
        healed = monotonic()
        site.to_postgres.heal()
    refused = load.between(start + TIMEOUT, healed)
    note(**told(load, healed), **waited(refused))

    refused = load.between(start + TIMEOUT + BUSY, healed - BUSY)
    assert {"unavailable"} == {each.answer for each in refused}
    assert max(each.took for each in refused) < BUSY
    assert {VALUE, "unavailable", "timeout"} >= set(load.counts())
    assert load.latest() < LATE
    assert load.normal_after(healed) < LATE


def waited(refused) -> dict[str, object]:
    """Return what is noted of requests that should be refused at once."""
    slow = [each.sent - refused[0].sent for each in refused if each.took > 0.05]
    return {
        "refused": len(refused),
        "slowest refusal ms": round(1000 * max(each.took for each in refused)),
        "refused at once after ms": round(1000 * max(slow, default=0)),
    }


async def test_nats_in_a_black_hole(site, note):
    """What is asked meanwhile is lost; a bridge refuses once it has lasted for a timeout. All is
    well once the network is, and no answer comes late.
    """
    asked: list[Asked] = []

    async def ask(connection) -> None:
        asked.append(each := Asked(monotonic(), TIMEOUT))
        try:
            payload = site.cast.owner.id.encode()
            await connection.ask("users.get", payload, timeout=TIMEOUT)
        except ResponderError as error:
            each.answer = error.code
        else:
            each.answer = VALUE
        each.at = monotonic()

    url = f"nats://127.0.0.1:{site.to_nats.port}"
    async with (
        connected([url], name="bridge", silence=TIMEOUT) as connection,
        asyncio.TaskGroup() as asking,
        site.load() as load,
    ):
        site.to_nats.hold()
        start = monotonic()
        while (now := monotonic()) < start + HOLE:
            asking.create_task(ask(connection))
            await asyncio.sleep(0.02)
        site.to_nats.heal()
        healed = now
    refused = [each for each in asked if each.sent > start + TIMEOUT]
    note(**told(load, healed), **waited(refused))

    refused = [each for each in refused if each.sent > start + TIMEOUT + BUSY]
    assert {"unavailable"} == {each.answer for each in refused}
    assert max(each.took for each in refused) < BUSY
    # Healed, the server learns that the connections are reset before there are others.
    assert {VALUE, LOST, NO_WORKER} >= set(load.counts())
    assert load.latest() < LATE
    assert load.normal_after(healed) < LATE


async def test_connections_reset_and_slow(site, note):
    """Neither connections to PostgreSQL that are reset nor a slow network cost an answer."""
    async with site.load() as load:
        for _ in range(5):
            site.to_postgres.reset()
            await asyncio.sleep(0.1)
        site.to_postgres.delay = 0.05
        await asyncio.sleep(0.5)
        site.to_postgres.delay = 0
        healed = monotonic()
    note(**told(load, healed))

    assert_got_over(load, healed)


def assert_got_over(load, healed) -> None:
    """Each request has its answer in time, and all is well soon afterwards.

    On a quiet machine each is a value (see the table). On a busy one three connections may be lost
    faster than they are made, and what could not wait for them is refused.
    """
    assert {VALUE, "unavailable", "timeout"} >= set(load.counts())
    assert load.latest() < LATE
    assert load.normal_after(healed) < 2 * LATE


async def test_backends_terminated(site, note):
    """That PostgreSQL ends all connections of the service, again and again, costs no answer."""
    ended = 0
    connection = await asyncpg.connect(site.database)
    async with site.load() as load:
        for _ in range(10 * TIMES):
            ended += len(await connection.fetch(TERMINATE))
            await asyncio.sleep(0.1)
        healed = monotonic()
    await connection.close()
    note(**told(load, healed), backends=ended)

    assert ended > 10 * TIMES
    assert_got_over(load, healed)


TERMINATE = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


async def test_postgres_restarts_at_once(site, note):
    """An immediate shutdown and a start: requests wait for it as long as they may."""
    arguments = psutil.Process(site.postgres.pid).cmdline()
    ids = psutil.Process(site.postgres.pid)
    account = process.Account(ids.uids().real, ids.gids().real) if os.geteuid() == 0 else None
    async with site.load() as load:
        os.kill(site.postgres.pid, signal.SIGQUIT)
        await site.postgres.process.wait()
        await site.stack.enter_async_context(
            process.running(
                Path(arguments[0]),
                *arguments[1:],
                directory=site.postgres.directory,
                log=site.postgres.log,
                account=account,
                stop=signal.SIGQUIT,
            )
        )
        stopped = monotonic()
        async with asyncio.timeout(60):
            while True:
                try:
                    await (await asyncpg.connect(site.database)).close()
                    break
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.01)
        healed = monotonic()
    note(**told(load, healed), away_ms=round((healed - stopped) * 1000))

    assert {VALUE, "unavailable", "timeout"} >= set(load.counts())
    assert load.latest() < LATE


async def test_nats_restarts(site, note):
    """What was under way is lost; everything is there again with the server."""
    async with site.load() as load:
        await site.nats_stack.aclose()
        stopped = monotonic()
        await site.nats_stack.enter_async_context(nats.running(port=site.nats_port))
        healed = monotonic()
        await asyncio.sleep(1)
    note(**told(load, healed), away_ms=round((healed - stopped) * 1000))

    assert {VALUE, LOST, NO_WORKER} >= set(load.counts())
    assert load.normal_after(healed) < 1 + LATE


async def test_a_worker_is_killed(site, note):
    """Only what it held is lost."""
    async with site.load() as load:
        killed = monotonic()
        os.kill(min(site.workers()), signal.SIGKILL)
        await until_ready(site.service, site.ready)
    lost = [each for each in load.asked if each.answer == LOST]
    note(**told(load, killed))

    assert {VALUE, LOST, "unavailable", "timeout"} >= set(load.counts())
    assert all(abs(each.sent - killed) < LATE for each in lost)


async def test_workers_are_replaced_under_full_load(site, note, tmp_path):
    """Two services, of which one after the other gives way to a new one, lose nothing."""
    url = f"nats://127.0.0.1:{site.nats_port}"
    variables = {"DATABASE_URL": site.database, "NATS_URL": url}
    serve = partial(programs.running, *SERVE, directory=tmp_path, **variables)
    restarts = 10 * TIMES
    client = await nats_py.connect(url)
    async with AsyncExitStack() as last:
        site.service.terminate()
        await site.service.wait()
        current = [AsyncExitStack(), AsyncExitStack()]
        for each in current:
            last.push_async_callback(each.aclose)
            await each.enter_async_context(serve())
        async with full(client, site.cast.owner.id, outstanding=256) as counts:
            for number in range(restarts):
                each = current[number % 2]
                await each.aclose()
                await each.enter_async_context(serve())
    await client.close()
    note(**counts, restarts=restarts)

    assert {VALUE} == set(counts)
