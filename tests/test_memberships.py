"""All organizations of a user, in order, with their names, whatever the tables are like."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import asyncpg
import pytest

from responder import NotFoundError, UsersClient, cursors
from responder.errors import InvalidRequestError, UnavailableError
from tests.roles import as_role


async def walk(service, user_id: str, *, limit: int = 100) -> list[str]:
    """The organizations on all pages."""
    return [each.organization_id async for each in service.users.memberships(user_id, page=limit)]


async def test_a_user_has_all_their_organizations_with_their_names(service, cast):
    """Each membership has its organization's name and slug, in the order of joining."""
    pages = [
        await service.users.memberships_page(cast.two_organizations.id),
        json.loads((await service.ask("users.memberships", cast.two_organizations.id)).body),
    ]

    first, second = pages[0].memberships
    assert (cast.organization.name, cast.organization.slug) == (
        first.organization_name,
        first.organization_slug,
    )
    assert cast.second_organization.name == second.organization_name
    assert first.created_at < second.created_at
    assert None is pages[0].next_cursor
    assert [cast.organization.id, cast.second_organization.id] == [
        each["organizationId"] for each in pages[1]["memberships"]
    ]


async def test_who_is_in_no_organization_has_an_empty_list(service, cast):
    """A user without memberships is no unknown user."""
    page = await service.users.memberships_page(cast.guest.id)
    with pytest.raises(NotFoundError):
        await service.users.memberships_page("nobody")

    assert [] == page.memberships


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b'{"limit":1}', {"id": 1}, {"id": "x", "limit": 0}, {"id": "x", "limit": 501}],
)
async def test_a_service_names_the_user(people_service, payload):
    """Without a token a request says whose memberships; limits are 1 to 500."""
    answer = await people_service.ask("users.memberships", payload)

    assert "invalid_request" == answer.json["code"]


async def test_a_cursor_belongs_to_its_user(people_service, cast):
    """Neither another user's cursor is taken, nor that of a list, nor one that is made up."""
    users = people_service.users
    page = await users.memberships_page(cast.two_organizations.id, limit=1)
    listed = await users.org_page(cast.organization.id, limit=1)

    for user_id, cursor in (
        (cast.owner.id, page.next_cursor),
        (cast.two_organizations.id, listed.next_cursor),
        (cast.organization.id, listed.next_cursor),
        (cast.two_organizations.id, "x"),
    ):
        with pytest.raises(InvalidRequestError, match="cursor"):
            await users.memberships_page(user_id, cursor=cursor)


ANN = (
    """insert into users (id, name, email, "emailVerified") values ('ann', 'Ann', 'a@x.eu', true)"""
)
ORGANIZATIONS = """
insert into organizations (id, name, slug, "createdAt")
select 'o' || n, 'Organization ' || n, 'o' || n, now() from generate_series(1, {count}) n"""
MEMBERSHIPS = """
insert into members (id, "organizationId", "userId", role, "createdAt")
select 'm' || n, 'o' || n, 'ann', 'member', timestamptz '2026-01-01' + {seconds} * interval '1 s'
from generate_series(1, {count}) n"""


@pytest.mark.parametrize("seconds", ["n", "0", "(n % 3)"])
@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_a_walk_shows_each_organization_once(start_with, seconds, limit):
    """Of duplicate memberships the earliest speaks; equal times are in the order of ids."""
    service = await start_with(
        ANN,
        ORGANIZATIONS.format(count=20),
        MEMBERSHIPS.format(count=20, seconds=seconds),
        """insert into members (id, "organizationId", "userId", role, "createdAt")
           select id || 'again', "organizationId", "userId", 'later', "createdAt" + interval '1 h'
           from members where "userId" = 'ann'""",
    )
    rows = await service.database.fetch(
        """select "organizationId" from members where "userId" = 'ann' and role <> 'later'
           order by "createdAt", id"""
    )

    assert [row[0] for row in rows] == await walk(service, "ann", limit=limit)


async def test_a_membership_that_was_deleted_softly_does_not_count(start_with, cast):
    """Neither is it there, nor does it stand in the way of a later one in its organization."""
    person, organization = cast.two_organizations.id, cast.second_organization.id
    service = await start_with(
        'alter table members add "deletedAt" timestamptz',
        f"""insert into members (id, "organizationId", "userId", role, "createdAt")
           select 'again', "organizationId", "userId", 'back', now() from members
           where "userId" = '{person}' and "organizationId" = '{organization}'""",
        f"""update members set "deletedAt" = now()
            where "userId" = '{person}' and id <> 'again'""",
    )

    page = await service.users.memberships_page(cast.two_organizations.id)

    assert [(cast.second_organization.id, "back")] == [
        (each.organization_id, each.org_role) for each in page.memberships
    ]


async def test_tables_without_ids_and_times_are_walked_by_organization(start_with):
    """Where memberships have neither id nor createdAt, the organization's id is their order."""
    service = await start_with(
        'create table users (id int primary key, email text, "emailVerified" bool)',
        "create table members (user_id int, organization_id uuid, role text)",
        "insert into users values (7, 'a@x.eu', true)",
        """insert into members select 7, md5(n::text)::uuid, 'member'
           from generate_series(1, 9) n, generate_series(1, 2)""",
        empty=True,
    )
    rows = await service.database.fetch("select distinct organization_id from members order by 1")

    pages = await service.users.memberships_page("7", limit=5)
    assert [str(row[0]) for row in rows] == await walk(service, "7", limit=2)
    assert {(None, None, None)} == {
        (each.organization_name, each.organization_slug, each.created_at)
        for each in pages.memberships
    }


