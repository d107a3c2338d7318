"""Callers with a token are served on tables with ids of every type, and without some columns."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from responder.dev.tokens import Mint
from tests.shapes import ADA, MEMBERS, PLAIN

pytestmark = pytest.mark.heavy

UUIDS = tuple(f"0d9e1f6a-3b1c-4d2e-8f5a-6b7c8d9e0fa{n}" for n in range(10))
NUMBERS = tuple(map(str, range(1, 11)))
PADDED = tuple(f"person {n}" for n in range(10))
# Ten ids for each type of column.
IDS = {
    "text": NUMBERS,
    "varchar(36)": NUMBERS,
    "char(8)": PADDED,
    "uuid": UUIDS,
    "smallint": NUMBERS,
    "integer": NUMBERS,
    "bigint": NUMBERS,
    "user_id": NUMBERS,
}
# The types of users.id, members.userId and members.organizationId.
TYPES = [
    *((each, each, each) for each in IDS),
    *(("text", "text", each) for each in IDS if each != "text"),
    ("varchar(36)", "text", "uuid"),
    ("char(8)", "text", "uuid"),
    ("uuid", "text", "text"),
    ("bigint", "text", "integer"),
    ("integer", "bigint", "char(8)"),
]


@dataclass(frozen=True)
class World:
    service: Any
    mint: Mint

    async def ask(self, caller: str, subject: str, payload: object = b"", **claims: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.mint.token(caller, **claims)}"}
        return (await self.service.ask(f"users.{subject}", payload, headers)).json


Begin = Callable[..., Awaitable[World]]


@pytest.fixture
def begin(create_database, start, tmp_path: Path) -> Begin:
    """A function that makes tables, and starts a service on them that accepts tokens."""

    async def on(sql: str, **settings: str) -> World:
        url = await create_database()
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()
        mint = Mint()
        service = await start(
            url, **mint.publish(tmp_path / "jwks.json"), RESPONDER_TIMEOUT="10", **settings
        )
        return World(service, mint)

    return on


@pytest.mark.parametrize("types", TYPES, ids=", ".join)
async def test_colleagues_see_each_other_with_ids_of_any_type(begin, types):
    """Members of an organization see each other and their list, and users of others do not."""
    user, owner, organization = types
    ids, organizations = IDS[user], IDS[organization]
    home, other = organizations[7], organizations[8]
    rows = "; ".join(
        f"insert into users values ('{ids[n]}', '{n}@example.com', true);"
        f"insert into members values ('{ids[n]}', '{where}', 'staff')"
        for n, where in enumerate((home, home, other))
    )
    world = await begin(f"""
        create domain user_id as text check (length(value) < 99);
        create table users (id {user} primary key, email varchar(99), "emailVerified" boolean);
        create table members ("userId" {owner}, "organizationId" {organization}, role varchar(9));
        {rows}""")
    ann, ben, cyd = ids[:3]

    async def code(subject: str, payload: object) -> str | None:
        return (await world.ask(ann, subject, payload, activeOrganizationId=home)).get("code")

    together = await asyncio.gather(
        *(world.ask(ids[n], "get", ids[at]) for n, at in itertools.product(range(4), range(4)))
    )

    assert [ann, ben, "not_found", "not_found"] == [
        each.get("id", each.get("code")) for each in together[:4]
    ]
    assert ["forbidden"] * 4 == [each["code"] for each in together[12:]]
    assert [None, "not_found", None, "not_found"] == [
        await code("by_email", "1@example.com"),
        await code("by_email", "2@example.com"),
        await code("org_list", home),
        await code("org_list", other),
    ]
    assert "not_found" == await code("org_list", "no such organization, and no such id either")
    listed = await world.ask(ann, "org_list", home)
    assert [ann, ben] == [each["id"] for each in listed["users"]]
    many = await world.ask(ann, "get_many", {"ids": [cyd, ben, "nobody", ann]})
    assert [ben, ann] == [each["id"] for each in many["users"]]
    assert [cyd, "nobody"] == many["missing"]
    me = await world.ask(cyd, "whoami", {"organizationId": other})
    assert (cyd, other) == (me["user"]["id"], me["user"]["organizationId"])


# Types of members.role, each with a value that holds the role `admin` and with one that does not.
ROLES = [
    ("text", " owner,\tadmin ", "administrator"),
    ("org_role", "admin", "staff"),
    ("text[]", "{staff,admin}", "{staff}"),
    ("org_role[]", "{admin,staff}", "{}"),
]


@pytest.mark.parametrize(("type_", "holding", "other"), ROLES, ids=[each[0] for each in ROLES])
async def test_a_role_in_an_organization_is_compared_whatever_its_type(
    begin, type_, holding, other
):
    """With RESPONDER_ORG_ROLES who holds one of them sees colleagues, and who does not only them.

    Of duplicate memberships the earliest is asked, and one without a role holds none.
    """
    world = await begin(
        f"""
        create type org_role as enum ('admin', 'staff');
        create table users (id text primary key, email text, "emailVerified" boolean);
        create table members ("userId" text, "organizationId" text, role {type_},
                              "createdAt" timestamptz);
        insert into users select id, id || '@example.com', true
          from unnest(array['ann', 'ben', 'cyd', 'dan', 'eve']) id;
        insert into members values
          ('ann', 'acme', '{holding}', null), ('ben', 'acme', '{other}', null),
          ('cyd', 'acme', '{holding}', null), ('cyd', 'acme', '{other}', now()),
          ('dan', 'acme', '{other}', null), ('dan', 'acme', '{holding}', now()),
          ('eve', 'acme', null, null)""",
        RESPONDER_ORG_ROLES="owner,admin",
    )

    async def seen(caller: str) -> tuple[Any, Any, Any]:
        me = await world.ask(caller, "whoami")
        colleague, listed = (
            await world.ask(caller, "get", "eve"),
            await world.ask(caller, "org_list", "acme"),
        )
        return me["user"]["organizationId"], colleague.get("orgRole", "?"), listed.get("code")

    assert ("acme", None, None) == await seen("ann") == await seen("dan")
    assert ("acme", "?", "not_found") == await seen("ben") == await seen("cyd")
    assert ("acme", None, "not_found") == await seen("eve")


async def test_a_number_names_the_organization_of_a_caller(begin):
    """Where ids are numbers, a claim that is one chooses the membership, as its text does."""
    world = await begin("""
        create table users (id integer primary key, email text, "emailVerified" boolean);
        create table members ("userId" integer, "organizationId" integer, role text,
                              "createdAt" timestamptz);
        insert into users values (1, 'a@example.com', true);
        insert into members values (1, 6, 'staff', '2024-01-01'), (1, 7, 'owner', '2025-01-01')""")

    async def seen(**claims: Any) -> tuple[str | None, str]:
        me = await world.ask("1", "whoami", **claims)
        return me["identity"]["organizationId"], me["user"]["organizationId"]

    assert (None, "6") == await seen()
    assert ("7", "7") == await seen(activeOrganizationId=7) == await seen(o={"id": 7})
    assert ("7", "7") == await seen(activeOrganizationId="7")
    assert ("8", "6") == await seen(activeOrganizationId=8)


@pytest.mark.parametrize("subject", ["nobody", "\0", "x" * 9_000, "-1", "' or 1=1 --", UUIDS[0]])
@pytest.mark.parametrize("type_", ["uuid", "integer", "char(8)", "text"])
async def test_a_token_for_an_impossible_id_is_forbidden(begin, subject, type_):
    """A token whose `sub` cannot be an id is forbidden everything, and whoami has no user."""
    world = await begin(f"""
        create table users (id {type_} primary key, email text, "emailVerified" boolean);
        create table members ("userId" {type_}, "organizationId" text, role text);
        insert into users values ('{IDS[type_][1]}', 'a@example.com', true)""")
    claims = {"activeOrganizationId": "\0"}

    me = await world.ask(subject, "whoami", **claims)

    assert (subject, None) == (me["identity"]["userId"], me["user"])
    for asked, payload in (
        ("get", {"id": IDS[type_][1]}),
        ("get", {"id": subject}),
        ("by_email", "a@example.com"),
        ("org_list", "acme"),
        ("get_many", {"ids": [subject]}),
    ):
        assert "forbidden" == (await world.ask(subject, asked, payload, **claims))["code"]


async def test_an_image_leaves_room_for_the_identity(begin):
    """users.whoami leaves out, and counts, an image that does not fit in beside the identity."""
    world = await begin(f"""
        create table users (id text primary key, email text, "emailVerified" boolean, image text);
        insert into users
        values ('ann', 'ann@example.com', true, repeat('x', {1024 * 1024 - 400}))""")

    user, me = await world.ask("ann", "get", "ann"), await world.ask("ann", "whoami")
    metrics = (await world.service.admin.get("/metrics")).text

    assert len(user["image"]) > 1_000_000
    assert {**user, "image": None} == me["user"]
    assert "responder_images_omitted_total 1.0" in metrics


async def test_an_outage_does_not_make_a_caller_unknown(begin):
    """Without the table of users, users.whoami is unavailable, and not without a user."""
    world = await begin(PLAIN + MEMBERS + ADA)
    await world.service.database.execute("drop table users")

    assert "unavailable" == (await world.ask("1", "whoami"))["code"]
