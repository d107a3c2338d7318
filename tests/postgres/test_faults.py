"""A view or a policy that raises is the operator's to mend: `unavailable`, and the cause is told.

See subjects.md, Errors, and docs/tables.md, Views and policies.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
from urllib.parse import urlsplit

import asyncpg
import pytest

from responder import checks
from responder.checks.report import BROKEN
from responder.dev.tokens import Mint
from responder.settings import Settings
from tests.roles import as_role

_numbers = itertools.count()

PEOPLE = """
create table people (number text primary key, address text, verified boolean, name text);
insert into people select n, n || '@example.com', true, 'user ' || n from generate_series(1, 40) n;
create table members (id text primary key, "organizationId" text, "userId" text, role text,
                      "createdAt" timestamptz);
insert into members
  select 'm' || n, 'acme', n, 'member', '2020-01-01'::timestamptz + n * interval '1 day'
  from generate_series(1, 40) n;
"""
VIEW = """create view users as select number as id, address as email, verified as "emailVerified",
            case when {bad} then {raises} else name end as name from people"""
PLAIN = """alter table people rename number to id; alter table people rename address to email;
           alter table people rename verified to "emailVerified"; alter table people rename to users
"""
# What a view may run that raises, by its SQLSTATE. Names inside of `fails` are looked up when it
# runs.
RAISES = {
    "22012": "(1 / (length(name) * 0))::text",
    "22P02": "('x' || name)::int::text",
    "22008": "('9999999-01-01')::text::timestamp::text",
    "42704": "current_setting('app.tenant')",
    "42883": "fails('select nothing()')",
    "42501": "fails('select rolpassword from pg_authid')",
    "42P01": "fails('select 1 from nowhere')",
    "42703": "fails('select nothing from public.people')",
    "25006": "fails('delete from public.people returning 1')",
    "P0001": "fails('select public.raised(''P0001'')')",
    "08001": "fails('select public.raised(''08001'')')",
    "08006": "fails('select public.raised(''08006'')')",
}
FUNCTIONS = """
create function raised(state text) returns text language plpgsql as $$
  begin raise exception 'hunter2 is the password' using errcode = state; end $$;
create function fails(query text) returns text language plpgsql security invoker as $$
  declare found text; begin execute query into found; return found; end $$;
"""
CAUSE = "public.users (a view) fails when it is read: "


@pytest.fixture
async def role(postgres):
    """A role that is no superuser, whom policies concern."""
    name = f"reader_{next(_numbers)}"
    admin = await asyncpg.connect(postgres.url)
    await admin.execute(f"create role {name} login")
    yield name
    await admin.execute(f"drop role {name}")
    await admin.close()


@pytest.fixture
async def database(create_database, role):
    """A function that makes a database by some statements; returns its URL for the role."""
    urls = []

    async def make(*statements: str) -> str:
        url = await create_database()
        urls.append(url)
        connection = await asyncpg.connect(url)
        for statement in (PEOPLE, FUNCTIONS, *statements):
            await connection.execute(statement)
        await connection.execute(f"grant select on all tables in schema public to {role}")
        await connection.close()
        return as_role(url, role)

    yield make
    for url in urls:
        connection = await asyncpg.connect(url)
        await connection.execute(
            f"""select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"""
        )
        await connection.execute(f"drop owned by {role}")
        await connection.close()


async def pids(service) -> set[int]:
    """The backends that serve the worker."""
    rows = await service.database.fetch(
        "select pid from pg_stat_activity where application_name = 'responder' "
        "and datname = current_database()"
    )
    return {pid for (pid,) in rows}


async def as_owner(server, service, *statements: str) -> None:
    """Run statements in a service's database as the owner of its tables."""
    name = urlsplit(service.url).path.removeprefix("/")
    connection = await asyncpg.connect(server.url_of(name))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def views(bad: str, state: str) -> str:
    return VIEW.format(bad=bad, raises=RAISES[state])