async def test_an_organization_is_the_one_that_its_foreign_key_means(start_with):
    """Where memberships refer to another column than the id of organizations, that one counts."""
    service = await start_with(
        'create table users (id int primary key, email text, "emailVerified" bool)',
        "create table organizations (id int primary key, number int unique, name text)",
        """create table members (user_id int, role text,
             organization_id int references organizations (number))""",
        "insert into users values (7, 'a@x.eu', true)",
        "insert into organizations values (1, 2, 'Acme'), (2, 1, 'Another')",
        "insert into members values (7, 'staff', 2)",
        empty=True,
    )

    page = await service.users.memberships_page("7")

    assert [("2", "Acme")] == [
        (each.organization_id, each.organization_name) for each in page.memberships
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "drop table organizations cascade",
        "alter table organizations rename to companies_old",
        "alter table organizations drop column name, drop column slug",
        """create function public.fail() returns bool language plpgsql as
           $$begin raise exception 'no'; end$$;
           alter table organizations rename to hidden;
           create view organizations as select * from hidden where fail()""",
    ],
    ids=["dropped", "renamed", "without-names", "a-view-that-raises"],
)
async def test_organizations_that_cannot_be_read_have_no_names(start_with, cast, statement):
    """Whatever becomes of the table of organizations, memberships are answered."""
    service = await start_with(
        'alter table members drop constraint "members_organizationId_fkey"'
        if "rename to" in statement
        else ""
    )
    before = await service.users.memberships_page(cast.two_organizations.id)
    await service.database.execute(statement)
    after = await service.users.memberships_page(cast.two_organizations.id)

    assert all(each.organization_name for each in before.memberships)
    assert [(each.organization_id, None, None) for each in before.memberships] == [
        (each.organization_id, each.organization_name, each.organization_slug)
        for each in after.memberships
    ]


async def test_a_cursor_that_is_none_is_refused_whether_names_can_be_read_or_not(
    create_database, template, start, cast
):
    """It is the caller's fault, with nothing in the log of a failure of ours."""
    url = await create_database(template=template[0])
    admin = await asyncpg.connect(url)
    await admin.execute(
        "create role nameless login; grant select on all tables in schema public to nameless"
    )
    try:
        service = await start(as_role(url, "nameless"))
        person = cast.two_organizations.id
        bad = cursors.encode(cursors.MembershipPosition(person, "nonsense", "x"))
        await admin.execute("revoke select on organizations from nameless")
        without_names = await service.users.memberships_page(person)
        answer = await service.ask("users.memberships", {"id": person, "cursor": bad})
    finally:
        await admin.execute("drop owned by nameless; drop role nameless")
        await admin.close()

    assert {None} == {each.organization_name for each in without_names.memberships}
    assert ("invalid_request", cursors.BAD_MEMBERSHIPS) == (answer.code, answer.json["message"])


async def test_without_a_member_table_it_is_unavailable(start_with):
    """A database without organizations has nothing to answer, and says so."""
    service = await start_with(RESPONDER_MEMBERS_TABLE="off")

    with pytest.raises(UnavailableError, match="no member table"):
        await service.users.memberships_page("x")


async def test_names_too_large_for_a_message_make_shorter_pages(start_with, cast):
    """A page has as many memberships as fit, and its cursor goes on after them."""
    service = await start_with(
        ANN,
        ORGANIZATIONS.format(count=8),
        MEMBERSHIPS.format(count=8, seconds="n"),
        "update organizations set name = repeat('x', 300000) where id like 'o_'",
    )
    page = await service.users.memberships_page("ann")

    assert 3 == len(page.memberships)
    assert [f"o{n}" for n in range(1, 9)] == await walk(service, "ann")


@pytest.mark.heavy
async def test_1200_memberships_are_walked_while_rows_come_and_go(start_with):
    """What is there throughout is seen exactly once, whatever is written meanwhile."""
    service = await start_with(
        ANN,
        ORGANIZATIONS.format(count=2400),
        MEMBERSHIPS.format(count=1200, seconds="n"),
        RESPONDER_TIMEOUT="10",
    )
    stop = asyncio.Event()

    async def write() -> None:
        n = 1200
        while not stop.is_set():
            n += 1
            await service.database.execute(
                """insert into members (id, "organizationId", "userId", role, "createdAt")
                   values ($1, $2, 'ann', 'new', timestamptz '2026-01-01' + $3 * interval '1 s')""",
                *(f"new{n}", f"o{n % 1200 + 1201}", n * 7 % 1200),
            )
            if n % 2:
                await service.database.execute("delete from members where id = $1", f"new{n - 9}")

    writer = asyncio.create_task(write())
    try:
        for limit in (7, 100, 500):
            walked = await walk(service, "ann", limit=limit)
            throughout = [each for each in walked if int(each[1:]) <= 1200]
            assert [f"o{n}" for n in range(1, 1201)] == throughout
            assert len(set(walked)) == len(walked)
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await writer


async def test_a_client_of_a_token_asks_for_its_own(people_service):
    """Without an id a client asks for the user of its token; without a token it is refused."""
    users = UsersClient(people_service.nc)

    with pytest.raises(InvalidRequestError, match="id: required"):
        await users.memberships_page()
