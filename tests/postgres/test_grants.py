"""`responder grants`: a role that may do what responder does, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from responder import checks, cli
from responder.postgres.dsn import parse
from responder.postgres.grants import grants_for
from responder.postgres.overrides import NO_OVERRIDES
from responder.settings import Settings
from tests.roles import as_role
from tests.shapes import core

ROLE = 'least "privilege"'


@pytest.fixture
async def granted(create_database, template, monkeypatch, capsys) -> AsyncIterator[tuple[str, str]]:
    """A database as its owner sees it, and as the role does that `responder grants` makes."""
    url = await create_database(template=template[0])
    monkeypatch.setenv("DATABASE_URL", url)
    await asyncio.to_thread(cli.main, ["grants", ROLE])
    sql = capsys.readouterr().out
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(sql)
        await admin.execute(sql)  # as often as one likes
        yield url, as_role(url, ROLE)
    finally:
        await admin.execute('drop owned by "least ""privilege"""; drop role "least ""privilege"""')
        await admin.close()


@pytest.mark.parametrize(
    "statement",
    [
        "select password from accounts",
        "select token from sessions",
        'select "privateKey" from jwks',
        'select "updatedAt" from users',
        "select * from users",
        "insert into users (id) values ('x')",
        "update users set name = 'x'",
        "delete from members",
        "truncate members",
        "create table public.x ()",
    ],
)
async def test_the_role_may_not(granted, statement):
    """Secrets, columns that responder does not need and all writes are refused by PostgreSQL."""
    connection = await asyncpg.connect(granted[1])
    try:
        if "create" in statement and connection.get_server_version() < (15,):
            pytest.skip("in PostgreSQL 14 every role may create tables in the schema public")
        await connection.execute("set default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_role_may_do_all_that_responder_does(granted, people_service, start, cast):
    """Every lookup answers as it does for the owner, and `check` finds nothing broken."""
    service = await start(granted[1])
    requests = [
        ("users.get", cast.owner.id),
        ("users.by_email", cast.banned.email),
        ("users.get_many", {"ids": [cast.owner.id, "nobody"]}),
        ("users.org_list", {"organizationId": cast.organization.id}),
    ]

    expected = [(await people_service.ask(*request)).json for request in requests]
    answers = [(await service.ask(*request)).json for request in requests]
    report = await checks.check(
        Settings.read(
            {
                "DATABASE_URL": granted[1],
                "NATS_URL": service.nats.url,
                "RESPONDER_HTTP_AUTH": "disabled",
            }
        )
    )

    assert expected == answers
    assert [] == [each for each in report.findings if each.check == "privileges"]
    assert report.good


async def test_the_role_is_read_only_and_patient_by_itself(granted):
    """The role itself has the settings that a connection through a pooler cannot set."""
    connection = await asyncpg.connect(granted[1])
    try:
        settings = [
            await connection.fetchval(f"show {name}")
            for name in ("default_transaction_read_only", "statement_timeout")
        ]
    finally:
        await connection.close()

    assert ["on", "5s"] == settings


async def test_a_role_without_privileges_can_ask_what_it_needs(granted, capsys, monkeypatch):
    """The SQL is the same for a role without privileges and for the owner of the tables."""
    monkeypatch.setenv("DATABASE_URL", granted[1])
    await asyncio.to_thread(cli.main, ["grants", ROLE])
    by_role = capsys.readouterr().out
    monkeypatch.setenv("DATABASE_URL", granted[0])
    await asyncio.to_thread(cli.main, ["grants", ROLE])

    assert capsys.readouterr().out == by_role
    assert "password" not in by_role.partition("do '")[2]


@pytest.mark.parametrize(
    ("environment", "status", "message"),
    [
        ({"DATABASE_URL": ""}, 2, "DATABASE_URL: required"),
        ({"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/x"}, 1, "cannot connect to PostgreSQL"),
    ],
)
def test_without_a_database_it_says_so(monkeypatch, capsys, environment, status, message):
    """Wrong use is 2, a database out of reach 1; neither shows the password."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert status == cli.main(["grants"])

    errors = capsys.readouterr().err
    assert message in errors
    assert "hunter2" not in errors


async def test_the_role_looks_where_the_application_does(create_database, start):
    """Where a setting of the application's role says which tables are meant, the role that is
    granted has it, too.
    """
    url = await create_database()
    admin = await asyncpg.connect(url)
    database = url.rpartition("/")[2]
    try:
        for name in ("blog", "shop"):
            await admin.execute(
                f'{core(schema=name)} insert into {name}."user" (id, name, email) '
                f"values ('1', '{name}', 'x@example.com')"
            )
        await admin.execute(f"""
            drop role if exists looks; create role looks login superuser; create role granted login;
            alter role looks in database {database} set search_path = "$user", shop, blog""")
        dsn = parse(as_role(url, "looks"))
        sql = await grants_for(dsn, NO_OVERRIDES, role="granted")
        await admin.execute(sql)
        services = [await start(as_role(url, role)) for role in ("looks", "granted")]
        answers = [(await each.ask("users.get", "1")).json["name"] for each in services]
    finally:
        await admin.execute("drop owned by granted; drop role granted; drop role looks")
        await admin.close()

    assert ["shop", "shop"] == answers


@pytest.mark.parametrize("above", ["with (security_invoker = on)", ""])
async def test_views_that_check_their_reader_are_granted_what_they_read(
    create_database, start, monkeypatch, capsys, above
):
    """With security_invoker the role needs what a view reads, whatever the view above it is."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    if admin.get_server_version() < (15,):
        await admin.close()
        pytest.skip("views of PostgreSQL 14 have no security_invoker")
    await admin.execute(f"""
        create schema hidden;
        create table hidden.people (id text, mail text, ok boolean, secret text);
        insert into hidden.people values ('1', 'ada@example.com', true, 's');
        create view hidden.some with (security_invoker) as
          select id, mail, ok from hidden.people where id <> '';
        create view users {above} as
          select id, mail as email, ok as "emailVerified" from hidden.some;
    """)
    monkeypatch.setenv("DATABASE_URL", url)
    await asyncio.to_thread(cli.main, ["grants", "invoker"])
    await admin.execute(capsys.readouterr().out)
    try:
        service = await start(as_role(url, "invoker"), RESPONDER_HTTP_LISTEN="off")
        user = await service.ask("users.get", "1")
        query = "select has_column_privilege('invoker', 'hidden.people', 'secret', 'select')"
        secret = await admin.fetchval(query)
    finally:
        await admin.execute("drop owned by invoker; drop role invoker")
        await admin.close()

    assert "ada@example.com" == user.json.get("email")
    assert not secret
