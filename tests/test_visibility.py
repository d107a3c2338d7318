"""Every kind of caller sees of every kind of user what the rules say, over NATS and HTTP."""

# The rules of subjects.md, On behalf of a user, are written here a second time, as plain Python.
# Each whole reply of the service is compared with what they say.

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from responder import cursors
from responder.dev import tables
from responder.dev.tokens import ISSUER, Mint
from tests.signing import sign_by_secret

SECRET = "the secret of an application; not short"
NOW = datetime.now(UTC)
ADMIN_ROLES = {"admin", "superadmin"}


@dataclass(frozen=True)
class Person:
    role: str | None = "user"
    banned: bool | None = False
    ban_expires: datetime | None = None
    is_anonymous: bool | None = None
    memberships: tuple[str, ...] = ()  # organizations, in the order of joining
    leads: tuple[int, ...] = ()  # which of these, from 0, with the role `lead` besides

    @property
    def is_banned(self) -> bool:
        return bool(self.banned) and (self.ban_expires is None or self.ban_expires > NOW)

    @property
    def is_admin(self) -> bool:
        return not self.is_anonymous and bool(ADMIN_ROLES & set((self.role or "user").split(",")))

    @property
    def led(self) -> set[str]:
        """The organizations in which the earliest membership has the role `lead`."""
        return {
            organization
            for at, organization in enumerate(self.memberships)
            if at in self.leads and organization not in self.memberships[:at]
        }


PEOPLE = {
    "ann": Person(memberships=("A",)),
    "ben": Person(memberships=("A",), role=None, banned=None, leads=(0,)),
    "bob": Person(memberships=("B", "A"), leads=(1,)),
    "cyd": Person(memberships=("B",)),
    "dan": Person(),
    "twice": Person(memberships=("C", "A", "C"), leads=(1, 2)),
    "twice at first": Person(memberships=("C", "C"), leads=(0,)),
    "banned": Person(memberships=("A",), banned=True),
    "banned for now": Person(
        memberships=("A", "B"), banned=True, ban_expires=NOW + timedelta(days=1), leads=(0, 1)
    ),
    "banned once": Person(
        memberships=("B", "A"), banned=True, ban_expires=NOW - timedelta(seconds=5), leads=(0, 1)
    ),
    "admin": Person(memberships=("C",), role="admin"),
    "support": Person(role="support,superadmin"),
    "banned admin": Person(role="admin", banned=True),
    "no admin": Person(role="administrator, admin", memberships=("B",)),
    "demoted": Person(memberships=("C",), role="user"),  # the token still says admin
    "guest": Person(is_anonymous=True),
    "guest member": Person(is_anonymous=True, memberships=("A", "B"), leads=(0,)),
    "guest admin": Person(is_anonymous=True, role="admin", memberships=("A",)),
}
GONE = "gone"  # a caller with a token whose row was deleted
ORGANIZATIONS = ("A", "B", "C")
CALLERS = (*PEOPLE, GONE)
HOMES = (None, "A", "C", "nowhere")  # the organization that a token names


def joined(name: str) -> list[tuple[int, str]]:
    """Return a person's memberships, each after a number that says when they joined."""
    return list(enumerate(PEOPLE[name].memberships)) if name in PEOPLE else []


def counted(caller: str, rules: str) -> set[str]:
    """Return the organizations in which a caller sees others."""
    who = PEOPLE[caller]
    return who.led if rules == "leads" else set(who.memberships)


def sees(caller: str, target: str, rules: str) -> bool:
    """Tell whether a caller may see a user."""
    if caller == target:
        return target in PEOPLE
    who = PEOPLE[caller]
    if target not in PEOPLE or who.is_anonymous:
        return False
    shared = counted(caller, rules) & set(PEOPLE[target].memberships)
    return who.is_admin or rules == "all" or bool(shared)


