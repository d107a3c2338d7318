"""Ids are compared in the form of their column, and what cannot be one is nobody's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats as nats_py
import pytest
from nats.aio.client import Client

from responder.app import serving
from responder.client import UsersClient
from responder.dev import nats
from responder.settings import Settings

TABLES = """
create table users (
    id {type} primary key, name text, email text not null unique, "emailVerified" boolean
);
create table members (
    id {type} primary key, "organizationId" {type} not null, "userId" {type} not null,
    role text not null, "createdAt" timestamptz, "managerId" {type}
);
"""


@dataclass(frozen=True)
class Kind:
    """Ids of a type: two that exist, and many that do not."""

    type: str
    first: str
    second: str
    unknown: tuple[str, ...]


TEXTS = (
    "",
    " ",
    "x" * 10_000,
    "a\0b",
    "\0",
    "\ud800",
    "ü\udfff",
    "null",
    "{}",
    "'",
    '"',
    "%",
    "\\",
)
NOT_SEVEN = (
    *(" 7", "7 ", "\t7", "7\n", "0x7", "0o7", "0b111", "007", "07", "+7", "-7", "7.0", "7e0"),
    *("7_0", "٧", "７", "1_000", "-0", "00", "--7", "8", "0", "-1", "NaN", "infinity"),  # noqa: RUF001 - digits of other scripts
    *(str(2**15), str(2**31), str(-(2**31) - 1), str(2**63), str(-(2**63) - 1), "9" * 5_000),
)
UUID = "0d9e1f6a-3b1c-4d2e-8f5a-6b7c8d9e0fab"
NOT_UUID = (
    *(f"{{{UUID}}}", UUID.replace("-", ""), f" {UUID}", f"{UUID} ", f"urn:uuid:{UUID}"),
    *(UUID[:-1], f"{UUID}0", UUID.replace("a", "g"), f"{UUID}\n", UUID.replace("-", "–")),  # noqa: RUF001 - a dash
    *("0d9e-1f6a-3b1c-4d2e-8f5a-6b7c-8d9e-0fab", UUID.replace("0", "\uff10"), "7"),
    "00000000-0000-0000-0000-000000000000",
)
KINDS = {
    "text": Kind("text", "7", "Seven", (*TEXTS, *NOT_SEVEN, "seven", "SEVEN", " Seven", "Seven ")),
    "varchar": Kind("varchar(36)", "7", "Seven", (*TEXTS, *NOT_SEVEN, "seven")),
    "uuid": Kind("uuid", UUID, "11111111-2222-3333-4444-555555555555", (*TEXTS, *NOT_UUID)),
    "smallint": Kind("smallint", "7", "-32768", (*TEXTS, *NOT_SEVEN)),
    "integer": Kind("integer", "7", "2147483647", (*TEXTS, *NOT_SEVEN)),
    "bigint": Kind("bigint", "7", "-9223372036854775808", (*TEXTS, *NOT_SEVEN)),
}


@dataclass(frozen=True)
class Answers:
    """A service whose ids are of one type, to be asked as any NATS client would."""

    nc: Client
    users: UsersClient

    async def ask(self, subject: str, request: dict[str, Any]) -> Any:
        reply = await self.nc.request(subject, json.dumps(request).encode(), timeout=30)
        return json.loads(reply.data)


@pytest.fixture(scope="module", params=list(KINDS))
async def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
async def service(kind, create_database) -> AsyncIterator[Answers]:
    """A service on tables whose ids are of one type, for tests that only read."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    await connection.execute(TABLES.format(type=kind.type))
    for user in (kind.first, kind.second):
        await connection.execute(
            f"insert into users values ($1::text::{kind.type}, '', $1::text, true)", user
        )
        await connection.execute(
            f"insert into members values ($1::text::{kind.type}, $2::text::{kind.type},"
            f" $1::text::{kind.type}, 'staff', '2020-01-01', $2::text::{kind.type})",
            user,
            kind.first,
        )
    await connection.close()
    async with nats.running() as server:
        settings = Settings.read(
            {
                "DATABASE_URL": url,
                "NATS_URL": server.url,
                "RESPONDER_HTTP_LISTEN": "off",
                "RESPONDER_ADMIN_LISTEN": "off",
            }
        )
        async with (
            serving(settings),
            await nats_py.connect(server.url) as nc,
            UsersClient.connect(server.url) as users,
        ):
            yield Answers(nc, users)


async def test_ids_answer_as_strings(service, kind):
    """Every id of a user is a JSON string, whatever its column is."""
    user = await service.ask("users.get", {"id": kind.second})

    assert [kind.second, kind.first, kind.first] == [
        user[key] for key in ("id", "organizationId", "managerId")
    ]


