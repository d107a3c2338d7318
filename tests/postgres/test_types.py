"""Columns of types that Better Auth does not make, and memberships that were deleted softly."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from responder.dev.tokens import Mint
from tests.conftest import Start

TABLES = """
create table users (id text primary key, email text, "emailVerified" boolean, role text,
  banned boolean default true, "banExpires" timestamptz);
create table members (id text primary key, "userId" text references users, "organizationId" text,
  role text, "createdAt" timestamptz);
insert into users values ('1', 'ada@example.com', true), ('2', 'bob@example.com', true);
update users set banned = false where id = '2';
insert into members values ('m1', '1', 'acme', 'owner', '2020-01-01'),
  ('m2', '2', 'acme', 'staff', '2020-01-02'), ('m3', '2', 'zeta', 'staff', '2019-01-01');
"""
FUTURE, PAST, YEAR_ONE = "2100-01-02T03:04:05.678Z", "2001-09-09T01:46:40.000Z", "0001-01-01"
# By type: what a column has, what is answered, and whether a ban until then is in force.
BANS: dict[str, list[tuple[str | None, str | None, bool]]] = {
    "timestamptz": [
        ("2100-01-02 03:04:05.678Z", FUTURE, True),
        ("infinity", None, True),
        ("-infinity", f"{YEAR_ONE}T00:00:00.000Z", False),
        (None, None, True),
    ],
    "timestamp": [
        ("2100-01-02 03:04:05.678", FUTURE, True),
        ("infinity", None, True),
        ("2001-09-09 01:46:40", PAST, False),
    ],
    "date": [
        ("2100-01-02", "2100-01-02T00:00:00.000Z", True),
        ("infinity", None, True),
        ("500000-01-01", None, True),
        ("-infinity", f"{YEAR_ONE}T00:00:00.000Z", False),
    ],
    "bigint": [
        ("4102542245", "2100-01-02T03:04:05.000Z", True),
        ("4102542245678", FUTURE, True),
        ("1000000000000", PAST, False),
        ("99999999999", "5138-11-16T09:46:39.000Z", True),
        ("100000000000", "1973-03-03T09:46:40.000Z", False),
        ("9223372036854775807", None, True),
        ("-9223372036854775808", f"{YEAR_ONE}T00:00:00.000Z", False),
        (None, None, True),
    ],
    "numeric": [
        ("4102542245.678", FUTURE, True),
        ("1e300", None, True),
        ("-1e300", f"{YEAR_ONE}T00:00:00.000Z", False),
        ("NaN", None, True),
        ("1000000000", PAST, False),
    ],
    "double precision": [
        ("4102542245678", FUTURE, True),
        ("Infinity", None, True),
        ("-Infinity", f"{YEAR_ONE}T00:00:00.000Z", False),
        ("NaN", None, True),
    ],
    "text": [
        ("2100-01-02T03:04:05.678Z", FUTURE, True),
        ("2100-01-02 04:04:05.678+01:00", FUTURE, True),
        ("2100-01-02T03:04:05.678", FUTURE, True),
        ("2100-01-02", "2100-01-02T00:00:00.000Z", True),
        ("2001-09-09T01:46:40Z", PAST, False),
        ("2000-02-29", "2000-02-29T00:00:00.000Z", False),
        *((rubbish, None, True) for rubbish in (
            "", " ", "infinity", "never", "tomorrow", "now", "1700000000000", "2001-02-30",
            "1900-02-29", "0000-01-01", "2001-13-01", "2001-09-09T25:00Z", "2001-09-09T01:46:40+99",
            "2001-09-09T01:46:40 America/New_York", "20010909", "2001-09-09\n", "294277-01-01",
            "2001-09-09T01:46:40." + "1" * 200 + "Z",
        )),
    ],
    "a_time": [("2100-01-02 03:04:05.678Z", FUTURE, True), (None, None, True)],
}  # fmt: skip
ROLES: dict[str, list[tuple[str | None, str]]] = {
    "jsonb": [
        ('["admin", "user"]', "admin,user"),
        ('"support"', "support"),
        ("[]", "user"),
        ("null", "user"),
        (None, "user"),
        ('{"a": 1}', '{"a": 1}'),
    ],
    "json": [('["support","user"]', "support,user"), ("7", "7"), (r'"\u0000"', "user")],
    "text[]": [("{support,user}", "support,user"), ("{}", "user")],
    "a_role": [("admin", "admin")],
}


class World:
    """Two users with tokens on tables that change their types."""

    def __init__(
        self, service: Any, mint: Mint, admin: asyncpg.Connection[Any], start: Start
    ) -> None:
        self.service, self.mint, self.admin, self.start = service, mint, admin, start

    async def ask(self, caller: str, subject: str, payload: object) -> Any:
        headers = {"Authorization": f"Bearer {self.mint.token(caller)}"}
        return (await self.service.ask(subject, payload, headers)).json

    async def another(self) -> Any:
        """Start another service on the same database."""
        return await self.start(self.service.url, RESPONDER_HTTP_LISTEN="off")

    async def retype(self, table: str, column: str, kind: str) -> None:
        await self.admin.execute(
            f'alter table {table} drop column "{column}"; '
            f'alter table {table} add column "{column}" {kind}'
        )


@pytest.fixture
async def world(create_database, start, tmp_path: Path) -> AsyncIterator[World]:
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(
        "create domain inner_time as timestamptz; create domain a_time as inner_time;"
        "create type role_word as enum ('admin', 'user'); create domain a_role as role_word;"
    )
    await admin.execute(TABLES)
    mint = Mint()
    service = await start(
        url,
        **mint.publish(tmp_path / "jwks.json"),
        RESPONDER_HTTP_LISTEN="off",
    )
    yield World(service, mint, admin, start)
    await admin.close()


async def test_the_end_of_a_ban_is_read_whatever_its_type(world):
    """It is answered in one form, decides alike, and what is no time is a ban without end."""
    expected, told = [], []
    for kind, cases in BANS.items():
        await world.retype("users", "banExpires", kind)
        for stored, shown, banned in cases:
            constant = "null" if stored is None else f"$${stored}$$::text::{kind}"
            await world.admin.execute(f"""update users set "banExpires" = {constant}""")
            who = await world.ask("1", "users.whoami", b"")
            asked = await world.ask("1", "users.get", {"id": "2"})
            ours = await world.service.ask("users.get", "1")
            expected.append((kind, stored, shown, shown, "forbidden" if banned else None))
            told.append(
                (
                    kind,
                    stored,
                    who["user"]["banExpires"],
                    ours.json["banExpires"],
                    asked.get("code"),
                )
            )

    assert expected == told


async def test_roles_are_read_whatever_their_type(world):
    """JSON, arrays and domains answer as Better Auth stores several roles, and decide alike."""
    expected, told = [], []
    for kind, cases in ROLES.items():
        await world.retype("users", "role", kind)
        for stored, shown in cases:
            constant = "null" if stored is None else f"$${stored}$$::text::{kind}"
            await world.admin.execute(f"update users set banned = false, role = {constant}")
            user = await world.ask("2", "users.get", {"id": "2"})
            lists = await world.ask("1", "users.org_list", {"organizationId": "zeta"})
            expected.append((kind, stored, shown, "admin" not in shown))
            told.append((kind, stored, user["role"], lists.get("code") == "not_found"))

    assert expected == told


async def test_an_optional_column_of_an_unreadable_type_counts_as_missing(world, caplog):
    """Its field is as if there were none, and a warning names it, its type and the setting."""
    await world.retype("users", "banExpires", "interval")
    await world.retype("users", "banned", "point")
    await world.retype("members", "createdAt", "jsonb")

    user = (await world.service.ask("users.get", "2")).json

    warned = "public.users.banned is of type point, which cannot be read as banned"
    async with asyncio.timeout(60):
        while not any(warned in each.message for each in caplog.records):
            await asyncio.sleep(0.05)

    assert (False, None, "acme") == (user["banned"], user["banExpires"], user["organizationId"])


@pytest.mark.parametrize("column", ['"deletedAt" timestamptz', "deleted_at timestamp"])
async def test_a_membership_that_was_deleted_softly_does_not_count(world, column):
    """Not for the organization of a user, not for what a caller sees, not in a list; and one that
    was deleted does not speak instead of a later one.
    """
    name = column.split()[0]
    await world.admin.execute("update users set banned = false")
    await world.admin.execute(f"alter table members add column {column}")
    before = [await world.ask("1", "users.get", {"id": "2"}), await _list(world)]

    await world.admin.execute(f"update members set {name} = now() where id in ('m2', 'm3')")
    after = [
        await world.ask("1", "users.get", {"id": "2"}),
        await world.ask("2", "users.get", {"id": "1"}),
        await world.ask("2", "users.org_list", {"organizationId": "acme"}),
    ]
    alone = (await world.service.ask("users.get", "2")).json
    listed = await _list(world)
    await world.admin.execute("insert into members values ('m4', '2', 'acme', 'viewer', now())")
    again = await world.ask("1", "users.get", {"id": "2"})

    assert ["acme", ["1", "2"]] == [before[0]["organizationId"], before[1]]
    assert ["not_found"] * 3 == [each["code"] for each in after]
    assert (None, None, ["1"]) == (alone["organizationId"], alone["orgRole"], listed)
    assert ("viewer", ["1", "2"]) == (again["orgRole"], await _list(world))


async def _list(world: World) -> list[str]:
    page = (await world.service.ask("users.org_list", "acme")).json
    return [user["id"] for user in page["users"]]


async def test_memberships_of_a_profile_are_read_through_the_view_of_the_readme(world):
    """The view that docs/tables.md shows is taken for the member table, without a setting."""
    readme = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    (view,) = re.findall(r"create view member as.*?;", readme, re.DOTALL)
    await world.admin.execute("drop table members")
    await world.admin.execute("""
        create table profiles (id int primary key, "userId" text references users);
        create table profile_memberships (id int, "profileId" int references profiles,
          "organizationId" text, role text, "createdAt" timestamptz);
        insert into profiles values (7, '2'); insert into profile_memberships
          values (1, 7, 'omega', 'guest', now());""")
    await world.admin.execute(view)
    again = await world.another()

    user = (await again.ask("users.get", "2")).json

    assert ("omega", "guest") == (user["organizationId"], user["orgRole"])
