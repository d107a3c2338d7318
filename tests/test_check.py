"""`responder check`: what it finds, and that what it says to do mends it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from responder import checks, cli
from responder.checks import BROKEN, NOTE, WARNING, Report
from responder.dev import nats
from responder.endpoints import ENDPOINTS, SERVICE
from responder.nats.service import VERBS, subjects
from responder.settings import Settings

pytestmark = pytest.mark.heavy

SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture(scope="module")
async def server():
    async with nats.running() as server:
        yield server


@pytest.fixture
async def check(server, create_database, template):
    """A function that checks a database after some statements have changed it."""

    async def begin(
        *statements: str, fixture: str = "", user: str = "", **variables: str
    ) -> Report:
        url = await create_database(template=None if fixture else template[0])
        connection = await asyncpg.connect(url)
        try:
            if fixture:
                await connection.execute((SCHEMAS / f"{fixture}.sql").read_text())
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()
        if user:
            url = url.replace("//postgres@", f"//{user}@")
        return await checks.check(
            Settings.read(
                {
                    "DATABASE_URL": url,
                    "NATS_URL": server.url,
                    "RESPONDER_HTTP_AUTH": "disabled",
                    **variables,
                }
            )
        )

    return begin


def found(report: Report, name: str) -> list[tuple[str, str]]:
    return [(each.severity, each.message) for each in report.findings if each.check == name]


async def test_a_database_of_better_auths_is_good(check):
    """Better Auth's own tables have nothing broken; the mapping shows every field."""
    report = await check()

    assert report.good
    assert ("public.users", "banReason", "banReason", "text", False) == next(
        (each.table, each.field, each.column, each.type, each.by_hand)
        for each in report.mapping
        if each.field == "banReason"
    )
    assert 18 == len(report.mapping)
    assert ["nats", "postgres", "workers"] == sorted(report.servers)


@pytest.mark.parametrize(
    "fixture", ["kysely-1.0", "prisma-1.0", "drizzle-1.3-serial", "kysely-1.7"]
)
async def test_the_indexes_it_says_are_missing_are_those(check, create_database, fixture, server):
    """What it prints runs as it is printed, and then there is nothing missing."""
    report = await check(fixture=fixture)
    remedies = [each.remedy for each in report.findings if each.check == "indexes"]

    mended = await check(*remedies, fixture=fixture)

    expected = [NOTE] if fixture == "kysely-1.7" else [WARNING, WARNING]
    assert expected == [severity for severity, _ in found(report, "indexes")]
    assert all("index concurrently on " in remedy for remedy in remedies)
    assert [] == found(mended, "indexes")


async def test_what_is_wrong_with_the_rows_is_counted(check, cast):
    """Emails nobody finds and people who are members twice are counted, and never shown."""
    report = await check(
        "update users set email = upper(email) where id in (select id from users limit 3)",
        """insert into members (id, "organizationId", "userId", role, "createdAt")
           select 'x' || id, "organizationId", "userId", role, now() from members limit 2""",
    )

    assert [(WARNING, "3 emails in public.users are not in lower case")] == [
        (severity, message.partition(":")[0]) for severity, message in found(report, "emails")
    ]
    assert NOTE == found(report, "duplicates")[0][0]
    assert "@" not in report.as_text()
    assert cast.owner.id not in report.as_text()


