"""What is found in a database, and that the remedy printed for it mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from responder import checks
from responder.checks import postgres
from responder.checks.report import BROKEN, NOTE, WARNING, Finding, Report
from responder.postgres.errors import NotAllowedError, SlowError
from responder.postgres.fields import MEMBER_FIELDS, USER_FIELDS
from responder.settings import Settings

pytestmark = pytest.mark.heavy


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
    assert {*USER_FIELDS, *MEMBER_FIELDS} <= {each.field for each in report.mapping}
    assert ["nats", "postgres", "workers"] == sorted(report.servers)


@pytest.mark.parametrize(
    "fixture", ["kysely-1.0", "prisma-1.0", "drizzle-1.3-serial", "kysely-1.7"]
)
async def test_the_indexes_it_says_are_missing_are_those(check, create_database, fixture, server):
    """The statements that it prints run as they are printed, and then no index is missing."""
    report = await check(fixture=fixture)
    remedies = [each.remedy for each in report.findings if each.check == "indexes"]

    mended = await check(*remedies, fixture=fixture)

    expected = [NOTE] if fixture == "kysely-1.7" else [WARNING, WARNING]
    assert expected == [severity for severity, _ in found(report, "indexes")]
    assert all("index concurrently on " in remedy for remedy in remedies)
    assert [] == found(mended, "indexes")


async def test_what_is_wrong_with_the_rows_is_counted(check, cast):
    """Emails that no lookup finds and people who are members twice are counted, and never shown."""
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


@pytest.mark.parametrize("id_", ["null", "'one'"])
async def test_ids_that_tell_no_memberships_apart_are_broken(check, id_):
    """Where pages could not go on after an id, the setting is named by which they do without."""
    spoil = (
        "alter table members drop constraint members_pkey",
        "alter table members alter id drop not null",
        f"update members set id = {id_}",
    )
    report = await check(*spoil)
    (finding,) = [each for each in report.findings if each.check == "ids"]
    name, _, value = finding.remedy.split()[0].partition("=")

    mended = await check(*spoil, **{name: value})

    assert (BROKEN, "public.members.id") == (finding.severity, finding.message.split()[0])
    assert [] == found(mended, "ids")


async def test_emails_that_would_be_the_same_are_left_to_the_operator(create_database, server):
    """The remedy for mixed case leaves accounts alone that differ in case only."""
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
    """An index only counts in the order of pages, or in all of it reversed."""
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


async def test_policies_are_shown_where_they_hide_rows(check):
    """Where policies choose, check shows how to see them; where one lets all rows pass, nothing."""
    await check("drop role if exists choosy; create role choosy login")
    tables = "grant select on users, members to choosy; alter table users enable row level security"
    some = "create policy a on users for select using (banned is not true)"
    every = "create policy b on users for select using (true)"
    fewer = "create policy c on users as restrictive using (banned is not true)"
    hiding, open_, restricted = [
        await check(tables, *policies, user="choosy")
        for policies in ((some,), (some, every), (every, fewer))
    ]

    where = "schemaname = 'public' and tablename = 'users'"
    remedies = [each.remedy for each in hiding.findings if each.check == "row-level security"]
    assert [f"These are the policies: select * from pg_policies where {where};"] == remedies
    assert [WARNING] == [severity for severity, _ in found(hiding, "row-level security")]
    assert [] == found(open_, "row-level security")
    assert [WARNING] == [severity for severity, _ in found(restricted, "row-level security")]


async def test_a_role_that_may_do_too_much_is_told_so(check):
    """A superuser is one finding; of any other role, each power that responder does not need is."""
    superuser = await check()
    await check("drop role if exists mighty; create role mighty login bypassrls")
    mighty = await check(
        "grant select on users, members, sessions to mighty; grant update on users to mighty",
        user="mighty",
    )

    assert [(WARNING, "the role is a superuser")] == found(superuser, "privileges")
    assert [
        (WARNING, "the role bypasses row-level security"),
        (WARNING, "the role may write to public.users"),
        (WARNING, "the role may read secrets: public.sessions.token"),
    ] == found(mighty, "privileges")


async def test_a_column_that_is_called_otherwise_is_suggested(check):
    """A missing field that every Better Auth has is a finding that names the columns near it."""
    report = await check('alter table users rename column name to "firstName"')

    ((severity, message),) = found(report, "fields")
    assert WARNING == severity
    assert "Could it be firstName?" in message


async def test_a_column_by_hand_is_shown_as_such(check):
    """The mapping marks a column that the operator has named."""
    report = await check(
        'alter table users rename column name to "firstName"',
        RESPONDER_COLUMNS="user.name=firstName",
    )

    assert ["name"] == [each.field for each in report.mapping if each.by_hand]
    assert "name            firstName               text          set by hand" in report.as_text()


async def test_an_unknown_time_zone_is_broken(check):
    """A time zone that PostgreSQL does not know, which ends the start of a worker, is broken."""
    report = await check(RESPONDER_TIMEZONE="Mars/Phobos")

    assert BROKEN == found(report, "times")[0][0]


async def test_tables_that_are_missing_or_ambiguous_are_broken(check):
    """Tables that a worker would not answer from are broken, in the worker's own words."""
    missing = await check("drop table users cascade")
    ambiguous = await check(
        "create table crm as select * from users; drop table sessions, accounts cascade"
    )

    assert BROKEN == found(missing, "tables")[0][0]
    assert "RESPONDER_USERS_TABLE decides" in found(ambiguous, "tables")[0][1]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgres://nobody@{place}/postgres", "the role may not log in"),
        ("postgres://postgres:hunter2@{place}/postgres", "the password is wrong"),
        ("postgres://postgres:{password}@{place}/nothing", "there is no such database"),
        ("postgres://postgres@{place}/postgres?sslmode=require", "rejected SSL upgrade"),
        ("postgres://postgres:hunter2@127.0.0.1:1/postgres", "refused"),
    ],
)
async def test_why_there_is_no_connection(server, postgres, url, why):
    """The usual reasons are said in words, and never with the password."""
    dsn = url.format(place=f"127.0.0.1:{postgres.port}", password=postgres.password)

    report = await checks.check(Settings.read({"DATABASE_URL": dsn, "NATS_URL": server.url}))

    ((_, message),) = found(report, "postgres")
    assert why in message
    assert "hunter2" not in report.as_text()