@pytest.mark.parametrize("state", RAISES)
async def test_a_row_that_a_view_cannot_compute_fails_alone(database, start, state, caplog):
    """Its user is `unavailable`, and nobody else; the log and /ready tell the cause, no value."""
    caplog.set_level(logging.DEBUG)
    service = await start(await database(views("number = '13'", state)))
    before = await pids(service)
    answers = await asyncio.gather(*(service.ask("users.get", str(n)) for n in range(1, 41)))
    again = await service.ask("users.get", "13")
    ready = await service.admin.get("/ready")

    assert {13: "unavailable"} == {n: each.code for n, each in enumerate(answers, 1) if each.code}
    assert [f"user {n}" for n in range(1, 41) if n != 13] == [
        each.json["name"] for each in answers if not each.code
    ]
    assert {
        "code": "unavailable",
        "message": "a view or a policy of the database fails",
    } == again.json
    assert 200 == ready.status_code
    assert f"warning: a lookup has failed: {CAUSE}" in ready.text
    assert f"[{state}]" in ready.text
    written = [each.getMessage() for each in caplog.records]
    assert 1 == sum(line.startswith(CAUSE) and line.endswith(f"[{state}]") for line in written)
    assert "hunter2" not in caplog.text
    assert before == await pids(service)


@pytest.mark.parametrize(
    "state",
    ["22012", "42704", *(pytest.param(each, marks=pytest.mark.heavy) for each in RAISES)],
)
async def test_a_view_that_computes_no_row_is_not_ready(postgres, database, start, state):
    """Where all rows fail, /ready says so and why, before a caller has asked; and after mending."""
    service = await start(await database(views("true", state)))
    ready = await service.admin.get("/ready")
    answers = [
        await service.ask("users.get", "1"),
        await service.ask("users.by_email", "2@example.com"),
        await service.ask("users.get_many", {"ids": ["3", "4"]}),
        await service.ask("users.org_list", "acme"),
    ]
    absent = await service.ask("users.get", "nobody")
    await as_owner(
        postgres,
        service,
        VIEW.replace("create", "create or replace").format(bad="false", raises="''"),
    )
    mended = await service.admin.get("/ready")

    assert 503 == ready.status_code
    assert ready.text.startswith(f"not ready: {CAUSE}")
    assert f"[{state}]" in ready.text
    assert ["unavailable"] * 4 == [each.code for each in answers]
    assert "not_found" == absent.code
    assert 200 == mended.status_code


POLICIES = {
    "42704": "current_setting('app.tenant') = id",
    "22P02": "(id || 'x')::int > 0",
    "42501": "forbidden(id)",
    "42883": "fails('select nothing()') = id",
    "P0001": "raised('P0001') = id",
}
POLICY = """
create function forbidden(id text) returns boolean language sql as 'select true';
revoke execute on function forbidden(text) from public;
alter table {table} enable row level security;
create policy "tenant isolation" on {table} for select using ({using})
"""


@pytest.mark.parametrize("table", ["users", "members"])
@pytest.mark.parametrize(
    "state", ["42704", *(pytest.param(each, marks=pytest.mark.heavy) for each in POLICIES)]
)
async def test_a_policy_that_raises(database, start, state, table):
    """The same where a policy of row-level security raises, of users or of members."""
    url = await database(PLAIN, POLICY.format(table=table, using=POLICIES[state]))
    service = await start(url)
    ready = await service.admin.get("/ready")
    answers = [
        await service.ask("users.get", "1"),
        await service.ask("users.by_email", "2@example.com"),
        await service.ask("users.get_many", {"ids": ["3", "4"]}),
        await service.ask("users.org_list", "acme"),
    ]
    settings = Settings.read(
        {"DATABASE_URL": url, "NATS_URL": service.nats.url, "RESPONDER_HTTP_AUTH": "disabled"}
    )
    report = await checks.check(settings)

    assert 503 == ready.status_code
    assert f"not ready: public.{table} (row-level security) fails when it is read: " in ready.text
    assert f"[{state}]" in ready.text
    assert ["unavailable"] * 4 == [each.code for each in answers]
    (finding,) = [each for each in report.findings if each.check == "rows"]
    assert BROKEN == finding.severity
    assert f"[{state}]" in finding.message
    assert 'Mend the policy that raises, of "tenant isolation"' in finding.remedy
    assert not report.good


async def test_a_policy_that_raises_on_behalf_of_callers(postgres, database, start, tmp_path):
    """Callers with a token are told the same."""
    mint = Mint()
    url = await database(PLAIN)
    service = await start(url, **mint.publish(tmp_path / "jwks.json"))
    headers = {"Authorization": f"Bearer {mint.token('1')}"}
    before = await service.ask("users.get", "2", headers)
    await as_owner(postgres, service, POLICY.format(table="users", using=POLICIES["42704"]))
    codes = [
        (await service.ask(subject, payload, headers)).code
        for subject, payload in (
            ("users.get", "2"),
            ("users.whoami", ""),
            ("users.org_list", "acme"),
        )
    ]

    assert before.code is None
    assert ["unavailable"] * 3 == codes


