"""Names of schemas, tables and columns, however odd, never break the SQL or become part of it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings

from responder.postgres import decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.fields import MEMBER_FIELDS, USER_FIELDS
from responder.postgres.lookups import statements
from responder.postgres.overrides import Overrides, column_names, table_name
from responder.postgres.pages import PageRow
from responder.postgres.quoting import ident
from responder.postgres.users import UserRow
from tests.names import any_name, names

HOSTILE = "users\nalter role evil superuser; --"


def columns_of(table: str, fields: list[str], its_names: list[str]) -> str:
    """The columns in the notation of RESPONDER_COLUMNS."""
    return ",".join(
        f"{table}.{field}={ident(name)}" for field, name in zip(fields, its_names, strict=True)
    )


@pytest.fixture(scope="module")
async def connection(create_database):
    connection = await asyncpg.connect(await create_database(), statement_cache_size=0)
    await connection.execute("create table canary (id text)")
    yield connection
    await connection.close()


@pytest.mark.heavy
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    in_schema=any_name.filter(lambda name: not name.startswith("pg_")),
    tables=names(2),
    of_users=names(len(USER_FIELDS)),
    of_members=names(len(MEMBER_FIELDS)),
)
@example(
    in_schema="public",
    tables=["k", "m"],
    of_users=list(USER_FIELDS),
    of_members=list(MEMBER_FIELDS),
)
async def test_any_name_is_only_a_name(connection, in_schema, tables, of_users, of_members):
    """Tables and columns with any names at all, given by hand, are read as if those were plain."""
    user_types = dict.fromkeys(USER_FIELDS, "text") | {"banExpires": "timestamptz"}
    transaction = connection.transaction()
    await transaction.start()
    try:
        if in_schema != "public":
            await connection.execute(f"create schema {ident(in_schema)}")
        users, members = (f"{ident(in_schema)}.{ident(table)}" for table in tables)
        for table, types, its_names in (
            (users, list(user_types.values()), of_users),
            (members, ["text"] * len(MEMBER_FIELDS), of_members),
        ):
            pairs = zip(its_names, types, strict=True)
            columns = ", ".join(f"{ident(name)} {kind}" for name, kind in pairs)
            await connection.execute(f"create table {table} ({columns})")
        # In the order of the fields: id, email, emailVerified, name, image, …, createdAt.
        await connection.execute(f"""
            insert into {users} values ('1', 'one@example.com', 'yes', 'One', 'image', 'no',
              'admin', 'off', 'reason', '2030-01-02 03:04:05.678Z', '2020-01-01');
            insert into {members} values ('m', 'acme', '1', 'owner', 'boss', 'sales', '2020-01-01')
        """)
        overrides = Overrides(
            users=table_name(users),
            members=table_name(members),
            columns=column_names(
                columns_of("user", list(USER_FIELDS), of_users)
                + ","
                + columns_of("member", list(MEMBER_FIELDS), of_members)
            ),
        )
        found = decision.find(await fetch_catalog(connection, overrides), overrides)
        every = statements(found)
        made, callers = every.services, every.callers
        assert made.pages
        assert made.pages.after
        assert callers.pages
        assert callers.pages.after
        answers = [
            await connection.fetch(made.by_id.one, "1", "acme", 99, True),
            await connection.fetch(made.by_id.many, ["1"], ["acme"], 99, [True]),
            await connection.fetch(made.by_email.one, "one@example.com", None, 99, False),
            await connection.fetch(made.by_email.many, ["one@example.com"], [], 99, []),
            await connection.fetch(callers.by_id.one, "1", "acme", 99, True, "1", "acme"),
            await connection.fetch(
                callers.by_id.many, ["1"], ["acme"], 99, [True], ["1"], ["acme"], [1]
            ),
            await connection.fetch(
                callers.by_email.one, "one@example.com", None, 99, False, "1", None
            ),
            await connection.fetch(
                callers.by_email.many, ["one@example.com"], [], 99, [], ["1"], [None], [1]
            ),
        ]
        start = ["acme"], [2], 99
        pages = [
            await connection.fetch(made.pages.first, *start, [None], [None], [None]),
            await connection.fetch(made.pages.after, *start, [None], [""], ["2019"]),
            await connection.fetch(callers.pages.first, *start, ["1"], [None], [None]),
            await connection.fetch(callers.pages.after, *start, ["1"], [""], ["2019"]),
        ]
        empty = [
            await connection.fetch(made.pages.after_null, *start, [None], [""], [None]),
            await connection.fetch(callers.pages.after_null, *start, ["1"], [""], [None]),
        ]
        version = await connection.fetchval(every.version)
        canary = await connection.fetchval("select count(*) from canary")
    finally:
        await transaction.rollback()

    one = (
        *("1", "one@example.com", True, "One", "image", False, "admin", False, "reason"),
        *("2030-01-02T03:04:05.678Z", "acme", "owner", "boss", "sales"),
    )
    assert [(1, one)] * 8 == [
        (rows[0][UserRow.ORDINAL], tuple(rows[0])[UserRow.USER]) for rows in answers
    ]
    listed = tuple([value] for value in one)
    assert [(1, listed)] * 4 == [
        (rows[0][UserRow.ORDINAL], tuple(rows[0])[UserRow.USER]) for rows in pages
    ]
    assert [(1, None)] * 2 == [
        (rows[0][UserRow.ORDINAL], rows[0][UserRow.USER_ID]) for rows in empty
    ]
    assert empty[1][0][PageRow.LISTED]
    assert found.version == version
    assert 0 == canary


async def test_a_name_to_be_misread_reaches_callers_and_operators_escaped(service, cast, caplog):
    """Renamed to two lines, the users are not read; answers, /ready and the log say why, in one."""
    await service.database.execute(f"alter table users rename to {ident(HOSTILE)}")
    async with asyncio.timeout(60):
        while (await service.admin.get("/ready")).status_code == 200:
            await service.ask("users.get", cast.owner.id)
    answer = await service.ask("users.get", cast.owner.id)
    ready = (await service.admin.get("/ready")).text

    assert "unavailable" == answer.code
    told = [answer.json["message"], answer.headers["Nats-Service-Error"], ready.rstrip("\n")]
    logged = [r.getMessage() for r in caplog.records if "evil" in r.getMessage()]
    assert logged
    for each in told + logged:
        assert each.isprintable()
        assert r'public.U&"users\000aalter role evil superuser; --"' in each
