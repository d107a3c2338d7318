"""The members of an organization with some roles: all of them, and no other, page by page."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import asyncpg
import pytest

from responder.errors import InvalidRequestError
from responder.postgres import decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.lookups import statements
from responder.postgres.pages import MOST_READ, PageWanted

PEOPLE = """
insert into users (id, name, email, "emailVerified")
select 'u' || lpad(n::text, 6, '0'), 'n', n || '@x.eu', true from generate_series(1, {count}) n;
insert into organizations (id, name, slug, "createdAt") values ('big', 'b', 'big', now());
insert into members (id, "organizationId", "userId", role, "createdAt")
select 'm' || lpad(n::text, 6, '0'), 'big', 'u' || lpad(n::text, 6, '0'), {role},
       timestamptz '2026-01-01' + n * interval '1 s'
from generate_series(1, {count}) n;
"""


async def walk(service, roles: list[str], *, limit: int = 100) -> list[str]:
    """The ids of the users on all pages."""
    found = service.users.org_list("big", roles=roles, page=limit)
    return [user.id async for user in found]


def ids(*numbers: int) -> list[str]:
    return [f"u{number:06}" for number in numbers]


@pytest.mark.parametrize(
    ("stored", "roles", "holds"),
    [
        ("owner", ["owner"], True),
        ("admin,owner", ["owner"], True),
        ("admin , owner ", ["owner", "x"], True),
        ("owners", ["owner"], False),
        ("Owner", ["owner"], False),
        ("it's, a \\ role", ["it's"], True),
        ("member", ["own%", ".*", "", "\0", "\ud800", "a,b"], False),
        ("", ["owner"], False),
    ],
)
async def test_a_role_is_compared_with_each_that_is_held(service, stored, roles, holds):
    """Roles stand between commas, with blanks around; each is compared exactly."""
    await service.database.execute(PEOPLE.format(count=1, role="'x'"))
    await service.database.execute("update members set role = $1 where id = 'm000001'", stored)

    answer = await service.ask("users.org_list", {"organizationId": "big", "roles": roles})

    assert (ids(1) if holds else []) == [user["id"] for user in answer.json["users"]]
    assert None is answer.json["nextCursor"]


@pytest.mark.parametrize("roles", [[], ["x"] * 21, "owner", [1], [None]])
async def test_other_roles_are_invalid(people_service, roles):
    """1 to 20 roles, each of them text."""
    answer = await people_service.ask("users.org_list", {"organizationId": "x", "roles": roles})

    assert "invalid_request" == answer.json["code"]
    assert answer.json["message"].startswith("roles")


async def test_of_duplicate_memberships_the_earliest_is_asked_for_its_role(start_with):
    """Who was made owner by a second membership is no owner: the first speaks."""
    service = await start_with(
        PEOPLE.format(count=4, role="case n when 1 then 'owner' else 'member' end"),
        """insert into members (id, "organizationId", "userId", role, "createdAt")
           select 'again' || id, 'big', "userId",
                  case role when 'owner' then 'member' else 'owner' end,
                  "createdAt" + interval '1 h'
           from members where "organizationId" = 'big'""",
    )

    for limit in (1, 2, 100):
        assert ids(1) == await walk(service, ["owner"], limit=limit)
        assert ids(2, 3, 4) == await walk(service, ["member"], limit=limit)


async def test_a_cursor_belongs_to_its_roles(start_with):
    """Other roles, none, or another organization refuse it; order and repetition mean nothing."""
    service = await start_with(PEOPLE.format(count=9, role="'a,b'"))
    users = service.users
    page = await users.org_page("big", limit=2, roles=["b", "a"])
    plain = await users.org_page("big", limit=2)

    following = await users.org_page("big", cursor=page.next_cursor, roles=["a", "b", "a"])
    for arguments in (
        {"organization_id": "big", "roles": ["a"], "cursor": page.next_cursor},
        {"organization_id": "big", "cursor": page.next_cursor},
        {"organization_id": "x", "roles": ["a", "b"], "cursor": page.next_cursor},
        {"organization_id": "big", "roles": ["a", "b"], "cursor": plain.next_cursor},
    ):
        with pytest.raises(InvalidRequestError, match="cursor"):
            await users.org_page(**arguments)

    assert ids(*range(3, 10)) == [user.id for user in following.users]


async def test_one_string_is_no_list_of_roles(people_service):
    """`roles="owner"` is an error of the program."""
    with pytest.raises(TypeError, match="a list of roles"):
        await people_service.users.org_page("x", roles="owner")


TYPES = {
    "an enum": "create type kind as enum ('a', 'b'); alter table members alter role type kind "
    "using role::kind",
    "an array": "alter table members alter role type text[] using string_to_array(role, ',')",
}


@pytest.mark.parametrize("statement", TYPES.values(), ids=TYPES)
async def test_roles_of_other_types_are_compared_likewise(start_with, statement):
    """Enums and arrays hold roles as text does."""
    service = await start_with(
        "delete from members",
        PEOPLE.format(count=4, role="case when n % 2 = 0 then 'a' else 'b' end"),
        statement,
    )

    assert ids(2, 4) == await walk(service, ["a"])


@pytest.mark.parametrize("nulls", [False, True])
async def test_a_walk_goes_on_after_what_a_page_has_read(start_with, nulls):
    """Pages without a match have a cursor, until all members have been read."""
    service = await start_with(
        PEOPLE.format(
            count=2 * MOST_READ + 1, role="case when n % 4000 = 0 then 'rare' else 'y' end"
        ),
        'alter table members alter "createdAt" drop not null',
        """update members set "createdAt" = null
           where "organizationId" = 'big' and id > 'm004500'"""
        if nulls
        else "",
    )
    pages: list[list[str]] = []
    cursor = None
    while True:
        page = await service.users.org_page("big", roles=["rare"], cursor=cursor)
        pages.append([user.id for user in page.users])
        cursor = page.next_cursor
        if cursor is None:
            break

    assert [ids(4000), ids(8000), []] == pages


async def test_no_page_reads_more_than_its_bound(postgres, create_database):
    """However rare a role is, a page reads 5,000 memberships, by the index that `check` names."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    try:
        from responder.dev.tables import create_tables  # noqa: PLC0415 - of this test alone

        await create_tables(connection)
        await connection.execute(PEOPLE.format(count=30_000, role="'member'"))
        await connection.execute(
            'create index on members ("organizationId", "createdAt", id); analyze'
        )
        pages = statements(decision.find(await fetch_catalog(connection))).services.pages_of_roles
        assert pages
        query = pages.query([PageWanted("big", 100, None, roles='["rare"]')], cap=0)
        assert query
        sql, arguments = query
        ((plan,),) = await connection.fetch(
            f"explain (analyze, buffers, format json) {sql}", *arguments
        )
    finally:
        await connection.close()

    assert MOST_READ == max(rows_of(plan, "members"))