async def test_views_and_partitions_get_a_remedy_that_fits(check):
    """A partitioned table cannot be indexed concurrently; a view has no indexes of its own."""
    partitioned = await check(
        """create table parted (id text, "organizationId" text, "userId" text, role text)
             partition by hash (id);
           drop table members; alter table parted rename to members"""
    )
    view = await check(
        "alter table members rename to base; create view members as select * from base",
        RESPONDER_MEMBERS_TABLE="members",
    )

    remedies = [each.remedy for each in partitioned.findings if each.check == "indexes"]
    assert all(remedy.startswith("create index on ") for remedy in remedies if "members" in remedy)
    assert {(NOTE, "public.members has its indexes in the tables below it: not looked at")} == set(
        found(view, "indexes")
    )


@pytest.mark.parametrize(
    ("error", "severity", "message"),
    [
        (TimeoutError(), NOTE, "times: not finished in time; the tables are large"),
        (SlowError(), NOTE, "times: not finished in time; the tables are large"),
        (NotAllowedError(), BROKEN, "times: PostgreSQL does not allow to look at that"),
        (RuntimeError("hunter2"), BROKEN, "times: this check could not run: RuntimeError"),
    ],
)
async def test_a_check_that_fails_is_a_finding(check, monkeypatch, error, severity, message):
    """What a check found before it failed is reported, how it failed too, and the others go on."""

    async def failing(_: object) -> AsyncIterator[Finding]:
        yield Finding("times", NOTE, "something")
        raise error

    monkeypatch.setitem(postgres._CHECKS, "times", failing)
    report = await check()

    assert [(NOTE, "something"), (severity, message)] == found(report, "times")
    assert [(WARNING, "the role is a superuser")] == found(report, "privileges")


async def test_organizations_without_names_are_told_of(check):
    """Where names are null because there is no table, or it may not be read, a note says so."""
    await check("drop role if exists nameless; create role nameless login")
    unreadable = await check("grant select on users, members to nameless", user="nameless")
    gone = await check("drop table organizations cascade")
    other = await check("alter table organizations drop column name, drop column slug")
    hidden = await check(
        "grant select on users, members, organizations to nameless",
        "alter table organizations enable row level security",
        user="nameless",
    )

    null = "the names and slugs of organizations are null in users.memberships"
    assert [(NOTE, f"the role may not read public.organizations: {null}")] == found(
        unreadable, "organizations"
    )
    assert [(NOTE, f"no table of organizations: {null}")] == found(gone, "organizations")
    assert [NOTE] == [severity for severity, _ in found(other, "organizations")]
    assert [WARNING] == [severity for severity, _ in found(hidden, "row-level security")]


async def test_a_column_that_would_be_refused_is_not_suggested(check):
    """What a setting may never name is not proposed, however near its name is."""
    report = await check("alter table users rename column role to token_role")

    assert "token_role" not in str(report.findings)
