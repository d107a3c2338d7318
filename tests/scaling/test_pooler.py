"""Many workers before one PgBouncer, with the file of deploy/scaling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import nats as nats_py
import pytest

from responder.dev import nats
from tests.bouncing import bouncer_program, bouncing
from tests.ports import at, free_port
from tests.scaling.nodes import FILES

__all__ = ["bouncer_program"]  # a fixture

pytestmark = pytest.mark.heavy

WORKERS = 4
POOL = 8  # default_pool_size of the file


@asynccontextmanager
async def pooling(program: Path, url: str) -> AsyncIterator[str]:
    """Run PgBouncer with the file; places and passwords are those of the test."""
    target, port = urlsplit(url), free_port()
    config = (FILES / "pgbouncer.ini").read_text()
    for ours, theirs in (
        ("port=5432 dbname=app", f"port={target.port} dbname={target.path[1:]}"),
        ("listen_port = 6432", f"listen_port = {port}\nunix_socket_dir ="),
        ("/etc/pgbouncer/userlist.txt", "userlist.txt"),
    ):
        assert 1 == config.count(ours)
        config = config.replace(ours, theirs)
    logins = f'"{target.username}" "{target.password}"\n'
    async with bouncing(program, port, config, logins=logins):
        password = quote(target.password or "", safe="")
        yield f"postgres://{target.username}:{password}@{at(port)}/app"


async def test_workers_share_the_connections_of_a_pooler(
    bouncer_program, create_database, template, start, cast
):
    """However many connections the workers hold, PostgreSQL has as many as the pool."""
    url = await create_database(template=template[0])
    async with pooling(bouncer_program, url) as pooled, nats.running() as server:
        for _ in range(WORKERS):
            await start(server, DATABASE_URL=pooled)
        async with await nats_py.connect(server.url) as client:
            payload = cast.owner.id.encode()
            asked = [client.request("users.get", payload, timeout=10) for _ in range(500)]
            replies = [json.loads(each.data)["id"] for each in await asyncio.gather(*asked)]
        admin = await asyncpg.connect(url)
        held = await admin.fetchval(
            """select count(*) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()"""
        )
        await admin.close()

    assert {cast.owner.id} == set(replies)
    assert 0 < held <= POOL < 3 * WORKERS
