"""Tables of many shapes are read as their application means them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.shapes import ADA, MEMBERS, PLAIN

ANSWER: dict[str, Any] = {
    "id": "1",
    "email": "ada@example.com",
    "emailVerified": True,
    "name": "Ada",
    "role": "user",
    "organizationId": None,
    "orgRole": None,
}
IN_ACME = {"organizationId": "acme", "orgRole": "staff"}


@dataclass(frozen=True)
class Shape:
    """Tables with Ada in them, the settings, and how her answer differs from ANSWER."""

    sql: str
    answer: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    organization: str | None = None  # one that lists Ada alone


SHAPES = {
    # Names.
    "NextAuth's leftovers: verified is a time": Shape("""
        create table "User" (id text primary key, name text, email text unique,
          "emailVerified" timestamp(3), image text);
        insert into "User" values ('1', 'Ada', 'ada@example.com', now(), null)"""),
    "a search path that leads nowhere": Shape(
        PLAIN + ADA + """do $$ begin execute format('alter database %I set search_path = nowhere',
          current_database()); end $$"""
    ),
    "a prefix for every table": Shape(
        """create table mail0_user (id text primary key, email text, email_verified boolean,
             name text);
           create table mail0_member (id text, user_id text, organization_id text, role text);
           insert into mail0_user values ('1', 'ada@example.com', true, 'Ada');
           insert into mail0_member values ('m', '1', 'acme', 'staff')""",
        IN_ACME,
        organization="acme",
    ),
    "camelCase and snake_case in one table": Shape("""
        create table app_user (id text primary key, email text, email_verified boolean, name text,
          "banReason" text, is_anonymous boolean, "isBanned" boolean);
        insert into app_user values ('1', 'ada@example.com', true, 'Ada', 'spam', true, true)""",
        {"banReason": "spam", "isAnonymous": True, "banned": False},
    ),
    "a name in two columns": Shape(
        """create table users (id text primary key, email text, email_verified boolean,
             "firstName" text, "lastName" text);
           insert into users values ('1', 'ada@example.com', true, 'Ada', 'Lovelace')""",
        settings={"RESPONDER_COLUMNS": "user.name=firstName"},
    ),
    "workspaces instead of organizations": Shape(
        PLAIN + ADA + """create table workspace_member (id text, user_id text, workspace_id text,
             role text);
           insert into workspace_member values ('m', '1', 'acme', 'staff')""",
        IN_ACME,
        {"RESPONDER_COLUMNS": "member.organizationId=workspace_id"},
        "acme",
    ),
    "memberships without roles, by the name of their table": Shape(
        PLAIN + ADA + """create table membership (account text, team text, joined_at timestamptz);
           insert into membership values ('1', 'acme', now())""",
        {"organizationId": "acme", "orgRole": None},
        {
            "RESPONDER_MEMBERS_TABLE": "membership",
            "RESPONDER_COLUMNS": "member.userId=account,member.organizationId=team,"
            "member.createdAt=joined_at",
        },
        "acme",
    ),
    "a column twice, as text and as a time": Shape(
        PLAIN + ADA + """alter table users add "createdAt" text, add created_at timestamp;
           alter table users add "banExpires" timestamp, add ban_expires text;
           update users set "banExpires" = '2030-01-01', ban_expires = 'never'""",
        {"banExpires": "2030-01-01T00:00:00.000Z"},
    ),
    "quotes, dots, spaces and keywords for names": Shape(
        '''create schema "my.schema"; create table "my.schema"."select" ("the ""id""" text,
             "a=b" text, "from, to" text);'''
        """insert into "my.schema"."select" values ('1', 'ada@example.com', 'Ada')""",
        {"emailVerified": False},
        {
            "RESPONDER_USERS_TABLE": '"my.schema"."select"',
            "RESPONDER_COLUMNS": 'user.id="the ""id""",user.email="a=b",user.name="from, to"',
        },
    ),
    "an override in snake_case": Shape(
        PLAIN + ADA + "alter table users add verified boolean; update users set verified = false",
        {"emailVerified": False},
        {"RESPONDER_COLUMNS": "user.email_verified=verified"},
    ),
    "one column for two fields": Shape(
        PLAIN + ADA + MEMBERS + "insert into members values ('1', 'acme', 'staff')",
        {"name": "ada@example.com", "organizationId": "acme", "orgRole": "acme"},
        {"RESPONDER_COLUMNS": "user.name=email,member.role=organizationId"},
        "acme",
    ),
    "a column that is not meant": Shape(
        PLAIN + ADA + "alter table users add role text default 'engineer'",
        {"role": "user"},
        {"RESPONDER_COLUMNS": "user.role="},
    ),
    # Which of several.
    "an application's own users beside Better Auth's": Shape("""
        create table users (id text primary key, email text, "emailVerified" boolean, name text);
        insert into users values ('1', 'crm@example.com', false, 'A customer');
        create table "user" (id text primary key, email text, "emailVerified" boolean, name text);
        create table session (id text, token text, "expiresAt" timestamp, "ipAddress" text,
          "userAgent" text, "userId" text references "user");
        insert into "user" values ('1', 'ada@example.com', true, 'Ada')"""),
    "only accounts refer to them, for sessions are in Redis": Shape("""
        create table users (id text primary key, email text, "emailVerified" boolean, name text);
        create table auth_user (like users including all);
        create table account (id text, account_id text, provider_id text,
          user_id text references auth_user);
        insert into auth_user values ('1', 'ada@example.com', true, 'Ada')"""),
    "members of teams beside members of organizations": Shape(
        PLAIN + ADA + """
        create table team_member (id text, "userId" text, "organizationId" text, role text);
        create table member (id text, "userId" text references users, "organizationId" text,
          role text);
        insert into team_member values ('t', '1', 'team', 'lead');
        insert into member values ('m', '1', 'acme', 'staff')""",
        IN_ACME,
        organization="acme",
    ),
    "a schema for each tenant, one of them named": Shape(
        "".join(
            f"""create schema {name}; create table {name}.users (id text, email text,
                  "emailVerified" boolean, name text);
                insert into {name}.users values ('1', 'ada@{domain}', true, 'Ada');"""
            for name, domain in (("a", "elsewhere"), ("b", "example.com"), ("c", "nowhere"))
        ),
        settings={"RESPONDER_USERS_TABLE": "b.users"},
    ),
    "a view on them": Shape("""
        create table base (uid text primary key, mail text, verified_at timestamptz, label text);
        insert into base values ('1', 'ada@example.com', now(), 'Ada');
        create view users as select uid as id, mail as email, verified_at as "emailVerified",
          label as name from base"""),
    "a materialized view": Shape("""
        create table base as select '1' as id, 'ada@example.com' as email, true as v, 'Ada' as name;
        create materialized view users as
          select id, email, v as "emailVerified", name from base"""),
    "a partitioned table": Shape("""
        create table users (id text, email text, "emailVerified" boolean, name text)
          partition by hash (id);
        create table users_0 partition of users for values with (modulus 2, remainder 0);
        create table users_1 partition of users for values with (modulus 2, remainder 1);
        """ + ADA),
    # Types of ids.
    "ids of fixed length": Shape(
        """create table users (id char(36) primary key, email char(80), "emailVerified" boolean,
             name varchar(80));
           create table members ("userId" char(36), "organizationId" char(10), role varchar(9));
           insert into users values ('1', 'ada@example.com', true, 'Ada');
           insert into members values ('1', 'acme', 'staff')""",
        IN_ACME,
        organization="acme",
    ),
    "small integers": Shape(
        """create table users (id smallint primary key, email text, "emailVerified" boolean,
             name text);
           create table members ("userId" bigint, "organizationId" smallint, role text);
           insert into users values (1, 'ada@example.com', true, 'Ada');
           insert into members values (1, 7, 'staff')""",
        {"organizationId": "7", "orgRole": "staff"},
        organization="7",
    ),
    "uuids, referred to by text": Shape(
        """create table users (id uuid primary key, email text, "emailVerified" boolean, name text);
           create table members ("userId" text, "organizationId" uuid, role text);
           insert into users
           values ('00000000-0000-4000-8000-00000000000a', 'ada@example.com', true, 'Ada');
           insert into members
           select id, '00000000-0000-4000-8000-00000000000b', 'staff' from users;
           insert into members
           values ('not a uuid', '00000000-0000-4000-8000-00000000000b', 'x')""",
        {
            "id": "00000000-0000-4000-8000-00000000000a",
            "organizationId": "00000000-0000-4000-8000-00000000000b",
            "orgRole": "staff",
        },
        organization="00000000-0000-4000-8000-00000000000B",
    ),
    "text, referred to by uuids": Shape(
        """create table users (id text primary key, email text, "emailVerified" boolean, name text);
           create table members ("userId" uuid, "organizationId" text, role text);
           insert into users
           values ('00000000-0000-4000-8000-00000000000a', 'ada@example.com', true, 'Ada'),
             ('not a uuid', 'no@example.com', false, 'No');
           insert into members values ('00000000-0000-4000-8000-00000000000a', 'acme', 'staff')""",
        {"id": "00000000-0000-4000-8000-00000000000a", **IN_ACME},
        organization="acme",
    ),
    "text, referred to by integers": Shape(
        PLAIN + ADA + """insert into users values ('x', 'x@example.com', true, 'X');
           create table members ("userId" int, "organizationId" text, role text);
           insert into members values (1, 'acme', 'staff')""",
        IN_ACME,
        organization="acme",
    ),
    "domains": Shape("""
        create domain user_id as text check (length(value) < 99); create domain mail as varchar(99);
        create domain yes as boolean;
        create table users (id user_id primary key, email mail, "emailVerified" yes, name text);
        """ + ADA),
    "generated and identity columns": Shape("""
        create table users (id int generated always as identity primary key, email text,
          "emailVerified" boolean generated always as (email is not null) stored, name text);
        insert into users (email, name) values ('ada@example.com', 'Ada')"""),
    # Types of everything else.
    "verified as a word": Shape(PLAIN.replace("boolean", "text") + ADA),
    "verified as a number": Shape(
        PLAIN.replace("boolean", "smallint") + ADA.replace("true", "1")
        + "alter table users add banned int"
    ),
    "verified on a day": Shape(
        PLAIN.replace("boolean", "date") + ADA.replace("true", "'2020-01-01'")
    ),
    "flags with words for no": Shape(
        PLAIN + ADA + """alter table users add banned text default 'No',
             add is_anonymous text default 'OFF';
           alter table users alter "emailVerified" type text using ' '""",
        {"emailVerified": True, "banned": False, "isAnonymous": False},
    ),
    "roles as an enum": Shape(
        PLAIN + ADA + """create type level as enum ('OWNER', 'STAFF');
           create type r as enum ('ADMIN');
           alter table users add role r default 'ADMIN';
           create table members ("userId" text, "organizationId" text, role level);
           insert into members values ('1', 'acme', 'STAFF')""",
        {"role": "ADMIN", "organizationId": "acme", "orgRole": "STAFF"},
        organization="acme",
    ),
    "roles as lists": Shape(
        PLAIN + ADA + """create type r as enum ('admin', 'support');
           alter table users add role r[] default '{admin,support}';
           create table members ("userId" text, "organizationId" text, role text[]);
           insert into members values ('1', 'acme', '{admin,staff}')""",
        {"role": "admin,support", "organizationId": "acme", "orgRole": "admin,staff"},
        organization="acme",
    ),
    "a role that is an empty list": Shape(
        PLAIN + ADA + "alter table users add role text[] default '{}'"
    ),
    "a ban until a day, in a zone": Shape(
        PLAIN + ADA + "alter table users add ban_expires date default '2030-01-02'",
        {"banExpires": "2030-01-01T23:00:00.000Z"},
        {"RESPONDER_TIMEZONE": "Europe/Berlin"},
    ),
    "a ban without end": Shape(
        PLAIN + ADA + """alter table users add "banExpires" timestamp default 'infinity',
             add banned bool default true""",
        {"banExpires": None, "banned": True},
    ),
    # What is not there.
    "a password and a deletion, which are never read": Shape(
        PLAIN + ADA + """alter table users add password text default 'hunter2',
             add deleted_at timestamptz"""
    ),
    "no members on purpose": Shape(
        PLAIN + ADA + MEMBERS + "insert into members values ('1', 'acme', 'staff')",
        settings={"RESPONDER_MEMBERS_TABLE": "off"},
    ),
    "memberships without id, time, or anything to tell them apart": Shape(
        PLAIN + ADA + MEMBERS
        + "insert into members values ('1', 'acme', 'staff'), ('1', 'acme', 'staff')",
        IN_ACME,
        organization="acme",
    ),
    "memberships of people who are gone": Shape(
        PLAIN + ADA + MEMBERS
        + "insert into members values ('1', 'acme', 'staff'), ('2', 'acme', 'ghost')",
        IN_ACME,
        organization="acme",
    ),
    "columns that were dropped": Shape(
        PLAIN + ADA + """alter table users add banned text, add role bytea;
           alter table users drop banned, drop role"""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
async def test_ada_is_read_from(start_with, name):
    """By id, by email, by ids and by organization, Ada has what her application stored."""
    shape = SHAPES[name]
    service = await start_with(shape.sql, empty=True, **shape.settings)
    expected = ANSWER | shape.answer

    answers = [
        (await service.ask("users.get", expected["id"])).json,
        (await service.ask("users.by_email", "Ada@Example.com")).json,
        (await service.ask("users.get_many", {"ids": [expected["id"], "?"]})).json["users"][0],
    ]
    listed = await service.ask("users.org_list", {"organizationId": shape.organization or "acme"})
    if shape.organization:
        answers += listed.json["users"]

    assert [expected] * len(answers) == [{key: each[key] for key in expected} for each in answers]
    assert (4 if shape.organization else 3) == len(answers)
    assert "hunter2" not in str(answers)


# The extension citext, as far as lookups use it; not every PostgreSQL has it.
CITEXT = """
create schema extensions; set search_path = extensions, public; create type citext;
create function citextin(cstring) returns citext language internal immutable strict as 'textin';
create function citextout(citext) returns cstring language internal immutable strict as 'textout';
create type citext (input = citextin, output = citextout, like = text, category = 'S');
create cast (citext as text) without function as implicit;
create cast (text as citext) without function as assignment;
create function cmp(citext, citext) returns int immutable language sql
  as 'select bttextcmp(lower($1::text), lower($2::text))';
do $do$ declare o text; begin
  foreach o in array array['<', '<=', '=', '>=', '>'] loop
    execute format('create function %I(citext, citext) returns bool immutable language sql as
      $$select lower($1::text) %s lower($2::text)$$', 'is' || o, o);
    execute format('create operator %s (leftarg = citext, rightarg = citext, function = %I)',
      o, 'is' || o);
  end loop;
end $do$;
create operator class ci default for type citext using btree as operator 1 <, operator 2 <=,
  operator 3 =, operator 4 >=, operator 5 >, function 1 cmp(citext, citext);
reset search_path;
"""


@pytest.mark.parametrize("search_path", ["public", "public, extensions"])
async def test_text_that_ignores_case(create_database, start, search_path):
    """Emails and ids of type citext are compared without case, in whatever schema the type is."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(
        CITEXT
        + """
        create table users (id extensions.citext, email extensions.citext, email_verified bool,
          name text);
        create table members (user_id extensions.citext, organization_id extensions.citext,
          role text);
        insert into users values ('One', 'Ada@Example.com', true, 'Ada');
        insert into members values ('ONE', 'Acme', 'staff');
    """
    )
    await admin.execute(f"alter database {url.rpartition('/')[2]} set search_path = {search_path}")
    await admin.close()
    service = await start(url)

    answers = [
        (await service.ask("users.get", "oNe")).json,
        (await service.ask("users.get", {"id": "one", "organizationId": "ACME"})).json,
        (await service.ask("users.by_email", "ada@EXAMPLE.com")).json,
        *(await service.ask("users.get_many", {"ids": ["ONE", "two"]})).json["users"],
        *(await service.ask("users.org_list", "aCME")).json["users"],
    ]

    assert [("One", "Ada@Example.com", "Acme", "staff")] * 5 == [
        (each["id"], each["email"], each["organizationId"], each["orgRole"]) for each in answers
    ]


async def test_a_schema_in_the_connection_string_decides(create_database, start):
    """Of two tables, the one in the schema of Prisma's `schema` parameter is read."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(PLAIN + "create schema auth; create table auth.users (like users);" + ADA)
    await admin.execute("insert into auth.users select '1', 'auth@example.com', true, 'Auth'")
    await admin.close()
    service = await start(f"{url}?schema=auth")

    assert "Auth" == (await service.ask("users.get", "1")).json["name"]
