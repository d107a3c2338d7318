"""The SQL that is printed for an operator does just what it says, whatever things are called."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings

from responder import checks, cli
from responder.checks.report import Report
from responder.dev import nats
from responder.errors import SettingsError
from responder.postgres import decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.grants import MAX_NAME, grants, grants_for
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import ident
from responder.settings import Settings
from tests.names import NASTY, any_name, names, raw

HOSTILE = "member\nalter role evil superuser; --"
COLUMNS = {
    "user": ("id", "email", "emailVerified"),
    "member": ("userId", "organizationId", "role"),
}
some_names = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
schema_names = any_name.filter(lambda name: not name.startswith("pg_") and name != "public")
role_names = any_name.filter(
    lambda name: not name.startswith("pg_") and name not in ("public", "none", "postgres")
)

# All that grants could change, as text.
SNAPSHOT = """
select 'role ' || (to_jsonb(r) - 'oid')::text from pg_roles r
union all select 'member ' || (to_jsonb(m) - 'oid')::text from pg_auth_members m
union all select 'setting ' || r.rolname || ' ' || array_to_string(s.setconfig, '|')
  from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
union all select 'database ' || d.datname || ' ' || coalesce(d.datacl::text, '') from pg_database d
union all select 'schema ' || nspname || ' ' || coalesce(nspacl::text, '') from pg_namespace
union all select 'table ' || c.oid || c.relname || c.relowner || coalesce(c.relacl::text, '')
  from pg_class c
union all select 'column ' || a.attrelid || a.attname || coalesce(a.attacl::text, '')
  from pg_attribute a
union all select 'function ' || proname || coalesce(proacl::text, '') from pg_proc
"""


@pytest.fixture(scope="module")
async def connection(create_database):
    connection = await asyncpg.connect(await create_database(), statement_cache_size=0)
    yield connection
    await connection.close()


async def snapshot(connection: asyncpg.Connection) -> set[str]:
    return {each for (each,) in await connection.fetch(SNAPSHOT)}


def kinds(entries: set[str]) -> list[str]:
    return sorted({each.partition(" ")[0] for each in entries})


async def create(connection: asyncpg.Connection, in_schema: str, tables: dict[str, Any]) -> None:
    """Create a schema, and tables with columns of text."""
    await connection.execute(f"create schema {raw(in_schema)}")
    for name, columns in tables.items():
        listed = ", ".join(f"{raw(column)} text" for column in columns)
        await connection.execute(f"create table {raw(in_schema, name)} ({listed})")


@some_names
@given(in_schema=schema_names, tables=names(2), columns=names(6), role=role_names)
@example(in_schema=HOSTILE, tables=[HOSTILE, "users"], columns=NASTY[:6], role=HOSTILE)
async def test_grants_grant_what_they_say_and_nothing_else(
    connection, in_schema, tables, columns, role
):
    """Schemas, tables, columns and a role of any name: only that role gains, and only reading."""
    of_users, of_members = columns[:3], columns[3:]
    transaction = connection.transaction()
    await transaction.start()
    try:
        await create(connection, in_schema, {tables[0]: of_users, tables[1]: of_members})
        overrides = Overrides(
            users=(in_schema, tables[0]),
            members=(in_schema, tables[1]),
            columns={
                kind: dict(zip(COLUMNS[kind], its, strict=True))
                for kind, its in (("user", of_users), ("member", of_members))
            },
        )
        found = decision.find(await fetch_catalog(connection, overrides), overrides)
        database = await connection.fetchval("select current_database()")
        before = await snapshot(connection)
        sql = grants(found, role=role, database=database)
        for _ in range(2):  # as often as one likes
            await connection.execute(sql)
        gained = await snapshot(connection) - before
        may = await connection.fetch(
            """select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = attrelid
               where attnum > 0 and has_column_privilege($1, attrelid, attnum, 'select')
                 and relnamespace = (select oid from pg_namespace where nspname = $2)""",
            *(role, in_schema),
        )
        writes = await connection.fetchval(
            """select count(*) from pg_attribute a join pg_class c on c.oid = attrelid
               where attnum > 0 and has_column_privilege($1, attrelid, attnum, 'insert, update')
                 and relnamespace = (select oid from pg_namespace where nspname = $2)""",
            *(role, in_schema),
        )
        (made,) = [each.removeprefix("role ") for each in gained if each.startswith("role ")]
    finally:
        await transaction.rollback()

    lines = sql.splitlines()
    assert 9 == len(lines)
    assert 9 == sql.count("\n")
    assert all(line.isprintable() for line in lines)
    assert ["column", "database", "role", "schema", "setting"] == kinds(gained)
    attributes = json.loads(made)
    powers = {name for name, value in attributes.items() if value is True}
    assert {"rolcanlogin", "rolinherit"} == powers
    assert role == attributes["rolname"]
    expected = {(tables[0], each) for each in of_users} | {(tables[1], each) for each in of_members}
    assert expected == {(table, column) for table, column in may}
    assert 0 == writes


@pytest.mark.parametrize(
    "role", ["public", "none", "pg_monitor", "", "x" * (MAX_NAME + 1), "\udcff"]
)
async def test_a_role_that_is_another_is_refused(create_database, role):
    """What PostgreSQL would take for every role, or for one of its own, is refused."""
    dsn = Settings.read({"DATABASE_URL": await create_database()}).dsn

    assert dsn
    with pytest.raises(SettingsError, match="ROLE"):
        await grants_for(dsn, Overrides(), role=role)


@pytest.fixture
async def hostile_url(create_database) -> str:
    """A database in which a role with few privileges has made a table with a line break."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"""create table users (id text primary key, email text, "emailVerified" boolean);
                create schema mine;
                create table mine.{raw(HOSTILE)}
                  ("userId" text, "organizationId" text, role text)"""
        )
    finally:
        await connection.close()
    return url


async def command(monkeypatch, capsys, url: str, *arguments: str, **variables: str) -> Any:
    """Run a command of the program in this process: its status, and what it prints."""
    for name, value in {"DATABASE_URL": url, "NATS_URL": "nats://127.0.0.1:1", **variables}.items():
        monkeypatch.setenv(name, value)
    status = await asyncio.to_thread(cli.main, list(arguments))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


async def test_grants_never_print_a_line_that_a_name_begins(hostile_url, monkeypatch, capsys):
    """A table named to be a line of SQL is refused in one line that names it, escaped."""
    status, out, err = await command(monkeypatch, capsys, hostile_url, "grants")

    assert (1, "") == (status, out)
    assert 1 == err.count("\n")
    assert r'mine.U&"member\000aalter role evil superuser; --"' in err
    assert "RESPONDER_MEMBERS_TABLE" in err


async def test_a_name_to_be_misread_is_taken_by_hand_alone(hostile_url, monkeypatch, capsys):
    """The operator can paste the name from the message, and then it is what it is called."""
    status, out, _ = await command(
        *(monkeypatch, capsys, hostile_url, "grants"),
        RESPONDER_MEMBERS_TABLE=r'mine.U&"member\000aalter role evil superuser; --"',
    )

    assert 0 == status
    assert not re.search(r"^alter role evil", out, re.MULTILINE)
    assert ' on "mine".U&"member\\000aalter role evil superuser; --" to "responder";\n' in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_check_prints_no_name_raw(hostile_url, monkeypatch, capsys, form):
    """`check` names the table in one line, escaped, as text and as JSON."""
    status, out, _ = await command(monkeypatch, capsys, hostile_url, "check", *form)

    assert 1 == status
    assert all(line.isprintable() for line in out.splitlines())
    assert not re.search(r"^\s*alter role evil", out, re.MULTILINE)
    assert "evil" in out
    if form:
        assert not json.loads(out)["good"]


PRINTED_TABLES = """
create schema {schema};
create table {schema}.{users} (
  {id} text, {email} text, {verified} boolean, "createdAt" timestamp, "banExpires" timestamp,
  {name} text, password text);
