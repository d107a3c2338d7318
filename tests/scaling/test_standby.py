"""A primary and its standby: what each kind of worker reads, and what becomes of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import asyncpg
import nats as nats_py
import psutil
import pytest
from nats.aio.client import Client

from responder.dev import nats, people, postgres, process, tables
from responder.dev.postgres import _account
from tests.ports import at, free_port
from tests.scaling.nodes import FILES, PASSWORD
from tests.scaling.workers import program

pytestmark = pytest.mark.heavy

WRITES = 200 * int(os.environ.get("RESPONDER_TEST_SCALING", "1"))
ROLES = f"""
create role replicator login replication password '{PASSWORD}';
create role reader login password '{PASSWORD}';
grant pg_read_all_data to reader;
"""
IN_STEP = "select 'sync' = any (array(select sync_state from pg_stat_replication))"
PATIENCE = 60  # seconds


@dataclass
class Site:
    """Two PostgreSQL servers, a worker of each, and a program that asks and writes."""

    primary: postgres.Postgres
    standby: int  # the port
    cast: people.Cast
    nc: Client
    writer: asyncpg.Connection

    async def write(self, name: str) -> None:
        """Give the owner another name, on the primary."""
        await self.writer.execute(
            "update users set name = $1 where id = $2", name, self.cast.owner.id
        )

    async def name(self, prefix: str) -> str | None:
        """Return the owner's name, as workers with a prefix answer it."""
        reply = await self.nc.request(f"{prefix}.get", self.cast.owner.id.encode(), timeout=10)
        return json.loads(reply.data).get("name")

    async def until(self, prefix: str, name: str) -> float:
        """Ask until the answer has that name; return the seconds that this took, 0 if at once."""
        began = monotonic()
        for attempt in itertools.count():
            if name == await self.name(prefix):
                return monotonic() - began if attempt else 0.0
            assert monotonic() - began < PATIENCE
        raise AssertionError


def configured(data: Path) -> None:
    """Let a PostgreSQL read the files of deploy/scaling, which it has to be able to read."""
    for file in ("postgresql.conf", "pg_hba.conf"):
        shutil.copy(FILES / file, data / f"scaling-{file}")
        (data / f"scaling-{file}").chmod(0o644)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("\ninclude 'scaling-postgresql.conf'\n")
    with (data / "pg_hba.conf").open("a") as logins:
        logins.write("\ninclude scaling-pg_hba.conf\n")


@asynccontextmanager
async def standby_of(primary: postgres.Postgres) -> AsyncIterator[int]:
    """Copy a primary, and run the copy as its standby; yields its port."""
    running = psutil.Process(primary.pid).cmdline()
    account = _account()
    if account:
        account = process.Account(account.uid, psutil.Process(primary.pid).gids().real)
    with process.temporary_directory("standby", owner=account) as home:
        data, log = home / "data", home / "standby.log"
        source = f"host=127.0.0.1 port={primary.port} user=replicator password={PASSWORD}"
        package = await postgres._programs(home, None)
        copying = await asyncio.create_subprocess_exec(
            package / "pg_basebackup",
            *("-d", source, "-D", data, "-R", "-X", "stream", "-c", "fast"),
            env={"LC_ALL": "C"},
        )
        assert 0 == await copying.wait()
        if account:
            for each in (data, *data.rglob("*")):
                os.chown(each, *account, follow_symlinks=False)
        port = free_port()
        async with process.running(
            Path(running[0]),
            *postgres._arguments(home, port, {}),
            directory=home,
            log=log,
            account=account,
            stop=signal.SIGQUIT,
        ) as started:
            await process.ready(
                started,
                lambda: True if b"ready to accept read-only" in log.read_bytes() else None,
                log=log,
            )
            yield port


