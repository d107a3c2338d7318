"""Through PgBouncer in transaction mode: every lookup, and every promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from responder import checks
from responder.postgres.connection import PLANNING, Connection, PooledConnection, connect
from responder.postgres.dsn import parse
from responder.settings import Settings
from tests.bouncing import bouncer_program, bouncing
from tests.ports import at, free_port

__all__ = ["bouncer_program"]  # a fixture

pytestmark = pytest.mark.heavy

# What a pooler does with settings it does not know, sent at the start of a connection.
REFUSED = ""
DROPPED = "ignore_startup_parameters = " + ", ".join(
    ("default_transaction_read_only", "statement_timeout", "lock_timeout", *PLANNING)
)


@asynccontextmanager
async def pooling(program: Path, url: str, settings: str) -> AsyncIterator[str]:
    """Run a PgBouncer in transaction mode before a database; yields the URL through it."""
    target, port = urlsplit(url), free_port()
    config = f"""
[databases]
* = host=127.0.0.1 port={target.port} user=postgres password={target.password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 200
{settings}
"""
    async with bouncing(program, port, config):
        yield f"postgresql://postgres@{at(port)}{target.path}"


@pytest.fixture(params=[REFUSED, DROPPED], ids=["settings are refused", "settings are dropped"])
async def pooled(
    request, bouncer_program, create_database, template
) -> AsyncIterator[tuple[str, str]]:
    """The URLs of the demo people, straight and through a PgBouncer."""
    url = await create_database(template=template[0])
    async with pooling(bouncer_program, url, request.param) as through:
        yield url, through


async def test_every_lookup_works_through_a_pooler(pooled, people_service, start, cast):
    """With more callers and connections than servers, the answers are those without a pooler."""
    service = await start(pooled[1], RESPONDER_CONNECTIONS="8", RESPONDER_TIMEOUT="10")
    requests = [
        *(("users.get", person.id) for person in (cast.owner, cast.banned)),
        ("users.by_email", cast.owner.email.upper()),
        ("users.get_many", {"ids": [cast.owner.id, "nobody", cast.banned.id]}),
        ("users.org_list", {"organizationId": cast.organization.id, "limit": 7}),
        ("users.get", "nobody"),
    ]

    expected = [(await people_service.ask(*request)).json for request in requests]
    answers = await asyncio.gather(*(service.ask(*request) for request in requests * 30))

    assert expected * 30 == [answer.json for answer in answers]
    assert 200 == (await service.admin.get("/ready")).status_code


async def test_the_check_tells_of_a_pooler(pooled, people_service):
    """`responder check` notes a pooler, and a role that is not read-only by itself."""
    nats_url = people_service.nats.url
    settings = Settings.read({"DATABASE_URL": pooled[1], "NATS_URL": nats_url})

    before = [each.remedy for each in (await checks.check(settings)).findings]
    owner = await asyncpg.connect(pooled[0])
    try:
        mend = "alter role postgres {} default_transaction_read_only"
        await owner.execute(mend.format("set") + " = on")
        after = [each.check for each in (await checks.check(settings)).findings]
    finally:
        await owner.execute(mend.format("reset"))
        await owner.close()

    assert 'alter role "postgres" set default_transaction_read_only = on;' in before
    assert ["pooler"] == [each for each in after if each == "pooler"]


async def test_pages_are_walked_through_a_pooler(pooled, start, cast):
    """Cursors hold times as PostgreSQL writes them, whatever the pooler's servers are set to."""
    admin = await asyncpg.connect(pooled[0])
    await admin.execute("alter role postgres set datestyle = 'German'")
    try:
        service = await start(pooled[1], RESPONDER_TIMEOUT="10")
        members: list[str] = []
        request = {"organizationId": cast.organization.id, "limit": 3}
        while True:
            page = (await service.ask("users.org_list", request)).json
            members += [user["id"] for user in page["users"]]
            if page["nextCursor"] is None:
                break
            request["cursor"] = page["nextCursor"]
        wanted = await admin.fetch(
            """select "userId" from members where "organizationId" = $1
               group by 1 order by min("createdAt"), min(id)""",
            cast.organization.id,
        )
    finally:
        await admin.execute("alter role postgres reset datestyle")
        await admin.close()

    assert [row[0] for row in wanted] == members


async def test_nothing_is_written_through_a_pooler(pooled):
    """Each transaction is read-only, though the pooler lets no setting pass."""
    connection = await connect(parse(pooled[1]), timeout=30)
    try:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.fetch("delete from public.users")
        timeout = await connection.fetch("show statement_timeout")
    finally:
        connection.terminate()

    assert isinstance(connection, PooledConnection)
    assert "15s" == timeout[0][0]


async def test_without_a_pooler_nothing_is_pooled(people_service):
    """A direct connection keeps its settings, and its statements."""
    connection = await connect(parse(people_service.url), timeout=30)
    connection.terminate()

    assert Connection is type(connection)


async def test_a_migration_is_noticed_through_a_pooler(pooled, start, cast):
    """A column that is added shows in the next answer, one that is dropped is missing from it."""
    service = await start(pooled[1])
    admin = await asyncpg.connect(pooled[0])
    try:
        before = (await service.ask("users.get", cast.banned.id)).json["banReason"]
        await admin.execute('alter table users rename column "banReason" to kept')
        without = (await service.ask("users.get", cast.banned.id)).json["banReason"]
        await admin.execute('alter table users rename column kept to "ban_reason"')
        after = (await service.ask("users.get", cast.banned.id)).json["banReason"]
    finally:
        await admin.close()

    assert (before, None, before) == (before, without, after)
    assert before is not None