def record(
    caller: str, home: str | None, target: str, named: str | None, rules: str
) -> dict[str, Any]:
    """Return what a caller sees of a user whom they may see."""
    everything = caller == target or PEOPLE[caller].is_admin
    candidates = [
        (at, organization)
        for at, organization in joined(target)
        if (everything or organization in counted(caller, rules)) and named in (None, organization)
    ]
    at_home = [each for each in candidates if each[1] == home]
    at, organization = next(iter(at_home or candidates), (None, None))
    return user(target, at, organization, ban_reason=everything)


def user(
    target: str, at: int | None, organization: str | None, *, ban_reason: bool
) -> dict[str, Any]:
    person = PEOPLE[target]
    expires = person.ban_expires
    return {
        "id": target,
        "email": email(target),
        "emailVerified": True,
        "name": f"name of {target}",
        "image": None,
        "isAnonymous": bool(person.is_anonymous),
        "role": person.role or "user",
        "banned": bool(person.banned),
        "banReason": f"secret of {target}" if ban_reason else None,
        "banExpires": expires and expires.isoformat(timespec="milliseconds")[:-6] + "Z",
        "organizationId": organization,
        "orgRole": None if at is None else org_role(target, at),
        "managerId": None if at is None else f"manager of {target} in {organization}",
        "departmentId": None if at is None else f"department of {target} in {organization}",
        "additionalFields": {
            "about": {"of": target},
            "badge": None if at is None else f"badge of {target} in {organization}",
        },
    }


def org_role(name: str, at: int) -> str:
    person = PEOPLE[name]
    role = f"role of {name} in {person.memberships[at]} since {at}"
    return f"{role} , lead" if at in person.leads else role


def email(name: str) -> str:
    return f"{name.replace(' ', '.')}@example.com"