async def test_emails_that_would_be_the_same_are_left_to_the_operator(create_database, server):
    """The remedy for mixed case runs beside accounts that differ in case only, and leaves those alone."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("""
            create table users (id text primary key, email text unique, "emailVerified" boolean);
            insert into users values ('1', 'ada@example.com'), ('2', 'ADA@example.com'),
              ('3', 'BOB@example.com'), ('4', 'Cyd@example.com'), ('5', 'CYD@example.com')""")
        settings = Settings.read({"DATABASE_URL": url, "NATS_URL": server.url})
        report = await checks.check(settings)
        (finding,) = [each for each in report.findings if each.check == "emails"]
        await connection.execute(finding.remedy)
        emails = await connection.fetch("select email from users order by id")
    finally:
        await connection.close()

    assert finding.message.startswith("4 emails")
    assert "3 of them differ from another one in case only" in finding.message
    assert ["ada@example.com", "ADA@example.com", "bob@example.com"] == [
        each["email"] for each in emails[:3]
    ]


async def test_an_index_in_another_order_does_not_make_pages_flat(check):
    """An index whose order is not that of the pages is no reason to say nothing."""
    columns = '"organizationId", "createdAt"{}, id{}'
    reports = {
        order: await check(
            f"drop index if exists flat; create index flat on members ({columns.format(*order)})"
        )
        for order in (("", ""), (" desc", ""), (" desc", " desc"))
    }

    assert {("", ""): 0, (" desc", ""): 1, (" desc", " desc"): 0} == {
        order: len(found(report, "indexes")) for order, report in reports.items()
    }


async def test_row_security_without_a_policy_is_broken(check):
    """A role that sees no row is told so, with the policy that would let it."""
    await check("drop role if exists blinded; create role blinded login")
    hidden = await check(
        "grant select on users, members to blinded; alter table users enable row level security",
        user="blinded",
    )

    ((severity, _),) = found(hidden, "row-level security")
    remedies = [each.remedy for each in hidden.findings if each.check == "row-level security"]
    assert BROKEN == severity
    assert [
        'create policy responder on "public"."users" for select to "blinded" using (true);'
    ] == (remedies)


async def test_a_column_that_is_called_otherwise_is_suggested(check):
    """A field Better Auth has always had, and that is missing, is pointed out with what is near."""
    report = await check('alter table users rename column name to "firstName"')

    ((severity, message),) = found(report, "fields")
    assert WARNING == severity
    assert "Could it be firstName?" in message


async def test_a_column_by_hand_is_shown_as_such(check):
    """The mapping says what the operator has said."""
    report = await check(
        'alter table users rename column name to "firstName"',
        RESPONDER_COLUMNS="user.name=firstName",
    )

    assert ["name"] == [each.field for each in report.mapping if each.by_hand]
    assert "name            firstName               text          set by hand" in report.as_text()


async def test_a_time_zone_nobody_knows_is_broken(check):
    """What ends the start of a worker is found before."""
    report = await check(RESPONDER_TIMEZONE="Mars/Phobos")

    assert BROKEN == found(report, "times")[0][0]


async def test_tables_that_are_missing_or_ambiguous_are_broken(check):
    """What would keep a worker from answering is broken, with the worker's own words."""
    missing = await check("drop table users cascade")
    ambiguous = await check(
        "create table crm as select * from users; drop table sessions, accounts cascade"
    )

    assert BROKEN == found(missing, "tables")[0][0]
    assert "RESPONDER_USERS_TABLE decides" in found(ambiguous, "tables")[0][1]


async def test_permissions_of_nats(create_database, template):
    """Subjects that NATS does not permit are named, those that it does are not."""
    config = """
        authorization { users = [{ user: w, password: w, permissions: {
          subscribe: ["users.get", "_INBOX.>"], publish: ["_INBOX.>", "$SRV.>"] } }] }"""
    async with nats.running(config=config) as server:
        url = await create_database(template=template[0])
        report = await checks.check(
            Settings.read(
                {
                    "DATABASE_URL": url,
                    "NATS_URL": server.url,
                    "NATS_USER": "w",
                    "NATS_PASSWORD": "w",
                }
            )
        )

    messages = [message for _, message in found(report, "nats")]
    assert any(message.endswith(" users.by_email") for message in messages)
    assert not any(message.endswith(" users.get") for message in messages)
    assert not report.good


SUBJECTS = [
    *(endpoint.subject("users") for endpoint in ENDPOINTS),
    *(each for verb in VERBS for each in subjects(verb, name=SERVICE, id="*")),
]


