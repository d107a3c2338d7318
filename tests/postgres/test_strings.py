r"""Constants in SQL are right where the database takes a backslash for an escape.

`standard_conforming_strings = off` is how PostgreSQL read constants before 9.1; a database or a
role may still be set to it. In `'a\'` the quote is escaped then, and the constant goes on.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from responder import cli
from responder.postgres.quoting import ident, literal

ROLE = """back\\slash \\' "quoted" o'clock\\"""
TABLE = "user\\s' or true; --\\"
OFF = "alter database {} set standard_conforming_strings = off"
NAMES = f"""
create table {ident(TABLE)} (id uuid primary key, email text, "emailVerified" boolean,
  "na\\me'" text, "banExpires" timestamp);
create table "me\\mber" (id text, "organizationId" text, "userId" text, role text,
  "createdAt" timestamptz);
insert into {ident(TABLE)} values
  ('00000000-0000-0000-0000-000000000001', 'ann@example.com', true, 'Ann', '2030-01-01');
insert into "me\\mber" values
  ('m', 'acme', '00000000-0000-0000-0000-000000000001', 'owner', '2020-01-01')
"""
SETTINGS = {
    "RESPONDER_USERS_TABLE": TABLE,
    "RESPONDER_MEMBERS_TABLE": "me\\mber",
    "RESPONDER_COLUMNS": "user.name=na\\me'",
    "RESPONDER_TIMEZONE": "Europe/Berlin",
}


@pytest.fixture
async def old_fashioned(create_database):
    """The URL of a database in which a backslash escapes, with names that have one."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    database = await connection.fetchval("select current_database()")
    await connection.execute(f"{NAMES}; {OFF.format(database)}")
    await connection.close()
    return url


@pytest.mark.parametrize(
    "text", ["", "plain", "o'clock", "\\", "\\'", "'\\", "\\\\''\\", "a\\nb", "\\x41", "\n"]
)
@pytest.mark.parametrize("setting", ["on", "off"])
async def test_a_constant_is_what_was_quoted(old_fashioned, text, setting):
    """Whatever the setting, PostgreSQL reads a constant as the text it was made of."""
    connection = await asyncpg.connect(old_fashioned)
    try:
        await connection.execute(f"set standard_conforming_strings = {setting}")
        read = await connection.fetchval(f"select {literal(text)}")
    finally:
        await connection.close()

    assert text == read


@pytest.mark.parametrize("pooled", ["", "?pgbouncer=true"])
async def test_every_lookup_answers_there(start, old_fashioned, pooled):
    """Tables whose names have backslashes and quotes are read, directly and through a pooler."""
    service = await start(old_fashioned + pooled, **SETTINGS)
    answers = [
        (await service.ask("users.get", "00000000-0000-0000-0000-000000000001")).json,
        (await service.ask("users.by_email", "ann@example.com")).json,
        (await service.ask("users.org_list", "acme")).json["users"][0],
    ]
    ready = (await service.admin.get("/ready")).text
    await service.database.execute(f'alter table {ident(TABLE)} drop column "na\\me\'"')
    await service.database.execute(f'alter table {ident(TABLE)} add column "na\\me\'" text')
    later = (await service.ask("users.get", "00000000-0000-0000-0000-000000000001")).json

    assert [("Ann", "2029-12-31T23:00:00.000Z", "owner")] * 3 == [
        (each["name"], each["banExpires"], each["orgRole"]) for each in answers
    ]
    assert "ready\n" == ready
    assert (None, "owner") == (later["name"], later["orgRole"])


@pytest.mark.parametrize("pooled", ["", "?pgbouncer=true"])
async def test_our_connections_say_what_they_mean(start, old_fashioned, pooled):
    """On connections of our own the setting is on, whatever the database says."""
    service = await start(old_fashioned + pooled, **SETTINGS)
    # A view tells how the connection that reads it is set.
    name = ident("na\\me'")
    await service.database.execute(f"""
        alter table {ident(TABLE)} rename to base;
        create view {ident(TABLE)} as select id, email, "emailVerified",
          current_setting('standard_conforming_strings') as {name}, "banExpires" from base
    """)
    answer = await service.ask("users.get", "00000000-0000-0000-0000-000000000001")

    assert "on" == answer.json["name"]


async def test_grants_are_right_there(old_fashioned, start, monkeypatch, capsys):
    """What `responder grants` prints makes the role that was named, and no other, and it works."""
    monkeypatch.setenv("DATABASE_URL", old_fashioned)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    await asyncio.to_thread(cli.main, ["grants", ROLE])
    sql = capsys.readouterr().out
    admin = await asyncpg.connect(old_fashioned)
    before = {name for (name,) in await admin.fetch("select rolname from pg_roles")}
    try:
        await admin.execute(sql)
        await admin.execute(sql)
        after = {name for (name,) in await admin.fetch("select rolname from pg_roles")}
        readable = await admin.fetchval(
            "select has_column_privilege($1, $2, 'email', 'select')", ROLE, ident(TABLE)
        )
    finally:
        await admin.execute(f"drop owned by {ident(ROLE)}; drop role {ident(ROLE)}")
        await admin.close()

    assert {ROLE} == after - before
    assert readable
