"""Many workers before one PgBouncer, with the file of deploy/scaling."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import nats as nats_py
import pytest

from responder.dev import nats
from responder.dev import process as child
from responder.dev.postgres import _account
from tests.postgres.test_pgbouncer import bouncer_program
from tests.scaling.nodes import FILES, at, ports

__all__ = ["bouncer_program"]  # a fixture

pytestmark = pytest.mark.heavy

WORKERS = 4
POOL = 8  # default_pool_size of the file


@asynccontextmanager
async def pooling(program: Path, url: str) -> AsyncIterator[str]:
    """Run PgBouncer with the file; places and passwords are those of the test."""
    target, account = urlsplit(url), _account()
    (port,) = ports(1)
    with child.temporary_directory("pgbouncer", owner=account) as folder:
        logins, config = folder / "userlist.txt", folder / "pgbouncer.ini"
        logins.write_text(f'"{target.username}" "{target.password}"\n')
        text = (FILES / "pgbouncer.ini").read_text()
        for ours, theirs in (
            ("port=5432 dbname=app", f"port={target.port} dbname={target.path[1:]}"),
            ("listen_port = 6432", f"listen_port = {port}\nunix_socket_dir ="),
            ("/etc/pgbouncer/userlist.txt", str(logins)),
        ):
            assert 1 == text.count(ours)
            text = text.replace(ours, theirs)
        config.write_text(text)
        for each in folder.iterdir():
            each.chmod(0o644)

        def listening() -> bool | None:
            with socket.socket() as client:
                return True if client.connect_ex(("127.0.0.1", port)) == 0 else None

        libraries = program.parent.parent / "lib" / "x86_64-linux-gnu"
        log = folder / "pgbouncer.log"
        async with child.running(
            Path("/usr/bin/env"),
            *(f"LD_LIBRARY_PATH={libraries}", str(program), str(config)),
            directory=folder,
            log=log,
            account=account,
        ) as process:
            await child.ready(process, listening, log=log)
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