create table {schema}.{members} ("userId" text, {organization} text, role text);
insert into {schema}.{users} values ('1', 'ADA@example.com'), ('2', 'bob@example.com');
insert into {schema}.{members} values ('1', 'a', 'owner'), ('1', 'a', 'owner');
alter table {schema}.{members} enable row level security;
create role {role} login;
grant all on schema {schema} to {role}; grant all on all tables in schema {schema} to {role};
"""


PARTS = ("schema", "users", "members", "id", "email", "verified", "organization", "name", "role")


def cut(name: str) -> str:
    """Return a name as PostgreSQL cuts it."""
    return name.encode()[:MAX_NAME].decode(errors="ignore")


# Names that are not each other's, and columns that are none of those that have plain names here.
said_names = names(len(PARTS)).map(
    lambda drawn: {
        part: cut(f"{n}{name}") for n, (part, name) in enumerate(zip(PARTS, drawn, strict=True))
    }
)


@pytest.mark.heavy
@settings(parent=some_names, max_examples=10)
@given(said=said_names)
@example(said={part: f"{part}\n{n}alter role evil superuser; --" for n, part in enumerate(PARTS)})
async def test_what_check_prints_is_legible_and_does_what_it_says(
    postgres, create_database, nats_url, said
):
    """With any names its lines are its own, and each statement among its remedies runs."""
    url = await create_database()
    database = url.rpartition("/")[2]
    admin = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await admin.execute(PRINTED_TABLES.format(**{k: raw(v) for k, v in said.items()}))
        report = await _checked(postgres, database, nats_url, said)
        for each in report.findings:
            if each.remedy.endswith(";"):
                await admin.execute(each.remedy)
        after = await _checked(postgres, database, nats_url, said)
    finally:
        role = raw(said["role"])
        await admin.execute(f"drop owned by {role}; drop role {role}")
        await admin.close()

    text = report.as_text()
    assert all(line.isprintable() for line in text.splitlines())
    lines = 3 + sum(1 + bool(each.remedy) for each in report.findings) + len(report.servers)
    tables = 2 * (1 + len({each.table for each in report.mapping}))  # a blank line, and a head
    listed = len(report.candidates) + len(report.mapping)
    assert lines + tables + listed == text.count("\n") + 1
    assert json.loads(json.dumps(report.as_json()))["findings"]
    found, left = ({each.check for each in its.findings} for its in (report, after))
    assert {"indexes", "emails"} <= found - left
    assert "duplicates" in left  # which a policy shows


async def _checked(postgres, database: str, nats_url: str, said: dict[str, str]) -> Report:
    columns = ",".join(
        f"{field}={ident(said[name])}"
        for field, name in (
            *(("user.id", "id"), ("user.email", "email"), ("user.emailVerified", "verified")),
            ("member.organizationId", "organization"),
        )
    )
    variables = {
        "DATABASE_URL": postgres.url_of(database, said["role"]),
        "NATS_URL": nats_url,
        "RESPONDER_HTTP_AUTH": "disabled",
        "RESPONDER_USERS_TABLE": f"{ident(said['schema'])}.{ident(said['users'])}",
        "RESPONDER_MEMBERS_TABLE": f"{ident(said['schema'])}.{ident(said['members'])}",
        "RESPONDER_COLUMNS": columns,
    }
    return await checks.check(Settings.read(variables))


@pytest.fixture(scope="module")
async def nats_url():
    async with nats.running() as server:
        yield server.url