def rows_of(plan: str, relation: str) -> list[int]:
    """How many rows each scan of a table has given."""
    import json  # noqa: PLC0415 - of this function alone

    found: list[int] = []

    def look(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == relation:
            found.append(round(node["Actual Rows"] * node["Actual Loops"]))
        for each in node.get("Plans", ()):
            look(each)

    look(json.loads(plan)[0]["Plan"])
    return found


@pytest.mark.heavy
async def test_three_of_60_000_are_found_while_rows_come_and_go(start_with):
    """What is there throughout is seen exactly once, whatever is written meanwhile."""
    service = await start_with(
        PEOPLE.format(
            count=60_000, role="case when n in (5, 30000, 59999) then 'x,rare' else 'y' end"
        ),
        'create index on members ("organizationId", "createdAt", id); analyze',
        RESPONDER_TIMEOUT="10",
    )
    stop = asyncio.Event()

    async def write() -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            await service.database.execute(
                """insert into members (id, "organizationId", "userId", role, "createdAt")
                   values ($1, 'big', $2, 'y', timestamptz '2026-01-01' + $3 * interval '1 s')""",
                *(f"new{n}", f"u{n % 60000 + 1:06}", n * 7919 % 60_000),
            )
            await service.database.execute(
                "delete from members where id = $1 and role = 'y'", f"m{n * 31 % 60000 + 1:06}"
            )

    writer = asyncio.create_task(write())
    try:
        assert ids(5, 30000, 59999) == await walk(service, ["rare"])
        assert ids(5, 30000, 59999) == await walk(service, ["rare", "x"], limit=1)
    finally:
        stop.set()
        await writer