@pytest.fixture(scope="module")
async def site(tmp_path_factory) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(postgres.running())
        url = await primary.create_database("app")
        writer = await asyncpg.connect(url)
        stack.callback(writer.terminate)
        await tables.create_tables(writer)
        cast = await tables.insert_people(writer)
        await writer.execute(ROLES)
        # As PostgreSQL has it: the servers of tests do not wait for the disk.
        await writer.execute("set synchronous_commit = on")
        configured(primary.directory / "data")
        await writer.execute("select pg_reload_conf()")
        standby = await stack.enter_async_context(standby_of(primary))
        server = await stack.enter_async_context(nats.running())
        for file in ("standby.env", "primary.env"):
            directory = tmp_path_factory.mktemp(file)
            shutil.copy(FILES / file, directory / ".env")
            await stack.enter_async_context(
                program(
                    directory=directory,
                    NATS_URL=server.url,
                    PG_PASSWORD=PASSWORD,
                    PG_PRIMARY=at(primary.port),
                    PG_STANDBY=at(standby),
                )
            )
        nc = await nats_py.connect(server.url)
        stack.push_async_callback(nc.close)
        yield Site(primary, standby, cast, nc, writer)


@asynccontextmanager
async def in_step(writer: asyncpg.Connection) -> AsyncIterator[None]:
    """Let each commit of a connection wait until the standby shows it."""
    await writer.execute("alter system set synchronous_standby_names = '*'")
    await writer.execute("select pg_reload_conf()")
    await writer.execute("set synchronous_commit = remote_apply")
    try:
        async with asyncio.timeout(PATIENCE):
            while not await writer.fetchval(IN_STEP):
                await asyncio.sleep(0.01)
        yield
    finally:
        await writer.execute("set synchronous_commit = on")
        await writer.execute("alter system reset synchronous_standby_names")
        await writer.execute("select pg_reload_conf()")


async def test_who_asks_for_the_primary_sees_what_was_just_written(site, note):
    """The standby shows each write soon after; with remote_apply each commit waits for that."""
    waits: dict[str, list[float]] = {"primary": [], "standby": [], "remote_apply": []}
    for number in range(WRITES):
        await site.write(f"w{number}")
        on_standby, on_primary = await asyncio.gather(
            site.until("users", f"w{number}"), site.until("primary.users", f"w{number}")
        )
        waits["standby"].append(on_standby)
        waits["primary"].append(on_primary)
    async with in_step(site.writer):
        for number in range(WRITES):
            await site.write(f"s{number}")
            waits["remote_apply"].append(await site.until("users", f"s{number}"))
    stale = {kind: sorted(filter(None, each)) for kind, each in waits.items()}
    note(writes=WRITES, stale={kind: len(each) for kind, each in stale.items()})
    if ages := stale["standby"]:
        note(seen_after_ms=[round(each * 1e3, 1) for each in (ages[len(ages) // 2], ages[-1])])

    assert [] == stale["primary"]
    assert [] == stale["remote_apply"]


async def test_a_migration_shows_on_the_standby(site):
    """A column that is renamed is missing from the answers, and there again with its name."""
    banned = site.cast.banned.id
    rename = "alter table users rename column {} to {}"

    async def reason() -> str | None:
        reply = await site.nc.request("users.get", banned.encode(), timeout=10)
        found: str | None = json.loads(reply.data)["banReason"]
        return found

    async def until(expected: str | None) -> None:
        async with asyncio.timeout(PATIENCE):
            while expected != await reason():
                await asyncio.sleep(0.01)

    before = await reason()
    await site.writer.execute(rename.format('"banReason"', "kept"))
    await until(None)
    await site.writer.execute(rename.format("kept", "ban_reason"))
    await until(before)

    assert before


async def test_the_standby_takes_over(site):
    """Once it is promoted, workers that demand the primary have found it."""
    os.kill(site.primary.pid, signal.SIGQUIT)
    await site.primary.process.wait()
    promoted = await asyncpg.connect(
        host="127.0.0.1", port=site.standby, user="postgres", password=site.primary.password,
        database="app",
    )  # fmt: skip
    assert await promoted.fetchval("select pg_promote()")
    await promoted.execute("update users set name = 'after' where id = $1", site.cast.owner.id)
    await promoted.close()
    async with asyncio.timeout(PATIENCE):
        while await site.name("primary.users") != "after":
            await asyncio.sleep(0.05)

    assert "after" == await site.name("users")