async def create_people(create_database) -> str:
    """Make a database with these people, and return its URL."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    await tables.create_tables(connection)
    await connection.execute("alter table users add about json; alter table members add badge text")
    for name, person in PEOPLE.items():
        await connection.execute(
            """insert into users (id, name, email, "emailVerified", role, banned, "banReason",
                                  "banExpires", "isAnonymous", about)
               values ($1, $2, $3, true, $4, $5, $6, $7, $8, json_build_object('of', $1::text))""",
            *(name, f"name of {name}", email(name), person.role, person.banned),
            *(f"secret of {name}", person.ban_expires, person.is_anonymous),
        )
    for each in ORGANIZATIONS:
        await connection.execute(
            """insert into organizations (id, name, slug, "createdAt")
               values ($1, $1, $1, now())""",
            each,
        )
    for place, name in enumerate(PEOPLE):
        for at, organization in joined(name):
            await connection.execute(
                """insert into members values ($1, $2, $3, $4, $5, $6, $7, $8)""",
                *(f"{name} {at}", organization, name),
                org_role(name, at),
                NOW + timedelta(minutes=at, seconds=place),
                f"manager of {name} in {organization}",
                f"department of {name} in {organization}",
                f"badge of {name} in {organization}",
            )
    await connection.close()
    return url


@dataclass(frozen=True)
class World:
    service: Any
    mint: Mint
    rules: str  # a name in RULES

    def token(self, caller: str, home: str | None) -> dict[str, str]:
        """Return the header with a token of a key or, for every other, of a shared secret."""
        claims: dict[str, Any] = {"role": "admin", "banned": False, "activeOrganizationId": home}
        if (CALLERS.index(caller) + HOMES.index(home)) % 2:
            token = self.mint.token(caller, **claims)
        else:
            times = {"iat": NOW.timestamp(), "exp": NOW.timestamp() + 3600}
            named = {"iss": ISSUER, "aud": ISSUER}  # which the settings require
            token = sign_by_secret({"userId": caller, **claims, **times, **named}, SECRET)
        return {"Authorization": f"Bearer {token}"}

    async def nats(self, endpoint: str, payload: object, headers: dict[str, str]) -> Any:
        answer = await self.service.ask(f"users.{endpoint}", payload, headers)
        assert ("Nats-Service-Error-Code" in answer.headers) == ("code" in answer.json)
        return answer

    async def http(self, path: str, named: str | None, headers: dict[str, str]) -> Any:
        query = {"organizationId": named} if named is not None else {}
        return await self.service.http.get(f"/api/v1/{path}", params=query, headers=headers)

    async def ask(
        self, transport: str, endpoint: str, request: dict[str, Any], headers: dict[str, str]
    ) -> Any:
        """Ask for a list over NATS or over HTTP, and return what is in the answer."""
        if transport == "nats":
            return (await self.nats(endpoint, request, headers)).json
        query = dict(request)
        if endpoint == "get_many":
            path = "users"
            query["id"] = query.pop("ids")
        elif endpoint == "memberships":
            path = f"users/{query.pop('id')}/memberships"
        else:
            path = f"organizations/{query.pop('organizationId')}/users"
            query["role"] = query.pop("roles", [])
        answer = await self.service.http.get(f"/api/v1/{path}", params=query, headers=headers)
        return answer.json()


# The settings that narrow or widen what callers see.
RULES = {
    "shared-organization": {},
    "all": {"RESPONDER_VISIBILITY": "all"},
    "leads": {"RESPONDER_ORG_ROLES": "it's, lead"},
}


@pytest.fixture(scope="module", params=RULES)
async def world(request, create_database, start_for_module, tmp_path_factory) -> World:
    mint = Mint()
    service = await start_for_module(
        await create_people(create_database),
        **mint.publish(tmp_path_factory.mktemp("keys") / "jwks.json"),
        RESPONDER_HTTP_AUTH="required",
        RESPONDER_JWT_SECRET=SECRET,
        RESPONDER_ADDITIONAL_FIELDS="user.about,member.badge",
        **RULES[request.param],
    )
    return World(service, mint, request.param)


def refused(caller: str) -> bool:
    """Tell whether a caller is forbidden everything but `users.whoami`."""
    return caller == GONE or PEOPLE[caller].is_banned


async def all_of(questions: Any) -> None:
    """Ask all questions, many at a time, so that callers share queries as in a busy service."""
    limit = asyncio.Semaphore(100)

    async def one(question: Any) -> None:
        async with limit:
            await question

    await asyncio.gather(*map(one, questions))


EVERY_QUESTION = list(
    itertools.product(CALLERS, HOMES, (*PEOPLE, GONE), (None, "A", "B", "nowhere"))
)


# Over HTTP, whose client needs some milliseconds for a request, each seventh: with every caller,
# every home, every user and every organization that is named.
@pytest.mark.parametrize(
    ("transport", "every"), [("nats", 1), pytest.param("http", 7, marks=pytest.mark.heavy)]
)
@pytest.mark.parametrize("subject", ["get", "by_email"])
async def test_a_caller_sees_the_users_that_the_rules_let_them_see(
    world, subject, transport, every
):
    """A caller gets a user as the rules say, or is answered as if there were no such user."""

    async def ask(caller: str, home: str | None, target: str, named: str | None) -> None:
        headers = world.token(caller, home)
        key = target if subject == "get" else email(target)
        if transport == "nats":
            request = {"id" if subject == "get" else "email": key, "organizationId": named}
            if named is None:
                del request["organizationId"]
            answer = (await world.nats(subject, request, headers)).json
        else:
            path = f"users/{key}" if subject == "get" else f"users/email/{key}"
            answer = (await world.http(path, named, headers)).json()
        question = (caller, home, target, named)
        if refused(caller):
            assert (question, "forbidden") == (question, answer["code"])
        elif not sees(caller, target, world.rules):
            assert (question, "not_found") == (question, answer["code"])
        else:
            assert (question, record(*question, world.rules)) == (question, answer)

    await all_of(ask(*question) for question in EVERY_QUESTION[::every])


@pytest.mark.parametrize("transport", ["nats", "http"])
async def test_a_caller_who_asks_for_many_users_sees_the_same(world, transport):
    """users.get_many answers the users that a caller may see, and names the others as missing."""
    ids = [*PEOPLE, GONE, "nobody"]

    async def ask(caller: str, home: str | None, named: str | None) -> None:
        request = {"ids": ids} if named is None else {"ids": ids, "organizationId": named}
        answer = await world.ask(transport, "get_many", request, world.token(caller, home))
        if refused(caller):
            assert (caller, "forbidden") == (caller, answer["code"])
            return
        seen = [each for each in ids if sees(caller, each, world.rules)]
        assert {
            "users": [record(caller, home, each, named, world.rules) for each in seen],
            "missing": [each for each in ids if each not in seen],
        } == answer

    await all_of(ask(*question) for question in itertools.product(CALLERS, HOMES, (None, "A", "C")))


@pytest.mark.parametrize(
    ("transport", "limit"),
    [("nats", 1), ("nats", 3), ("nats", 100), pytest.param("http", 3, marks=pytest.mark.heavy)],
)
async def test_an_organization_is_listed_to_its_members(world, transport, limit):
    """Members list their organization and admins any; to others it does not exist."""

    async def ask(caller: str, home: str | None, organization: str) -> None:
        headers, found, cursor = world.token(caller, home), [], None
        while True:
            request = {"organizationId": organization, "limit": limit}
            request |= {"cursor": cursor} if cursor else {}
            answer = await world.ask(transport, "org_list", request, headers)
            if "code" in answer:
                break
            found += answer["users"]
            cursor = answer["nextCursor"]
            if cursor is None:
                break
        question = (caller, organization)
        if refused(caller):
            assert (question, "forbidden") == (question, answer["code"])
            return
        who = PEOPLE[caller]
        mine = set() if who.is_anonymous else counted(caller, world.rules)
        if not who.is_admin and organization not in mine:
            assert (question, "not_found") == (question, answer["code"])
            return
        places = sorted(
            (at, place, name)
            for place, name in enumerate(PEOPLE)
            for at, each in joined(name)
            if each == organization
        )
        earliest: dict[str, int] = {}
        for at, _, name in places:
            earliest.setdefault(name, at)
        assert [
            user(name, at, organization, ban_reason=who.is_admin or name == caller)
            for name, at in earliest.items()
        ] == found

    await all_of(
        ask(*question)
        for question in itertools.product(CALLERS, (None, "A"), (*ORGANIZATIONS, "nowhere"))
    )


@pytest.mark.parametrize(
    ("transport", "limit"),
    [("nats", 1), ("nats", 100), pytest.param("http", 1, marks=pytest.mark.heavy)],
)
async def test_a_caller_sees_the_memberships_that_the_rules_let_them_see(world, transport, limit):
    """Their own all, by their id or without one; of others those in organizations that count."""

    async def ask(caller: str, target: str | None) -> None:
        headers, found, cursor = world.token(caller, None), [], None
        while True:
            request = {"limit": limit} if target is None else {"id": target, "limit": limit}
            request |= {"cursor": cursor} if cursor else {}
            answer = await world.ask(transport, "memberships", request, headers)
            if "code" in answer:
                break
            found += answer["memberships"]
            cursor = answer["nextCursor"]
            if cursor is None:
                break
        question, of = (caller, target), caller if target is None else target
        if refused(caller):
            assert (question, "forbidden") == (question, answer["code"])
        elif not sees(caller, of, world.rules):
            assert (question, "not_found") == (question, answer["code"])
        else:
            assert (question, memberships(caller, of, world.rules)) == (question, found)

    targets = (*PEOPLE, GONE, *([None] if transport == "nats" else []))
    await all_of(ask(*question) for question in itertools.product(CALLERS, targets))


def memberships(caller: str, target: str, rules: str) -> list[dict[str, Any]]:
    """Return the memberships that a caller sees of a user whom they may see."""
    earliest: dict[str, int] = {}
    for at, organization in joined(target):
        earliest.setdefault(organization, at)
    everything = caller == target or PEOPLE[caller].is_admin
    place = list(PEOPLE).index(target)
    return [
        {
            "organizationId": organization,
            "organizationName": organization,
            "organizationSlug": organization,
            "orgRole": org_role(target, at),
            "managerId": f"manager of {target} in {organization}",
            "departmentId": f"department of {target} in {organization}",
            "createdAt": (NOW + timedelta(minutes=at, seconds=place))
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
        }
        for organization, at in earliest.items()
        if everything or organization in counted(caller, rules)
    ]


@pytest.mark.parametrize("transport", ["nats", "http"])
async def test_every_caller_is_told_who_they_are(world, transport):
    """users.whoami answers a caller's whole record, even if they are banned or have no row."""

    async def ask(caller: str, home: str | None, named: str | None) -> None:
        headers = world.token(caller, home)
        if transport == "nats":
            request = {} if named is None else {"organizationId": named}
            answer = (await world.nats("whoami", request, headers)).json
        else:
            answer = (await world.http("me", named, headers)).json()
        expected = None
        if caller in PEOPLE:
            expected = record(caller, home, caller, named, world.rules)
        assert {"identity", "user"} == answer.keys()
        assert ((caller, home, named), expected) == ((caller, home, named), answer["user"])
        identity = answer["identity"]
        assert (caller, home, "admin") == (
            *(identity["userId"], identity["organizationId"], identity["role"]),
        )

    await all_of(
        ask(*question) for question in itertools.product(CALLERS, HOMES, (None, "A", "nowhere"))
    )


