"""The users of the benchmark, in Better Auth's tables, and the right answers by the same rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import asyncpg

# Nine of ten users have a membership, and one in ten of all users has a later one too, in another
# organization. Nine of ten organizations have 110 members, the others 10. Ids are as long and as
# scattered as Better Auth's own.
PEOPLE = (
    'alter table users add "phoneNumber" text',
    "alter table members add title text",
    """insert into organizations (id, name, slug, "createdAt")
    select md5('organization' || n), 'Organization ' || n, 'organization-' || n, now()
    from generate_series(0, {organizations} - 1) n""",
    """insert into users (id, name, email, "emailVerified", image, role, banned, "banReason",
                          "banExpires", "phoneNumber")
    select md5(n::text), 'Person Number ' || n, 'person.' || n || '@example.com', n % 5 > 0,
           'https://images.example.com/people/' || n || '.png',
           case n % 50 when 0 then 'admin' when 1 then '' when 2 then null else 'user' end,
           n % 100 = 3, case when n % 100 = 3 then 'spam' end,
           case when n % 200 = 3 then timestamptz '2099-12-31' end, '+46 ' || n
    from generate_series(0, {users} - 1) n""",
    """insert into members (id, "organizationId", "userId", role, "createdAt", "managerId",
                            "departmentId", title)
    select md5('member' || n),
           md5('organization' || (n + n / {users}) % {organizations}),
           md5((n % {users})::text), 'member', timestamptz '2026-01-01' + n * interval '1 second',
           md5('manager' || n), 'engineering', 'title ' || n
    from generate_series(0, {users} * 11 / 10 - 1) n
    where n % 10 > 0 or n >= {users}""",
)
# Some users are members of four clubs besides, so that they have five memberships.
CLUBS = (
    """insert into organizations (id, name, slug, "createdAt")
    select md5('club' || k), 'Club ' || k, 'club-' || k, now() from generate_series(1, 4) k""",
    """insert into members (id, "organizationId", "userId", role, "createdAt")
    select md5('club' || k || ' ' || n), md5('club' || k), md5(n::text), 'viewer',
           timestamptz '2028-01-01' + k * interval '1 second'
    from generate_series({users} / 10 + 1, {users} - 1, 100) n, generate_series(1, 4) k""",
)
# Every user is also a member of one organization, the largest.
LARGEST = (
    """insert into organizations (id, name, slug, "createdAt")
    values (md5('largest'), 'Largest', 'largest', now())""",
    """insert into members (id, "organizationId", "userId", role, "createdAt")
    select md5('largest' || n), md5('largest'), md5(n::text), 'member',
           timestamptz '2027-01-01' + n / 3 * interval '1 second'
    from generate_series(0, {users} - 1) n""",
)
# These queries read every row and every index once, by way of the indexes: a scan of the whole
# table would leave most of it outside of PostgreSQL's memory.
WARM = """
set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
set enable_bitmapscan = off;
select count(m.role) from users u left join members m on m."userId" = u.id where u.id >= '';
select count(u.image) from users u where u.email >= '';
select count(m.id) from organizations o join members m on m."organizationId" = o.id;
"""
PER_ORGANIZATION = 100


async def fill(url: str, users: int, *, largest: bool = False) -> None:
    """Make the tables, fill them, and bring them into PostgreSQL's memory."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(files("responder.dev").joinpath("tables.sql").read_text())
        for statement in (*PEOPLE, *CLUBS, *(LARGEST if largest else ())):
            await connection.execute(
                statement.format(users=users, organizations=users // PER_ORGANIZATION)
            )
        await connection.execute("vacuum analyze")
        await connection.execute(WARM)
    finally:
        await connection.close()


class People:
    """What is in the tables, and the right answers, by the same rules in Python.

    Args:
        users: how many there are.
        fields: additional ones that answers have, of `phoneNumber` and `title`.
    """

    def __init__(self, users: int, fields: Sequence[str] = ()) -> None:
        self.users = users
        self.fields = fields
        self.organizations = users // PER_ORGANIZATION

    def id(self, n: int) -> bytes:
        """Return the nth user's id."""
        return _md5(n).encode()

    def ids(self) -> list[bytes]:
        """Return every user's id."""
        return [self.id(n) for n in range(self.users)]

    def emails(self) -> list[bytes]:
        """Return every user's email."""
        return [f"person.{n}@example.com".encode() for n in range(self.users)]

    def large_organizations(self) -> list[bytes]:
        """Return the ids of the organizations with 110 members."""
        return [_organization(n).encode() for n in range(self.organizations) if n % 10]

    def admins(self, count: int) -> list[str]:
        """Return the ids of some platform admins, who may see every user."""
        return [_md5(n * 50) for n in range(count)]

    def callers(self) -> list[int]:
        """Return the numbers of those with one membership who are not banned."""
        return [n for n in range(self.users // 10, self.users) if n % 10 and n % 100 not in (1, 3)]

    def colleagues(self, n: int) -> list[int]:
        """Return who else has one membership, and that in the organization of such a user."""
        members = range(n % self.organizations, self.users, self.organizations)
        return [each for each in members if each >= self.users // 10 and each != n]

    def club_members(self) -> list[int]:
        """Return the numbers of those with five memberships."""
        return list(range(self.users // 10 + 1, self.users, 100))

    def memberships(self, n: int) -> list[dict[str, str | None]]:
        """Return the memberships of one of these."""
        number = n % self.organizations
        joined = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n)
        first = (_organization(number), f"Organization {number}", f"organization-{number}")
        clubs = [(_md5(f"club{k}"), f"Club {k}", f"club-{k}") for k in range(1, 5)]
        names = ("organizationId", "organizationName", "organizationSlug")
        return [
            {
                **dict(zip(names, first, strict=True)),
                "orgRole": "member",
                "managerId": _md5(f"manager{n}"),
                "departmentId": "engineering",
                "createdAt": f"{joined:%Y-%m-%dT%H:%M:%S}.000Z",
            },
            *(
                {
                    **dict(zip(names, club, strict=True)),
                    "orgRole": "viewer",
                    "managerId": None,
                    "departmentId": None,
                    "createdAt": f"2028-01-01T00:00:0{k}.000Z",
                }
                for k, club in enumerate(clubs, start=1)
            ),
        ]

    def user(self, n: int) -> dict[str, Any]:
        """Return the nth user, with their earliest membership."""
        return self._user(n, next(self._memberships(n), None))

    def page(self, organization: int, limit: int = 100) -> list[dict[str, Any]]:
        """Return the first members of an organization."""
        early = range(organization, self.users, self.organizations)
        late = range(
            self.users + (organization - 1) % self.organizations,
            self.users * 11 // 10,
            self.organizations,
        )
        members = [*(n for n in early if n % 10), *late][:limit]
        return [self._user(n % self.users, n) for n in members]

    def _memberships(self, n: int) -> Iterator[int]:
        if n % 10:
            yield n
        if n < self.users // 10:
            yield n + self.users

    def _user(self, n: int, membership: int | None) -> dict[str, Any]:
        return {
            "id": _md5(n),
            "email": f"person.{n}@example.com",
            "emailVerified": n % 5 > 0,
            "name": f"Person Number {n}",
            "image": f"https://images.example.com/people/{n}.png",
            "isAnonymous": False,
            "role": "user" if n % 50 else "admin",
            "banned": n % 100 == 3,
            "banReason": "spam" if n % 100 == 3 else None,
            "banExpires": "2099-12-31T00:00:00.000Z" if n % 200 == 3 else None,
            **self._context(membership),
            **self._additional(n, membership),
        }

    def _additional(self, n: int, membership: int | None) -> dict[str, Any]:
        values = {
            "phoneNumber": f"+46 {n}",
            "title": None if membership is None else f"title {membership}",
        }
        asked = {each: values[each] for each in self.fields}
        return {"additionalFields": asked} if asked else {}

    def _context(self, membership: int | None) -> dict[str, str | None]:
        if membership is None:
            return dict.fromkeys(("organizationId", "orgRole", "managerId", "departmentId"))
        organization = (membership + membership // self.users) % self.organizations
        return {
            "organizationId": _organization(organization),
            "orgRole": "member",
            "managerId": _md5(f"manager{membership}"),
            "departmentId": "engineering",
        }


def _organization(n: int) -> str:
    return _md5(f"organization{n}")


def _md5(text: object) -> str:
    return hashlib.md5(str(text).encode()).hexdigest()
