"""Which tables are found in databases of many shapes, and what is said where none are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import asyncpg
import pytest

from responder.postgres import decision
from responder.postgres.catalog import Catalog
from responder.postgres.decision import Decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.grants import grants
from responder.postgres.quoting import ident
from responder.settings import Settings
from tests.shapes import RIGHT, WRONG, Database, core


@pytest.fixture(scope="module")
async def url(create_database):
    return await create_database()


@pytest.fixture
async def connection(url):
    """A connection whose statements are undone at the end."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def catalog_of(connection, database: Database) -> Catalog:
    await connection.execute(database.sql)
    if database.search_path:
        name = await connection.fetchval("select current_database()")
        await connection.execute(f"alter database {name} set search_path = {database.search_path}")
    return await fetch_catalog(connection)


def decide(catalog: Catalog, settings: Mapping[str, str]) -> Decision:
    read = Settings.read({"DATABASE_URL": "postgres://x@y/z", **settings})
    return decision.decide(catalog, read.overrides)


def names(decided: Decision) -> tuple[str | None, str | None]:
    found = decided.schema
    return str(found.users), str(found.members) if found.members else None


def pasted(database: Database) -> dict[str, str]:
    return {
        **database.settings,
        **dict(each.split("=", 1) for each in shlex.split(database.pasted)),
    }


def said(decided: Decision) -> list[str]:
    return [str(decided.problem), *map(str, decided.hints)]


@pytest.mark.parametrize("name", RIGHT)
async def test_the_tables_that_are_meant_are_found(connection, name):
    """However an application calls its tables, and whatever else it has beside them."""
    database = RIGHT[name]

    decided = decide(await catalog_of(connection, database), database.settings)

    assert (database.users, database.members) == names(decided)
    assert any(database.message in each for each in said(decided))


@pytest.mark.parametrize("name", WRONG)
async def test_what_the_message_says_to_set_is_right(connection, name):
    """Where the tables are not found as they are, the message has the line that finds them."""
    database = WRONG[name]
    catalog = await catalog_of(connection, database)

    before = decide(catalog, database.settings)
    message = next(each for each in said(before) if database.message in each)
    after = decide(catalog, pasted(database))

    assert database.pasted in message
    assert database.starts == (before.found is not None)
    assert (database.users, database.members) == names(after)


async def test_what_users_make_in_organizations_is_not_proposed(connection):
    """Of comments and invoices nothing is said, though each has a user and an organization."""
    sql = "".join(
        f"""create table {name} (id text primary key, organization_id text not null,
              user_id text not null references "user", content text);"""
        for name in ("comment", "invoice", "api_key")
    )

    decided = decide(await catalog_of(connection, Database(core() + sql)), {})

    assert ("public.user", None) == names(decided)
    assert [] == list(decided.hints)


@pytest.mark.parametrize("name", RIGHT | WRONG)
async def test_the_role_that_is_granted_reads_the_same_tables(connection, name):
    """What is found as the owner is found, and may be read, as the role of `responder grants`."""
    database = (RIGHT | WRONG)[name]
    catalog = await catalog_of(connection, database)
    owner = decide(catalog, pasted(database)).schema
    of = await connection.fetchval("select current_database()")
    await connection.execute(grants(owner, role="shape_reader", database=of))
    await connection.execute("set local role shape_reader")

    as_role = await fetch_catalog(connection)
    found = decide(as_role, pasted(database)).schema

    assert owner.shape == found.shape
    for table in found.tables:
        columns = ", ".join(ident(column.name) for column in table.columns.values())
        await connection.fetch(f"select {columns} from {table.quoted}")