async def test_a_hidden_user_is_answered_like_one_that_does_not_exist(world):
    """A user who is hidden from a caller gets, byte for byte, the reply to an unknown id."""
    for caller, who in PEOPLE.items():
        if refused(caller):
            continue
        headers = world.token(caller, None)
        unknown = {
            "get": await world.nats("get", "nobody", headers),
            "by_email": await world.nats("by_email", "nobody@example.com", headers),
            "memberships": await world.nats("memberships", "nobody", headers),
        }
        nowhere = await world.nats("org_list", "nowhere", headers)
        on_http = without_date(await world.http("users/nobody", None, headers))
        memberships_on_http = without_date(
            await world.http("users/nobody/memberships", None, headers)
        )
        list_on_http = without_date(await world.http("organizations/nowhere/users", None, headers))
        for target in PEOPLE:
            if sees(caller, target, world.rules):
                continue
            assert unknown["get"] == await world.nats("get", target, headers)
            assert unknown["memberships"] == await world.nats("memberships", target, headers)
            assert unknown["by_email"] == await world.nats("by_email", email(target), headers)
            assert on_http == without_date(await world.http(f"users/{target}", None, headers))
            assert memberships_on_http == without_date(
                await world.http(f"users/{target}/memberships", None, headers)
            )
        for each in set(ORGANIZATIONS) - counted(caller, world.rules):
            if not who.is_admin:
                assert nowhere == await world.nats("org_list", each, headers)
                assert list_on_http == without_date(
                    await world.http(f"organizations/{each}/users", None, headers)
                )
                assert await world.nats("org_list", continued("nowhere"), headers) == (
                    await world.nats("org_list", continued(each), headers)
                )


