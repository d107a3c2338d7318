"""The users of the benchmark, in Better Auth's tables, and the right answers by the same rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import asyncpg

# Nine of ten users have a membership, and one in ten of all users has a later one too, in another
# organization. Nine of ten organizations have 110 members, the others 10. Ids are as long and as
# scattered as Better Auth's own.
PEOPLE = (
    """insert into organizations (id, name, slug, "createdAt")
    select md5('organization' || n), 'Organization ' || n, 'organization-' || n, now()
    from generate_series(0, {organizations} - 1) n""",
    """insert into users (id, name, email, "emailVerified", image, role, banned, "banReason",
                          "banExpires")
    select md5(n::text), 'Person Number ' || n, 'person.' || n || '@example.com', n % 5 > 0,
           'https://images.example.com/people/' || n || '.png',
           case n % 50 when 0 then 'admin' when 1 then '' when 2 then null else 'user' end,
           n % 100 = 3, case when n % 100 = 3 then 'spam' end,
           case when n % 200 = 3 then timestamptz '2099-12-31' end
    from generate_series(0, {users} - 1) n""",
    """insert into members (id, "organizationId", "userId", role, "createdAt", "managerId",
                            "departmentId")
    select md5('member' || n),
           md5('organization' || (n + n / {users}) % {organizations}),
           md5((n % {users})::text), 'member', timestamptz '2026-01-01' + n * interval '1 second',
           md5('manager' || n), 'engineering'
    from generate_series(0, {users} * 11 / 10 - 1) n
    where n % 10 > 0 or n >= {users}""",
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
        for statement in (*PEOPLE, *(LARGEST if largest else ())):
            await connection.execute(
                statement.format(users=users, organizations=users // PER_ORGANIZATION)
            )
        await connection.execute("vacuum analyze")
        await connection.execute(WARM)
    finally:
        await connection.close()


class People:
    """What is in the tables, and the right answers, by the same rules in Python."""

    def __init__(self, users: int) -> None:
        self.users = users
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
        return [n for n in range(self.users // 10, self.users) if n % 10 and n % 100 != 3]

    def colleagues(self, n: int) -> list[int]:
        """Return who else has one membership, and that in the organization of such a user."""
        members = range(n % self.organizations, self.users, self.organizations)
        return [each for each in members if each >= self.users // 10 and each != n]

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
        }

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
