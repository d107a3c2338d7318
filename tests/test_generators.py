"""Every lookup answers on the tables of each of Better Auth's generators, of every generation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from responder.dev.tokens import Mint

pytestmark = pytest.mark.heavy

HERE = Path(__file__).parent
FILES = {
    **{file.stem: file for file in sorted((HERE / "schemas").glob("*.sql"))},
    "dev": HERE.parent / "responder" / "dev" / "tables.sql",
}
# Users, each of a kind that is easy to get wrong.
OWNER, MEMBER, BANNED, BANNED_FOR_GOOD, ANONYMOUS, NULLS, STRANGER = range(1, 8)
ACME, OTHER = 1, 2
EXPIRES = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


class Tables:
    """The tables of one file, found without responder: by name, ignoring case and `_`."""

    def __init__(self, connection: asyncpg.Connection[Any], rows: list[Any]) -> None:
        self.connection = connection
        self.columns: dict[str, dict[str, tuple[str, str]]] = {}
        self.names: dict[str, str] = {}
        for table, column, kind in rows:
            plain = table.lower().removesuffix("s")
            self.names[plain] = table
            self.columns.setdefault(plain, {})[column.lower().replace("_", "")] = (column, kind)

    def has(self, table: str, column: str) -> bool:
        return column.lower() in self.columns[table]

    def id(self, number: int) -> str:
        kind = self.columns["user"]["id"][1]
        return {"uuid": str(UUID(int=number)), "integer": str(number)}.get(kind, f"Id{number}")

    async def insert(self, table: str, values: Mapping[str, Any]) -> None:
        """Insert a row, without the values for which the table has no column."""
        columns = self.columns[table]
        given = {name.lower(): value for name, value in values.items() if name.lower() in columns}
        names = ", ".join(f'"{columns[name][0]}"' for name in given)
        cast = [f"${n}::text::{columns[name][1]}" for n, name in enumerate(given, start=1)]
        as_text = [
            None if value is None else self.text(columns[name][1], value)
            for name, value in given.items()
        ]
        await self.connection.execute(
            f'insert into "{self.names[table]}" ({names}) values ({", ".join(cast)})', *as_text
        )

    def text(self, kind: str, value: object) -> str:
        if isinstance(value, datetime):
            without_zone = kind == "timestamp without time zone"
            return value.replace(tzinfo=None).isoformat() if without_zone else value.isoformat()
        return str(value)


async def tables_of(connection: asyncpg.Connection[Any]) -> Tables:
    rows = await connection.fetch("""
        select c.relname, a.attname, format_type(a.atttypid, null)
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0
          and not a.attisdropped""")
    return Tables(connection, rows)


async def insert_users(tables: Tables) -> None:
    """Insert organizations, users and memberships; of two users, the lower number is older."""

    def at(number: int) -> datetime:
        return datetime(2024, 1, number, tzinfo=UTC)

    for number in (ACME, OTHER):
        name = {"id": tables.id(number), "name": f"Organization {number}", "slug": f"slug-{number}"}
        await tables.insert("organization", {**name, "createdAt": at(1)})
    some: dict[str, Any] = {"emailVerified": False, "role": "user", "banned": False}
    some |= {"isAnonymous": False}
    for number, special in {
        OWNER: {"emailVerified": True, "role": "admin,support", "image": "https://x.example/1"},
        MEMBER: {},
        BANNED: {"banned": True, "banReason": "spam", "banExpires": EXPIRES},
        BANNED_FOR_GOOD: {"banned": True, "banReason": "fraud"},
        ANONYMOUS: {"isAnonymous": True, "email": "temp-x@http://127.0.0.1:3000"},
        NULLS: dict.fromkeys(("role", "banned", "isAnonymous", "image")),
        STRANGER: {},
    }.items():
        row = {"id": tables.id(number), "email": f"{number}@example.com", "name": f"Name {number}"}
        times = {"createdAt": at(number), "updatedAt": at(number)}
        await tables.insert("user", {**row, **some, **times, **special})
    manager = {"managerId": "the boss", "departmentId": "sales"}
    for number, (organization, user, role, day) in enumerate(
        [
            (OTHER, MEMBER, "viewer", 20),
            (ACME, MEMBER, "staff", 10),
            (ACME, OWNER, "owner", 9),
            (ACME, BANNED, "admin,staff", 11),
            (ACME, OWNER, "viewer", 12),  # a second membership of the same person
        ],
        start=1,
    ):
        row = {"id": tables.id(number), "userId": tables.id(user), "role": role}
        row["organizationId"] = tables.id(organization)
        more = manager if user == MEMBER else {}
        await tables.insert("member", {**row, "createdAt": at(day), **more})


def expected(tables: Tables, number: int, **special: object) -> dict[str, Any]:
    """Return a user as subjects.md, The User has it, with null for what the tables cannot hold."""
    user: dict[str, Any] = {
        "id": tables.id(number),
        "email": f"{number}@example.com",
        "emailVerified": False,
        "name": f"Name {number}",
        "image": None,
        "isAnonymous": False,
        "role": "user",
        "banned": False,
        "banReason": None,
        "banExpires": None,
        "organizationId": None,
        "orgRole": None,
        "managerId": None,
        "departmentId": None,
    }
    for field in ("managerId", "departmentId"):
        if not tables.has("member", field):
            special.pop(field, None)
    return {**user, **special}


def all_users(tables: Tables) -> dict[int, dict[str, Any]]:
    acme = tables.id(ACME)
    member = {"organizationId": acme, "orgRole": "staff"}
    member |= {"managerId": "the boss", "departmentId": "sales"}
    banned = {"banned": True, "banReason": "spam", "banExpires": "2030-01-02T03:04:05.678Z"}
    owner = {"emailVerified": True, "role": "admin,support", "image": "https://x.example/1"}
    return {
        OWNER: expected(tables, OWNER, **owner, organizationId=acme, orgRole="owner"),
        MEMBER: expected(tables, MEMBER, **member),
        BANNED: expected(tables, BANNED, **banned, organizationId=acme, orgRole="admin,staff"),
        BANNED_FOR_GOOD: expected(tables, BANNED_FOR_GOOD, banned=True, banReason="fraud"),
        ANONYMOUS: expected(
            tables, ANONYMOUS, isAnonymous=True, email="temp-x@http://127.0.0.1:3000"
        ),
        NULLS: expected(tables, NULLS),
        STRANGER: expected(tables, STRANGER),
    }


async def all_pages(
    service, organization: str, limit: int, headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = []
    request = {"organizationId": organization, "limit": limit}
    while True:
        page = (await service.ask("users.org_list", request, headers)).json
        users += page["users"]
        if page["nextCursor"] is None:
            return users
        request["cursor"] = page["nextCursor"]


async def filled(create_database, name: str) -> tuple[str, Tables]:
    """Make a database with the tables of a file and the users in them; return its URL."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(FILES[name].read_text())
        tables = await tables_of(connection)
        await insert_users(tables)
    finally:
        await connection.close()
    return url, tables