async def test_each_subject_that_nats_does_not_permit_is_named():
    """Denied one subject that a worker listens on, check names that one and no other."""
    users = [
        f'{{ user: u{n}, password: w, permissions: {{ subscribe: {{ deny: "{subject}" }} }} }}'
        for n, subject in enumerate(SUBJECTS)
    ]
    named = {}
    async with nats.running(config=f"authorization {{ users = [{', '.join(users)}] }}") as server:
        for n, subject in enumerate(SUBJECTS):
            report = await checks.check(
                Settings.read({"NATS_URL": server.url, "NATS_USER": f"u{n}", "NATS_PASSWORD": "w"})
            )
            named[subject] = [
                (severity, message.rpartition(" ")[2])
                for severity, message in found(report, "nats")
            ]

    severities = ["broken"] * len(ENDPOINTS) + ["warning"] * (len(SUBJECTS) - len(ENDPOINTS))
    assert {
        subject: [(severity, subject)]
        for subject, severity in zip(SUBJECTS, severities, strict=True)
    } == named


async def test_what_is_out_of_reach_is_said_and_the_rest_is_looked_at(
    server, create_database, template
):
    """Without NATS the tables are checked, without PostgreSQL NATS is."""
    url = await create_database(template=template[0])
    no_nats = await checks.check(
        Settings.read({"DATABASE_URL": url, "NATS_URL": "nats://127.0.0.1:1"})
    )
    no_postgres = await checks.check(
        Settings.read(
            {"DATABASE_URL": "postgres://x:hunter2@127.0.0.1:1/x", "NATS_URL": server.url}
        )
    )

    assert (False, ["postgres"]) == (no_nats.good, sorted(no_nats.servers))
    assert (False, ["nats", "workers"]) == (no_postgres.good, sorted(no_postgres.servers))
    assert "hunter2" not in no_postgres.as_text()
    assert "cannot connect to NATS: nobody answers" in no_nats.as_text()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgres://nobody@{place}/postgres", "the role may not log in"),
        ("postgres://postgres@{place}/nothing", "there is no such database"),
        ("postgres://postgres@{place}/postgres?sslmode=require", "rejected SSL upgrade"),
        ("postgres://postgres:hunter2@127.0.0.1:1/postgres", "refused"),
    ],
)
async def test_why_there_is_no_connection(server, postgres, url, why):
    """The usual reasons are said in words, and never with the password."""
    dsn = url.format(place=f"127.0.0.1:{postgres.port}")

    report = await checks.check(Settings.read({"DATABASE_URL": dsn, "NATS_URL": server.url}))

    ((_, message),) = found(report, "postgres")
    assert why in message
    assert "hunter2" not in report.as_text()


async def test_the_workers_are_counted_and_lose_no_request(service):
    """It looks beside the queue group: requests that come meanwhile are answered by the worker."""
    report = await checks.check(
        Settings.read({"DATABASE_URL": service.url, "NATS_URL": service.nats.url})
    )

    assert "1 answer on users.>" == report.servers["workers"]


async def test_views_and_partitions_get_a_remedy_that_fits(check):
    """A partitioned table cannot be indexed concurrently; a view has no indexes of its own."""
    partitioned = await check(
        """create table parted (id text, "organizationId" text, "userId" text, role text)
             partition by hash (id);
           drop table members; alter table parted rename to members"""
    )
    view = await check(
        "alter table members rename to base; create view members as select * from base"
    )

    remedies = [each.remedy for each in partitioned.findings if each.check == "indexes"]
    assert all(remedy.startswith("create index on ") for remedy in remedies if "members" in remedy)
    assert {NOTE} == {severity for severity, _ in found(view, "indexes")}


async def test_json_and_exit_codes(create_database, template, capsys, monkeypatch):
    """Good is 0 and broken 1; `--json` prints one object with the same content."""
    monkeypatch.setenv("DATABASE_URL", await create_database(template=template[0]))
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")

    status = await asyncio.to_thread(cli.main, ["check", "--json"])

    printed = json.loads(capsys.readouterr().out)
    assert 1 == status
    assert {"good", "servers", "mapping", "findings"} == printed.keys()
    assert {"check", "severity", "message", "remedy"} == printed["findings"][0].keys()