@pytest.mark.parametrize(("transport", "limit"), [("nats", 1), ("nats", 100), ("http", 100)])
async def test_an_organization_is_listed_by_roles_to_those_who_may_list_it(world, transport, limit):
    """With roles the list has those of its users whose earliest membership holds one."""

    async def ask(caller: str, organization: str) -> None:
        headers, found, cursor = world.token(caller, None), [], None
        while True:
            request = {"organizationId": organization, "limit": limit, "roles": ["lead", "none"]}
            request |= {"cursor": cursor} if cursor else {}
            answer = await world.ask(transport, "org_list", request, headers)
            if "code" in answer:
                break
            found += [each["id"] for each in answer["users"]]
            cursor = answer["nextCursor"]
            if cursor is None:
                break
        question = (caller, organization)
        who = PEOPLE.get(caller)
        if refused(caller) or who is None:
            assert (question, "forbidden") == (question, answer["code"])
            return
        mine = set() if who.is_anonymous else counted(caller, world.rules)
        if not who.is_admin and organization not in mine:
            assert (question, "not_found") == (question, answer["code"])
            return
        leading = [
            (PEOPLE[name].memberships.index(organization), place, name)
            for place, name in enumerate(PEOPLE)
            if organization in PEOPLE[name].led
        ]
        assert (question, [name for *_, name in sorted(leading)]) == (question, found)

    await all_of(
        ask(*question) for question in itertools.product(CALLERS, (*ORGANIZATIONS, "nowhere"))
    )