async def test_what_cannot_be_an_id_is_nobody(service, kind):
    """An id in any other form, or out of range, is not_found, and spoils no other request."""
    asked = [kind.first, *kind.unknown, kind.second]
    answers = await asyncio.gather(*(service.ask("users.get", {"id": each}) for each in asked))

    found = {
        key: answer.get("code") or answer["id"] for key, answer in zip(asked, answers, strict=True)
    }
    expected = dict.fromkeys(kind.unknown, "not_found")
    assert expected | {kind.first: kind.first, kind.second: kind.second} == found


async def test_what_cannot_be_an_id_is_not_found_alone(service, kind):
    """The same holds for an id that is looked up alone."""
    answers = [await service.ask("users.get", {"id": each}) for each in kind.unknown]

    assert ["not_found"] * len(kind.unknown) == [answer.get("code") for answer in answers]


async def test_what_cannot_be_an_id_is_missing(service, kind):
    """users.get_many reports an id in any other form as missing, as it was asked for."""
    asked = [kind.second, *kind.unknown, kind.first]
    batch = await service.ask("users.get_many", {"ids": asked})

    assert ([kind.second, kind.first], list(kind.unknown)) == (
        [user["id"] for user in batch["users"]],
        batch["missing"],
    )


async def test_what_cannot_be_an_organization_matches_nothing(service, kind):
    """A user is in no organization whose id cannot be one."""
    unknown = [each for each in kind.unknown if each != kind.second]
    answers = await asyncio.gather(
        *(
            service.ask("users.get", {"id": kind.first, "organizationId": each})
            for each in (kind.first, *unknown)
        )
    )

    assert [kind.first, *[None] * len(unknown)] == [answer["organizationId"] for answer in answers]


async def test_what_cannot_be_an_organization_has_no_members(service, kind):
    """The list of an organization whose id cannot be one is empty."""
    answers = await asyncio.gather(
        *(service.ask("users.org_list", {"organizationId": each}) for each in kind.unknown)
    )

    assert [{"users": [], "nextCursor": None}] * len(kind.unknown) == answers


async def test_members_of_an_organization_with_ids_of_every_type(service, kind):
    """An organization is listed page by page, whatever the type of its ids."""
    found = [user.id async for user in service.users.org_list(kind.first, page=1)]

    assert {kind.first: 1, kind.second: 1} == Counter(found)


@pytest.mark.parametrize("kind", ["uuid"], indirect=True)
async def test_uuids_are_found_in_any_case(service):
    """A uuid in capitals finds its user and its organization, and answers as stored."""
    user = await service.ask("users.get", {"id": UUID.upper(), "organizationId": UUID.title()})

    assert (UUID, UUID) == (user["id"], user["organizationId"])


@pytest.mark.parametrize("kind", ["uuid"], indirect=True)
async def test_organizations_are_listed_by_uuids_in_any_case(service):
    """A uuid in capitals lists its organization, and its cursors go on."""
    found = [user.organization_id async for user in service.users.org_list(UUID.upper(), page=1)]

    assert [UUID, UUID] == found


@pytest.mark.parametrize("kind", ["uuid"], indirect=True)
async def test_a_uuid_in_two_cases_is_answered_once(service):
    """The same uuid twice is a duplicate, in whatever case."""
    batch = await service.ask("users.get_many", {"ids": [UUID.upper(), UUID]})

    assert ([UUID], []) == ([user["id"] for user in batch["users"]], batch["missing"])


@pytest.mark.parametrize(
    ("subject", "request_"),
    [
        ("get", {"id": 7}),
        ("get", {"id": 7.0}),
        ("get", {"id": True}),
        ("get", {"id": None}),
        ("get", {"id": ["7"]}),
        ("get", {"id": "7", "organizationId": 7}),
        ("by_email", {"email": 7}),
        ("get_many", {"ids": ["7", 7]}),
        ("org_list", {"organizationId": 7}),
    ],
)
async def test_an_id_that_is_not_a_string_is_invalid(people_service, subject, request_):
    """A JSON number as id is invalid_request, even where ids are integers."""
    answer = await people_service.ask(f"users.{subject}", request_)

    assert "invalid_request" == answer.code


async def test_json_of_other_languages_with_a_lone_surrogate(people_service):
    """Half of a character, as JavaScript can send it, is an unknown id."""
    answer = await people_service.ask("users.get", b'{"id":"\\ud800"}')

    assert "not_found" == answer.code


async def test_missing_ids_come_back_as_they_were_sent(people_service):
    """Half of a character is reported as missing as JSON writes it."""
    answer = await people_service.ask("users.get_many", b'{"ids":["\\ud800","\xc3\xbc","\\u0000"]}')

    assert ["\ud800", "ü", "\0"] == answer.json["missing"]


async def test_missing_ids_in_python_with_a_lone_surrogate(people_service, cast):
    """UsersClient asks for any string, and reports what is nobody's."""
    batch = await people_service.users.get_many(["ü", cast.owner.id, "\0", "\ud800"])

    assert ([cast.owner.id], ["ü", "\0", "\ud800"]) == (
        [user.id for user in batch.users],
        batch.missing,
    )