async def test_one_bad_row_at_the_beginning_leaves_the_worker_ready(database, start):
    """A caller cannot make a worker unready by a row, wherever it is."""
    service = await start(await database(views("number in ('1', '2')", "22012")))
    asked = [(await service.ask("users.get", str(n))).code for n in (1, 2, 3)]
    ready = await service.admin.get("/ready")

    assert ["unavailable", "unavailable", None] == asked
    assert 200 == ready.status_code


async def test_a_slow_view_leaves_the_worker_ready(database, start):
    """A view that takes too long to read a row from is not taken for one that fails."""
    service = await start(await database(views("pg_sleep(9)::text is not null", "22012")))
    ready = [(await service.admin.get("/ready")).text for _ in range(3)]

    assert ["ready\n"] * 3 == ready


async def test_a_cursor_is_not_blamed_for_a_view(database, start):
    """A page whose rows a view refuses is unavailable, and a cursor that is none is invalid."""
    service = await start(
        await database(
            """create index on members ("organizationId", "createdAt", id);
               alter table members rename to base; alter table base rename role to duty;
               create view members as select id, "organizationId", "userId", "createdAt",
                 case when id = 'm20' then ('x' || duty)::int::text else duty end as role
                 from base""",
            PLAIN,
        )
    )
    first = await service.ask("users.org_list", {"organizationId": "acme", "limit": 10})
    again = {"organizationId": "acme", "cursor": first.json["nextCursor"]}
    second = await service.ask("users.org_list", {**again, "limit": 5})
    third = await service.ask("users.org_list", {**again, "limit": 20})
    odd = base64.urlsafe_b64encode(json.dumps(["acme", "yesterday-ish", "m1"]).encode())
    invalid = await service.ask(
        "users.org_list", {"organizationId": "acme", "cursor": odd.rstrip(b"=").decode()}
    )

    assert [None, None, "unavailable", "invalid_request"] == [
        each.code for each in (first, second, third, invalid)
    ]


async def test_virtual_columns_are_the_operators_too(database, start):
    """A column that PostgreSQL computes when it is read may raise, of a table without a view."""
    service = await start(
        await database(
            """alter table people drop column name,
                 add name text generated always as (case when number = '13'
                   then (1 / (length(number) - 2))::text else address end) virtual""",
            PLAIN,
        )
    )
    answers = [(await service.ask("users.get", str(n))).code for n in (12, 13, 14)]

    assert [None, "unavailable", None] == answers
    assert "public.users (virtual columns)" in (await service.admin.get("/ready")).text


async def test_plain_tables_are_not_blamed(database, start, monkeypatch):
    """What fails in a plain table is a bug, and says only that it is one."""
    service = await start(await database(PLAIN))
    monkeypatch.setattr("responder.replies.user", lambda *_: 1 / 0)
    answer = await service.ask("users.get", "1")

    assert {"code": "internal", "message": "internal error"} == answer.json
    assert "ready\n" == (await service.admin.get("/ready")).text


async def test_check_finds_a_single_bad_row(database, start):
    """`check` reads many rows, and so finds the one that fails."""
    service = await start(await database(views("number = '31'", "22012")))
    report = await checks.check(
        Settings.read({"DATABASE_URL": service.url, "NATS_URL": service.nats.url})
    )

    (finding,) = [each for each in report.findings if each.check == "rows"]
    assert (BROKEN, f"{CAUSE}DivisionByZeroError [22012]") == (finding.severity, finding.message)
    assert 'select "id", "email", "emailVerified", "name" from "public"."users";' in finding.remedy


async def test_migrations_of_views_are_followed(postgres, database, start):
    """A view replaced under a worker by one with other columns is read anew, and no fault."""
    service = await start(await database(views("false", "22012")))
    before = await service.ask("users.get", "1")
    await as_owner(
        postgres,
        service,
        """drop view users; create view users as
           select number as id, address as email, verified as "emailVerified",
             upper(name) as name, 'admin' as role from people""",
        f"grant select on users to {service.settings.dsn.user}",
    )
    after = await service.ask("users.get", "1")

    assert (None, None) == (before.code, after.code)
    assert ("USER 1", "admin") == (after.json["name"], after.json["role"])
    assert "ready\n" == (await service.admin.get("/ready")).text