def continued(organization: str) -> dict[str, str]:
    """Return the request for a page that follows another."""
    position = cursors.Position(organization, None, "x")
    return {"organizationId": organization, "cursor": cursors.encode(position)}


def without_date(response: Any) -> tuple[Any, ...]:
    headers = [(name, value) for name, value in response.headers.items() if name != "date"]
    return response.status_code, headers, response.content


async def test_a_service_sees_every_user(world):
    """A request without a token gets every user, and the reasons of bans."""
    for name in PEOPLE:
        answer = (await world.nats("get", name, {})).json
        at, organization = next(iter(joined(name)), (None, None))
        assert user(name, at, organization, ban_reason=True) == answer


async def test_a_change_of_the_caller_counts_at_once(world):
    """A caller who is promoted, demoted, banned, or leaves an organization sees accordingly."""
    headers = world.token("dan", None)

    async def seen() -> str:
        return (await world.nats("get", "cyd", headers)).json.get("code", "seen")

    database = world.service.database
    visible = "seen" if world.rules == "all" else "not_found"
    as_viewer = "not_found" if world.rules == "leads" else "seen"
    assert visible == await seen()
    for statement, expected in (
        ("update users set role = 'admin' where id = 'dan'", "seen"),
        ("update users set role = 'user' where id = 'dan'", visible),
        ("insert into members values ('x', 'B', 'dan', 'viewer', now())", as_viewer),
        ("update members set role = 'viewer,lead' where id = 'x'", "seen"),
        ("delete from members where id = 'x'", visible),
        ("update users set banned = true where id = 'dan'", "forbidden"),
        ("update users set \"banExpires\" = now() where id = 'dan'", visible),
        ("update users set banned = false, \"banExpires\" = null where id = 'dan'", visible),
    ):
        await database.execute(statement)
        assert (statement, expected) == (statement, await seen())


async def test_a_token_may_be_required_over_nats(create_database, start, tmp_path):
    """With RESPONDER_NATS_AUTH=required every subject refuses a request without a token."""
    mint = Mint()
    service = await start(
        await create_people(create_database),
        **mint.publish(tmp_path / "jwks.json"),
        RESPONDER_NATS_AUTH="required",
    )
    asked = {
        "get": "ann",
        "by_email": "ann@example.com",
        "org_list": "A",
        "get_many": {"ids": ["ann"]},
        "whoami": "",
    }
    headers = {"Authorization": f"Bearer {mint.token('ann')}"}
    for subject, payload in asked.items():
        assert "unauthenticated" == (await service.ask(f"users.{subject}", payload)).code
        assert (await service.ask(f"users.{subject}", payload, headers)).code is None
    assert 401 == (await service.http.get("/api/v1/users/ann")).status_code


async def test_the_roles_of_admins_are_a_setting(create_database, start, tmp_path):
    """A caller with a role of RESPONDER_ADMIN_ROLES sees every user; one with `admin` does not."""
    mint = Mint()
    service = await start(
        await create_people(create_database),
        **mint.publish(tmp_path / "jwks.json"),
        RESPONDER_ADMIN_ROLES="support, it's",
    )
    found = {
        caller: (
            await service.ask("users.get", "dan", {"Authorization": f"Bearer {mint.token(caller)}"})
        ).code
        for caller in ("support", "admin")
    }

    assert {"support": None, "admin": "not_found"} == found


async def test_the_python_client_asks_on_behalf_of_a_user(world):
    """UsersClient.on_behalf_of gets what the user may see, and whoami returns the user."""
    ben = world.service.users.on_behalf_of(world.mint.token("ben"))

    me = await ben.whoami()
    members = [each.id async for each in ben.org_list("A", page=2)]

    assert ("ben", "ben") == (me.identity.user_id, me.user.id)
    assert "bob" in members
    assert (await ben.get("bob")).organization_id == "A"
    assert (await world.service.users.get("bob")).organization_id == "B"
    assert json.loads(me.model_dump_json(by_alias=True))["identity"]["issuer"] == ISSUER
