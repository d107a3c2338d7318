"""The demo people are in the tables as the demo says, and the same every time."""

import re
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from responder.dev import people, postgres, tables
from responder.dev.names import ORGANIZATIONS, WRITTEN_OUT
from responder.dev.people import Cast
from responder.dev.population import Organization, Person

MEMBERSHIPS = """
  select o.name, m.role, m."managerId", m."departmentId"
  from members m join organizations o on o.id = m."organizationId"
  where m."userId" = $1 order by m."createdAt", m.id
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with postgres.running() as server:
        connection = await asyncpg.connect(server.url)
        await tables.create_tables(connection)
        await tables.insert_people(connection)
        await connection.close()
        yield server.url


@pytest.fixture
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
def cast() -> Cast:
    return people.populate()[1]


async def test_there_are_as_many_people_as_planned(connection: asyncpg.Connection):
    """There are some hundred people, in organizations of very different sizes."""
    assert people.PEOPLE == await connection.fetchval("select count(*) from users")
    sizes = await connection.fetch(
        'select o.name, count(*) from organizations o join members m on m."organizationId" = o.id '
        "group by o.id"
    )
    assert {name: size for name, _, size in ORGANIZATIONS} == {row[0]: row[1] for row in sizes}


async def test_the_cast_is_in_the_tables(connection: asyncpg.Connection, cast: Cast):
    """Each person of the cast is in the tables under that id, email and name."""
    for part in vars(cast).values():
        if isinstance(part, Person):
            row = await connection.fetchrow("select email, name from users where id = $1", part.id)
            assert (part.email, part.name) == tuple(row or ())
        else:
            assert isinstance(part, Organization)
            query = "select name from organizations where id = $1"
            assert part.name == await connection.fetchval(query, part.id)


async def test_the_cast_has_its_roles(connection: asyncpg.Connection, cast: Cast):
    """Each person of the cast has the role they are named for, in the organization it says."""
    first, second = cast.organization.name, cast.second_organization.name

    async def roles(person: Person) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await connection.fetch(MEMBERSHIPS, person.id)]

    assert [(first, "owner")] == await roles(cast.owner)
    assert [(first, "admin")] == await roles(cast.admin)
    assert [(first, "staff")] == await roles(cast.staff)
    assert [(first, "viewer")] == await roles(cast.viewer)
    assert [(second, "owner")] == await roles(cast.second_owner)
    assert [(first, "staff"), (second, "admin")] == await roles(cast.two_organizations)
    for person in (cast.banned, cast.temporarily_banned, cast.ban_over, cast.painted):
        assert [(first, "staff")] == await roles(person)
    for person in (cast.platform_admin, cast.superadmin, cast.support):
        assert [] == await roles(person)
    assert [] == await roles(cast.no_organization) + await roles(cast.guest)


async def test_staff_have_a_manager_and_a_department(connection: asyncpg.Connection, cast: Cast):
    """A member of the staff has a department, and a manager who is a user."""
    (row,) = await connection.fetch(MEMBERSHIPS, cast.staff.id)
    strangers = await connection.fetchval(
        'select count(*) from members m left join users u on u.id = m."managerId" '
        'where m."managerId" is not null and u.id is null'
    )

    assert (cast.admin.id, "engineering") == (row["managerId"], row["departmentId"])
    assert 0 == strangers


async def test_special_rows_are_as_better_auth_leaves_them(
    connection: asyncpg.Connection, cast: Cast
):
    """Guests, bans, platform roles and images look as Better Auth leaves them."""

    async def row(person: Person) -> asyncpg.Record:
        found = await connection.fetchrow("select * from users where id = $1", person.id)
        assert found is not None
        return found

    guest = await row(cast.guest)
    assert (True, "Anonymous", False) == (
        *(guest["isAnonymous"], guest["name"], guest["emailVerified"]),
    )
    assert guest["email"].endswith("@anonymous.placeholder.invalid")
    banned = await row(cast.banned)
    assert (True, True, None) == (
        *(banned["banned"], bool(banned["banReason"]), banned["banExpires"]),
    )
    now = await connection.fetchval("select now()")
    assert (await row(cast.temporarily_banned))["banExpires"] > now
    over = await row(cast.ban_over)
    assert over["banned"]
    assert over["banExpires"] < now
    assert ["admin", "superadmin", "admin,support"] == [
        (await row(person))["role"]
        for person in (cast.platform_admin, cast.superadmin, cast.support)
    ]
    assert (await row(cast.viewer))["image"] is None
    image = (await row(cast.painted))["image"]
    assert image.startswith("data:image/png;base64,")
    assert 10_000 < len(image) < 50_000


async def test_rows_are_of_many_kinds(connection: asyncpg.Connection):
    """There are nulls, unverified emails, names beyond ASCII, and several roles in one column."""
    rows = await connection.fetch("select * from users")
    roles = Counter(role for (role,) in await connection.fetch("select role from members"))

    assert people.GUESTS + 1 == sum(bool(row["isAnonymous"]) for row in rows)
    assert people.BANNED + 3 == sum(bool(row["banned"]) for row in rows)
    for column in ("image", "role", "banned", "isAnonymous"):
        assert 10 < sum(row[column] is None for row in rows)
    assert 20 < sum(not row["emailVerified"] for row in rows)
    names = {row["name"] for row in rows}
    assert set(WRITTEN_OUT) <= names
    assert {"owner", "admin", "staff", "viewer", "admin,staff"} == set(roles)
    assert all(re.fullmatch("[A-Za-z0-9]{32}", row["id"]) for row in rows)
    reserved = r"[a-z0-9.]+@(([a-z-]+\.)?example\.(com|org)|anonymous\.placeholder\.invalid)"
    assert [] == [row["email"] for row in rows if not re.fullmatch(reserved, row["email"])]
    some = await connection.fetchval(
        'select count(*) from (select 1 from members group by "userId" having count(*) > 1) several'
    )
    assert 5 < some


async def test_a_membership_is_younger_than_its_user(connection: asyncpg.Connection):
    """Every membership is younger than its user and its organization."""
    early = await connection.fetch(
        'select m.id from members m join users u on u.id = m."userId" '
        'join organizations o on o.id = m."organizationId" '
        'where m."createdAt" < greatest(u."createdAt", o."createdAt")'
    )

    assert [] == early


def test_the_people_are_the_same_every_time():
    """Two computations give the same people, organizations and memberships."""
    one, other = people.populate(), people.populate()

    assert one[1] == other[1]
    assert one[0].people == other[0].people
    assert one[0].memberships == other[0].memberships