OFF = {"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_ADMIN_LISTEN": "off"}


@pytest.mark.parametrize("name", FILES)
async def test_every_lookup_on_the_tables_of(create_database, start, name):
    """By id, by email, by ids and by organization, the answers are complete."""
    url, tables = await filled(create_database, name)
    service = await start(url, **OFF, RESPONDER_TIMEOUT="10")
    users = all_users(tables)
    ids = [tables.id(number) for number in users]

    by_id = [(await service.ask("users.get", each)).json for each in ids]
    by_email = [
        (await service.ask("users.by_email", user["email"].upper())).json for user in users.values()
    ]
    in_other = await service.ask(
        "users.get", {"id": tables.id(MEMBER), "organizationId": tables.id(OTHER)}
    )
    unknown = (await service.ask("users.get", tables.id(99))).code
    malformed = (await service.ask("users.get", "no such id")).code
    many = {"ids": [tables.id(99), *reversed(ids), "no such id"]}
    together = (await service.ask("users.get_many", many)).json
    listed = await all_pages(service, tables.id(ACME), 2)
    none = await all_pages(service, tables.id(99), 2)

    assert list(users.values()) == by_id
    assert list(users.values()) == by_email
    assert (tables.id(OTHER), "viewer") == (
        in_other.json["organizationId"],
        in_other.json["orgRole"],
    )
    assert ("not_found", "not_found") == (unknown, malformed)
    assert list(reversed(users.values())) == together["users"]
    assert [tables.id(99), "no such id"] == together["missing"]
    assert [users[OWNER], users[MEMBER], users[BANNED]] == listed
    assert [] == none


@pytest.mark.parametrize("name", FILES)
async def test_every_lookup_for_a_caller_on_the_tables_of(create_database, start, tmp_path, name):
    """A member sees their colleagues, without reasons of bans; an admin sees all users."""
    mint = Mint()
    url, tables = await filled(create_database, name)
    service = await start(
        url, **OFF, **mint.publish(tmp_path / "jwks.json"), RESPONDER_TIMEOUT="10"
    )
    users = all_users(tables)
    ids = {number: tables.id(number) for number in users}
    headers = {
        number: {"Authorization": f"Bearer {mint.token(ids[number])}"}
        for number in (OWNER, MEMBER, BANNED_FOR_GOOD, ANONYMOUS, STRANGER)
    }
    seen = {number: dict(users[number]) for number in (OWNER, MEMBER, BANNED)}
    seen[BANNED]["banReason"] = None
    hidden = [number for number in users if number not in seen]
    in_other = {"organizationId": tables.id(OTHER), "orgRole": "viewer"}

    async def ask(caller: int, subject: str, request: object) -> Any:
        answer = await service.ask(subject, request, headers[caller])
        return answer.code or answer.json

    many = {"ids": list(ids.values())}
    by_id = [await ask(MEMBER, "users.get", each) for each in ids.values()]
    by_email = [await ask(MEMBER, "users.by_email", users[each]["email"]) for each in users]
    together = await ask(MEMBER, "users.get_many", many)
    listed = await all_pages(service, tables.id(ACME), 2, headers[MEMBER])
    myself = (await ask(MEMBER, "users.whoami", b""))["user"]
    elsewhere = await ask(
        MEMBER, "users.get", {"id": ids[MEMBER], "organizationId": tables.id(OTHER)}
    )
    to_admin = (await ask(OWNER, "users.get_many", many))["users"]
    admin_lists = await all_pages(service, tables.id(ACME), 2, headers[OWNER])
    refused = [
        await ask(BANNED_FOR_GOOD, "users.get", ids[OWNER]),
        await ask(STRANGER, "users.get", ids[OWNER]),
        await ask(STRANGER, "users.org_list", tables.id(ACME)),
        await ask(ANONYMOUS, "users.org_list", tables.id(ACME)),
    ]

    visible = [seen.get(number, "not_found") for number in users]
    assert visible == by_id
    assert visible == by_email
    assert {"users": list(seen.values()), "missing": [ids[each] for each in hidden]} == together
    assert list(seen.values()) == listed
    assert seen[MEMBER] == myself
    assert in_other == {key: elsewhere[key] for key in in_other}
    assert list(users.values()) == to_admin
    assert [users[OWNER], users[MEMBER], users[BANNED]] == admin_lists
    assert ["forbidden", "not_found", "not_found", "not_found"] == refused
