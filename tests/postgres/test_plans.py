"""Every lookup goes by an index, in every schema that Better Auth's generators make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from responder import checks
from responder.checks.report import Finding
from responder.postgres import decision
from responder.postgres.connection import NO_MEMOIZE, PLANNING
from responder.postgres.discovery import fetch_catalog
from responder.postgres.lookups import Lookups, Statements, statements
from responder.postgres.quoting import ident
from responder.postgres.quoting import literal as quoted
from responder.postgres.schema import Column, Schema, Table
from responder.settings import Settings

HERE = Path(__file__).parent.parent
FIXTURES = {
    **{file.stem: file for file in sorted((HERE / "schemas").glob("*.sql"))},
    "dev": HERE.parent / "responder" / "dev" / "tables.sql",
}
MEMBERS = 100_000
IN_ORGANIZATION = 200
# A table of that size has some two thousand pages.
FEW_PAGES = 400  # for a page of a list, or several keys
FEWER_PAGES = 20  # for one key


def value(column: Column, number: str) -> str:
    """An id made from a number, as SQL."""
    match column.type:
        case "uuid":
            return f"md5(({number})::text)::uuid"
        case "int2" | "int4" | "int8":
            return f"({number})::{column.type}"
    return f"({number})::text"


async def fill(connection: asyncpg.Connection[Any], found: Schema) -> None:
    """Give every user a membership; nothing else about them matters to a plan."""
    await connection.execute("set session_replication_role = replica")  # no foreign keys
    for table, fields in (
        (found.users, {"id": "n", "email": "n || '@example.com'"}),
        (found.members, {"id": "n", "userId": "n", "organizationId": f"n / {IN_ORGANIZATION}"}),
    ):
        assert table is not None
        name = f"{ident(table.schema)}.{ident(table.name)}"
        rows = await connection.fetch(
            """select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0
               and attnotnull and not attnum = any(select unnest(conkey) from pg_constraint
                 where conrelid = attrelid and contype = 'p')""",
            name,
        )
        for (column,) in rows:
            await connection.execute(
                f"alter table {name} alter column {ident(column)} drop not null"
            )
        columns = {
            ident(table.columns[field].name): expression
            if field == "email"
            else value(table.columns[field], expression)
            for field, expression in fields.items()
            if field in table.columns
        }
        if created := table.columns.get("createdAt"):
            columns[ident(created.name)] = (
                f"(timestamptz '2020-01-01' + n * interval '1 second')::{created.type}"
            )
        await connection.execute(
            f"insert into {name} ({', '.join(columns)}) overriding system value "
            f"select {', '.join(columns.values())} from generate_series(1, {MEMBERS}) n"
        )
        await connection.execute(f"vacuum analyze {name}")


def lookups(made: Lookups, key: dict[str, str]) -> Iterator[tuple[str, str, Sequence[object]]]:
    """The SQL of every lookup with arguments of which each finds something."""
    some = [key["user"], key["other user"]]
    emails = ["77@example.com", "88@example.com"]
    assert made.pages
    assert made.pages.after
    start = ([key["organization"]], [11], 999, [None])
    yield "by id", made.by_id.one, (some[0], None, 999, False)
    yield "by id, in an organization", made.by_id.one, (some[0], key["organization"], 999, True)
    yield "by ids", made.by_id.many, (some, [], 999, [])
    yield "by ids, in an organization", made.by_id.many, (some, [key["organization"]], 999, [True])
    yield "by email", made.by_email.one, (emails[0], None, 999, False)
    yield "by emails", made.by_email.many, (emails, [], 999, [])
    yield "first page", made.pages.first, (*start, [None], [None])
    yield "next page", made.pages.after, (*start, [key["member"]], ["2020-01-01 00:00:00"])
    yield "page without times", made.pages.after_null, (*start, [key["member"]], [None])
    assert made.pages_of_roles
    roles = (*start, [None], [None], ['["x"]'])
    yield "first page of a role", made.pages_of_roles.first, roles
    assert made.memberships
    mine = (key["user"], 11, None, None, None)
    yield "memberships", made.memberships.named.one, mine
    yield "memberships of many", made.memberships.named.many, [[each] for each in mine]


def lookups_of_callers(
    made: Lookups, key: dict[str, str]
) -> Iterator[tuple[str, str, Sequence[object]]]:
    """Likewise, for somebody who shares the organization."""
    caller, other = key["other user"], key["user"]
    home = key["organization"]
    both = ([caller, other], [None, home], [1, 2])
    emails = ["77@example.com", "88@example.com"]
    assert made.pages
    assert made.pages.after
    start = ([home], [11], 999, [other])
    yield "by id, for a caller", made.by_id.one, (other, None, 999, False, caller, home)
    yield "by ids, for callers", made.by_id.many, ([other, caller], [], 999, [], *both)
    yield "by email, for a caller", made.by_email.one, (emails[0], None, 999, False, caller, home)
    yield "by emails, for callers", made.by_email.many, (emails, [], 999, [], *both)
    yield "first page, for a caller", made.pages.first, (*start, [None], [None])
    yield (
        "next page, for a caller",
        made.pages.after,
        (*start, [key["member"]], ["2020-01-01 00:00:00"]),
    )
    after = (*start, [key["member"]], [None])
    yield "page without times, for a caller", made.pages.after_null, after
    assert made.pages_of_roles
    roles = (*start, [None], [None], ['["x"]'])
    yield "first page of a role, for a caller", made.pages_of_roles.first, roles
    assert made.memberships
    theirs = (caller, 11, other, None, None)
    yield "memberships, for a caller", made.memberships.named.one, theirs
    named = made.memberships.named
    yield "memberships of many, for callers", named.many, [[each] for each in theirs]


def every_lookup(
    made: Statements, key: dict[str, str]
) -> Iterator[tuple[str, str, Sequence[object]]]:
    yield from lookups(made.services, key)
    yield from lookups_of_callers(made.callers, key)


async def pages_touched(
    connection: asyncpg.Connection[Any], sql: str, arguments: Sequence[object]
) -> int:
    """How many pages of tables and indexes a query needs, planned as responder has it planned."""
    await connection.execute(f"prepare lookup as {sql}")
    literals = ", ".join(map(literal, arguments))
    plan = await connection.fetchval(
        f"explain (analyze, buffers, format json) execute lookup({literals})"
    )
    await connection.execute("deallocate lookup")
    root = json.loads(plan)[0]["Plan"]
    touched: int = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return touched


def literal(argument: object) -> str:
    if isinstance(argument, list):
        return f"array[{', '.join(map(literal, argument))}]" if argument else "'{}'"
    if argument is None or isinstance(argument, bool):
        return str(argument).replace("None", "null")
    return str(argument) if isinstance(argument, int) else quoted(str(argument))


async def keys_of(connection: asyncpg.Connection[Any], found: Schema) -> dict[str, str]:
    assert found.members

    async def key(column: Column, number: int) -> str:
        return str(await connection.fetchval(f"select {value(column, str(number))}::text"))

    def either(table: Table, *fields: str) -> Column:
        return next(table.columns[field] for field in fields if field in table.columns)

    organization = found.members.columns["organizationId"]
    return {
        "user": await key(found.users.columns["id"], 77_777),
        "other user": await key(found.users.columns["id"], 12_345),
        "organization": await key(organization, 77_777 // IN_ORGANIZATION),
        "member": await key(either(found.members, "id", "userId"), 1),
    }


async def discover(connection: asyncpg.Connection[Any]) -> Schema:
    return decision.find(await fetch_catalog(connection))


async def touched(connection: asyncpg.Connection[Any], found: Schema) -> dict[str, int]:
    keys = await keys_of(connection, found)
    return {
        name: await pages_touched(connection, sql, arguments)
        for name, sql, arguments in every_lookup(statements(found), keys)
    }


@pytest.mark.heavy
@pytest.mark.parametrize("fixture", FIXTURES)
async def test_every_lookup_goes_by_an_index(create_database, people_service, fixture):
    """With 100,000 members no lookup reads a whole table, or `check` says what is missing."""
    url = await create_database()
    connection = await asyncpg.connect(url, server_settings=PLANNING | NO_MEMOIZE)
    try:
        await connection.execute(FIXTURES[fixture].read_text())
        found = await discover(connection)
        await fill(connection, found)
        before = await touched(connection, found)
        missing = await missing_indexes(url, people_service.nats.url)
        for each in missing:
            await connection.execute(each.remedy)
        after = await touched(connection, found)
    finally:
        await connection.close()

    assert max(before.values()) <= FEW_PAGES or any(each.severity == "warning" for each in missing)
    assert [] == await missing_indexes(url, people_service.nats.url)
    assert {} == {name: pages for name, pages in after.items() if pages > FEW_PAGES}
    assert FEWER_PAGES >= max(after["by id"], after["by email"])


async def missing_indexes(url: str, nats: str) -> list[Finding]:
    report = await checks.check(Settings.read({"DATABASE_URL": url, "NATS_URL": nats}))
    return [each for each in report.findings if each.check == "indexes"]
