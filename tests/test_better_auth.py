"""With real Better Auth on its own tables: its writes are seen at once, and its tokens verify."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from responder.dev.tokens import Mint
from responder.models import User

pytestmark = pytest.mark.heavy

ROLES = ("owner", "admin", "staff", "viewer")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Company:
    """A Better Auth application, and a responder that answers for its users."""

    better_auth: Any
    service: Any
    boss: Any  # the account of a platform admin
    token: str  # of the boss

    async def nats(self, subject: str, payload: object, token: str | None = None) -> Any:
        """Ask over NATS, as a service or on behalf of the user of a token; return the answer."""
        answer = await self.service.ask(f"users.{subject}", payload, token and bearer(token))
        return answer.json

    async def http(self, path: str, token: str, **query: str) -> Any:
        """Ask over HTTP on behalf of the user of a token; return the answer."""
        url = f"/api/v1/{path}"
        return (await self.service.http.get(url, headers=bearer(token), params=query)).json()

    async def seen(self, id: str) -> Any:  # noqa: A002 - its name on the wire
        """Return a user as services see them over NATS, and the platform admin over HTTP."""
        over_nats, over_http = await asyncio.gather(
            self.nats("get", id), self.http(f"users/{id}", self.token)
        )
        assert same(over_nats) == same(over_http)
        return over_nats

    async def seen_by(self, token: str, id: str) -> Any:  # noqa: A002 - its name on the wire
        """Return a user as the user of a token sees them, over NATS and HTTP."""
        over_nats, over_http = await asyncio.gather(
            self.nats("get", id, token), self.http(f"users/{id}", token)
        )
        assert same(over_nats) == same(over_http)
        return over_nats

    async def members(self, organization: str, token: str | None = None) -> Any:
        """Return the roles in an organization by user id."""
        page = await self.nats("org_list", organization, token)
        return {each["id"]: each["orgRole"] for each in page["users"]}

    async def act(self, path: str, **body: Any) -> Any:
        """Call an endpoint of the admin plugin as the platform admin."""
        return await self.better_auth.post(f"admin/{path}", self.boss.session, **body)

    async def found(self, owner: Any, name: str) -> str:
        """Let a user found an organization; return its id."""
        slug = f"{name}-{owner.id.lower()}"
        made = await self.better_auth.post(
            "organization/create", owner.session, name=name, slug=slug
        )
        return made["id"]


def same(answer: Any) -> Any:
    """Return what both transports have in common: the whole user, or the code of an error."""
    return answer.get("code", answer)


@pytest.fixture(scope="module")
async def company(better_auth, start_for_module) -> Company:
    service = await start_for_module(
        better_auth.database,
        BETTER_AUTH_URL=better_auth.origin,
        RESPONDER_HTTP_AUTH="required",
    )
    boss = await better_auth.sign_up("boss")
    # Only an admin can make an admin, so the first one is made in the tables.
    await service.database.execute("update users set role = 'admin' where id = $1", boss.id)
    return Company(better_auth, service, boss, await better_auth.token(boss.session))


async def test_a_new_user_is_found_at_once(company):
    """A user who has just signed up is found by id and by email, by services and by themselves."""
    ann = await company.better_auth.sign_up("Ann")
    expected = {
        "id": ann.id,
        "email": ann.email.lower(),
        "emailVerified": False,
        "name": "Ann",
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
    token = await company.better_auth.token(ann.session)

    assert expected == await company.seen(ann.id)
    assert expected == await company.seen_by(token, ann.id)
    assert expected == await company.nats("by_email", ann.email)
    assert expected == await company.http(f"users/email/{ann.email}", token)
    assert expected == (await company.nats("whoami", "", token))["user"]
    assert expected == (await company.http("me", token))["user"]


async def test_a_new_member_is_seen_with_their_role(company):
    """A member with any role is seen as soon as they are added, by the owner and by services."""
    owner = await company.better_auth.sign_up("owner")
    token = await company.better_auth.token(owner.session)
    organization = await company.found(owner, "roles")
    assert {owner.id: "owner"} == await company.members(organization, token)
    for role in ROLES:
        person = await company.better_auth.sign_up(role)
        assert "not_found" == (await company.seen_by(token, person.id))["code"]
        await company.better_auth.join(
            organization, person.id, role, managerId=owner.id, departmentId=f"department of {role}"
        )
        user = await company.seen_by(token, person.id)
        assert user == await company.seen(person.id)
        assert (organization, role, owner.id, f"department of {role}") == (
            *(user["organizationId"], user["orgRole"]),
            *(user["managerId"], user["departmentId"]),
        )
        assert role == (await company.members(organization, token))[person.id]
    assert ["owner", *ROLES] == list((await company.members(organization)).values())


async def test_a_member_gets_another_role_and_is_removed(company):
    """A new role counts at once; a removed member and the others no longer see each other."""
    owner = await company.better_auth.sign_up("owner")
    person = await company.better_auth.sign_up("member")
    theirs = await company.better_auth.token(person.session)
    organization = await company.found(owner, "changes")
    token = await company.better_auth.token(owner.session)
    member = await company.better_auth.join(organization, person.id, "viewer")
    assert "viewer" == (await company.seen_by(token, person.id))["orgRole"]
    for role in ("staff", "admin", ["admin", "staff"]):
        await company.better_auth.post(
            "organization/update-member-role",
            owner.session,
            memberId=member["id"],
            role=role,
            organizationId=organization,
        )
        stored = role if isinstance(role, str) else ",".join(role)
        assert stored == (await company.seen_by(token, person.id))["orgRole"]
        assert stored == (await company.seen(person.id))["orgRole"]
    assert "owner" == (await company.seen_by(theirs, owner.id))["orgRole"]

    await company.better_auth.post(
        "organization/remove-member",
        owner.session,
        memberIdOrEmail=member["id"],
        organizationId=organization,
    )

    assert "not_found" == (await company.seen_by(token, person.id))["code"]
    assert "not_found" == (await company.seen_by(theirs, owner.id))["code"]
    assert "not_found" == (await company.nats("org_list", organization, theirs))["code"]
    assert {owner.id: "owner"} == await company.members(organization, token)
    assert (await company.seen(person.id))["organizationId"] is None


async def test_the_organization_of_a_token_counts_until_it_is_left(company):
    """A user answers with the organization of their token; once they left it, with another."""
    owner = await company.better_auth.sign_up("owner")
    person = await company.better_auth.sign_up("twice")
    first, second = await company.found(owner, "first"), await company.found(owner, "second")
    for organization in (first, second):
        await company.better_auth.join(organization, person.id, "staff")
    await company.better_auth.post("organization/set-active", person.session, organizationId=second)
    token = await company.better_auth.token(person.session)
    assert second == (await company.seen_by(token, person.id))["organizationId"]
    assert first == (await company.seen(person.id))["organizationId"]
    assert (
        first == (await company.http("me", token, organizationId=first))["user"]["organizationId"]
    )

    await company.better_auth.post("organization/leave", person.session, organizationId=second)

    me = await company.http("me", token)
    assert second == me["identity"]["organizationId"]
    assert first == me["user"]["organizationId"]
    assert first == (await company.seen_by(token, person.id))["organizationId"]


async def test_a_banned_user_is_forbidden(company):
    """A ban and its end count from the next request on, whatever the token says."""
    person = await company.better_auth.sign_up("Ben")
    token = await company.better_auth.token(person.session)
    for reason in ("spam", "again"):
        await company.act("ban-user", userId=person.id, banReason=reason)

        assert "forbidden" == (await company.seen_by(token, person.id))["code"]
        me = await company.http("me", token)
        assert (True, reason, None) == (
            *(me["user"]["banned"], me["user"]["banReason"], me["user"]["banExpires"]),
        )
        assert me == await company.nats("whoami", "", token)
        assert me["user"] == await company.seen(person.id)

        await company.act("unban-user", userId=person.id)

        user = await company.seen_by(token, person.id)
        assert (False, None) == (user["banned"], user["banReason"])
        assert user == await company.seen(person.id)


async def test_a_ban_ends_by_itself(company):
    """A user is forbidden until their ban ends and not after, though the row still says banned."""
    person = await company.better_auth.sign_up("Cyd")
    token = await company.better_auth.token(person.session)
    before = datetime.now(UTC)
    await company.act("ban-user", userId=person.id, banReason="for now", banExpiresIn=2)
    after = datetime.now(UTC)

    assert "forbidden" == (await company.seen_by(token, person.id))["code"]
    ends = User.model_validate(await company.seen(person.id)).ban_expires
    assert ends
    seconds = timedelta(seconds=1.9), timedelta(seconds=2.1)
    assert before + seconds[0] < ends < after + seconds[1]
    while (answer := await company.nats("get", person.id, token)).get("code") == "forbidden":
        assert datetime.now(UTC) < ends + timedelta(seconds=1)
    assert datetime.now(UTC) >= ends
    assert (True, "for now") == (answer["banned"], answer["banReason"])
    assert answer == await company.seen_by(token, person.id)


async def test_an_admin_role_counts_while_it_is_held(company):
    """A new admin sees all users at once, a demoted one no longer, whatever their token says."""
    person = await company.better_auth.sign_up("Dan")
    plain = await company.better_auth.token(person.session)
    assert "not_found" == (await company.seen_by(plain, company.boss.id))["code"]
    await company.act("set-role", userId=person.id, role=["admin", "user"])
    assert "admin,user" == (await company.seen(person.id))["role"]
    assert company.boss.id == (await company.seen_by(plain, company.boss.id))["id"]
    token = await company.better_auth.token(person.session)
    assert "admin,user" == (await company.nats("whoami", "", token))["identity"]["role"]

    await company.act("set-role", userId=person.id, role="user")

    assert "user" == (await company.seen_by(token, person.id))["role"]
    assert "not_found" == (await company.seen_by(token, company.boss.id))["code"]


async def test_a_changed_email_is_found(company):
    """After a change of email the new one finds its user, and the old one none."""
    person = await company.better_auth.sign_up("Eve")
    new = f"New.{person.email}"
    await company.better_auth.post("change-email", person.session, newEmail=new)
    found = await company.nats("by_email", new)

    assert (person.id, new.lower()) == (found["id"], found["email"])
    assert found == await company.http(f"users/email/{new}", company.token)
    assert found == await company.seen(person.id)
    assert "not_found" == (await company.nats("by_email", person.email))["code"]
    assert "not_found" == (await company.http(f"users/email/{person.email}", company.token))["code"]


async def test_a_deleted_user_is_gone(company):
    """A deleted user is found by no lookup and in no list, and their token is forbidden."""
    owner = await company.better_auth.sign_up("owner")
    person = await company.better_auth.sign_up("Fay")
    organization = await company.found(owner, "goodbye")
    await company.better_auth.join(organization, person.id, "staff")
    token = await company.better_auth.token(person.session)
    assert [owner.id, person.id] == list(await company.members(organization, token))

    await company.act("remove-user", userId=person.id)

    assert "not_found" == (await company.seen(person.id))["code"]
    assert "not_found" == (await company.nats("by_email", person.email))["code"]
    assert [owner.id] == list(await company.members(organization))
    ids = {"ids": [person.id, owner.id]}
    assert [person.id] == (await company.nats("get_many", ids))["missing"]
    assert "forbidden" == (await company.seen_by(token, owner.id))["code"]
    me = await company.nats("whoami", "", token)
    assert (person.id, None) == (me["identity"]["userId"], me["user"])
    assert me == await company.http("me", token)


ROUNDS = 1000
LANES = 4  # users who are changed at the same time


@pytest.mark.timeout(600)
async def test_a_thousand_writes_are_read_back(company):
    """In 1,000 of 1,000 rounds the next answers show what Better Auth has just written."""
    stale: list[Any] = []
    rounds = itertools.count()

    async def lane(number: int) -> None:
        owner = await company.better_auth.sign_up(f"owner {number}".replace(" ", ""))
        person = await company.better_auth.sign_up(f"person{number}")
        token = await company.better_auth.token(owner.session)
        organization = await company.found(owner, "lane")
        member = await company.better_auth.join(organization, person.id, "viewer")
        current = await company.seen_by(token, person.id)
        changes = itertools.cycle(
            [write_name, write_role, ban, unban, write_organization_role, write_image]
        )
        while (at := next(rounds)) < ROUNDS:
            current = current | await next(changes)(company, owner, person, member, at)
            answers = await asyncio.gather(
                company.nats("get", person.id),
                company.nats("get", person.id, company.token),
                company.http(f"users/{person.id}", company.token),
                company.nats("get", person.id, token),
                company.http(f"users/email/{person.email}", token),
            )
            # Only admins see the reason of a ban.
            expected = [*[current] * 3, *[current | {"banReason": None}] * 2]
            if list(answers) != expected:
                stale.append((at, expected, answers))

    await asyncio.gather(*map(lane, range(LANES)))

    assert [] == stale
    assert ROUNDS + LANES == next(rounds)


async def write_name(company, owner, person, member, at: int) -> dict[str, Any]:
    name = f"name {at}"
    await company.act("update-user", userId=person.id, data={"name": name})
    return {"name": name}


async def write_image(company, owner, person, member, at: int) -> dict[str, Any]:
    image = f"https://example.com/{at}.png"
    await company.act("update-user", userId=person.id, data={"image": image})
    return {"image": image}


async def write_role(company, owner, person, member, at: int) -> dict[str, Any]:
    role = ("user", "admin")[at % 2]
    await company.act("set-role", userId=person.id, role=role)
    return {"role": role}


async def ban(company, owner, person, member, at: int) -> dict[str, Any]:
    await company.act("ban-user", userId=person.id, banReason=f"round {at}")
    return {"banned": True, "banReason": f"round {at}"}


async def unban(company, owner, person, member, at: int) -> dict[str, Any]:
    await company.act("unban-user", userId=person.id)
    return {"banned": False, "banReason": None}


async def write_organization_role(company, owner, person, member, at: int) -> dict[str, Any]:
    role = ROLES[1:][at % 3]
    await company.better_auth.post(
        "organization/update-member-role",
        owner.session,
        memberId=member["id"],
        role=role,
        organizationId=member["organizationId"],
    )
    return {"orgRole": role}


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "ES512", "RS256", "PS256"])
async def test_tokens_verify_as_issued(company, start, algorithm):
    """A token signed with any of Better Auth's algorithms is accepted over NATS and HTTP."""
    application = company.better_auth.another(algorithm)
    service = await start(
        application.database, BETTER_AUTH_URL=application.url, RESPONDER_HTTP_AUTH="required"
    )
    there = Company(
        application, service, company.boss, await application.token(company.boss.session)
    )
    person = await application.sign_up(algorithm)
    token = await application.token(person.session)
    claims = jwt.decode(token, options={"verify_signature": False})

    me = await there.nats("whoami", "", token)

    assert algorithm == jwt.get_unverified_header(token)["alg"]
    assert {
        "userId": person.id,
        "email": person.email.lower(),
        "name": algorithm,
        "role": "user",
        "organizationId": None,
        "orgRole": None,
        "issuer": application.origin,
        "audience": [application.origin],
        "issuedAt": written(claims["iat"]),
        "expiresAt": written(claims["exp"]),
    } == me["identity"]
    assert me == await there.http("me", token)
    assert person.id == (await there.seen_by(token, person.id))["id"]
    assert me["user"] == await there.seen(person.id)
    tail = "A" if token[-20] != "A" else "B"
    forged = f"{token[:-20]}{tail}{token[-19:]}"
    assert "unauthenticated" == (await there.seen_by(forged, person.id))["code"]


async def test_tokens_of_the_demo_are_like_better_auth_s(company, cast):
    """Header and claims have the names of Better Auth's own, and their values the same types."""
    theirs = await company.better_auth.token(company.boss.session)
    ours = Mint().token_of(cast.owner)
    header = [jwt.get_unverified_header(each) for each in (theirs, ours)]
    claims = [jwt.decode(each, options={"verify_signature": False}) for each in (theirs, ours)]
    # The application of these tests adds this one to what the plugin writes by itself.
    claims[0].pop("activeOrganizationId")

    assert header[0].keys() == header[1].keys()
    assert claims[0].keys() == claims[1].keys()
    for name, value in claims[0].items():
        assert len({type(value), type(claims[1][name])} - {type(None)}) <= 1, name
    for each in claims:
        assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}[.][0-9]{3}Z", each["createdAt"])


def written(seconds: int) -> str:
    """Return a time as subjects.md, The User has it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.000Z"


async def test_tokens_of_the_application_s_own_secret(company, start):
    """A token that the application signs with Better Auth's secret speaks until its user is banned.

    One of the same user that a key has signed is accepted, too.
    """
    application = company.better_auth.another("secret")
    service = await start(
        application.database,
        BETTER_AUTH_URL=application.url,
        RESPONDER_JWT_SECRET=application.secret,
        RESPONDER_HTTP_AUTH="required",
    )
    there = Company(application, service, company.boss, company.token)
    person = await application.sign_up("Hal")
    organization = await company.found(person, "own")
    token = (await application.own_token(person.session))["token"]
    claims = jwt.decode(token, options={"verify_signature": False})

    me = await there.nats("whoami", "", token)

    assert {"alg": "HS256"} == jwt.get_unverified_header(token)
    assert {
        "userId": person.id,
        "email": person.email.lower(),
        "name": "Hal",
        "role": "user",
        "organizationId": organization,
        "orgRole": "owner",
        "issuer": None,
        "audience": [],
        "issuedAt": written(claims["iat"]),
        "expiresAt": written(claims["iat"] + 24 * 60 * 60),
    } == me["identity"]
    assert me == await there.http("me", token)
    assert person.id == (await there.seen_by(token, person.id))["id"]
    assert "not_found" == (await there.seen_by(token, company.boss.id))["code"]
    of_key = await application.token(person.session)
    assert me["user"] == await there.seen_by(of_key, person.id)

    await company.act("ban-user", userId=person.id, banReason="spam")

    assert "forbidden" == (await there.seen_by(token, person.id))["code"]
    assert (await there.http("me", token))["user"]["banned"]


async def test_what_better_auth_signs_for_itself_is_no_token(company, start):
    """The link that verifies an email, and the cookie that caches a session, are refused."""
    application = company.better_auth.another("secret")
    service = await start(
        application.database,
        RESPONDER_JWT_SECRET=application.secret,
        RESPONDER_HTTP_AUTH="required",
    )
    there = Company(application, service, company.boss, company.token)
    person = await application.sign_up("Ida")
    await application.post("send-verification-email", person.session, email=person.email)
    link = (await application.own_token(person.session))["link"]
    answer = await application.http.get(
        f"{application.url}/get-session", headers=bearer(person.session)
    )
    cookie = answer.cookies["better-auth.session_data"]
    application.http.cookies.clear()

    for token, claim, reason in (
        (link, "userId", "role: missing, which a token with userId needs"),
        (cookie, "session", "session: no claim of a token that speaks for a user"),
    ):
        assert "HS256" == jwt.get_unverified_header(token)["alg"]
        assert claim in jwt.decode(token, application.secret, algorithms=["HS256"])
        refused = await there.nats("get", person.id, token)
        assert {"code": "unauthenticated", "message": reason} == refused
        assert "unauthenticated" == (await there.http("me", token))["code"]
    of_key = await there.nats("get", person.id, await application.token(person.session))
    assert "unauthenticated" == of_key["code"]
    assert "RESPONDER_JWKS_URL" in of_key["message"]


async def test_tokens_verify_while_keys_rotate(company, start):
    """A token of a new key is answered at once, and one of an old key while that is published."""
    rotating = company.better_auth.another("rotating")
    service = await start(
        rotating.database, BETTER_AUTH_URL=rotating.url, RESPONDER_HTTP_AUTH="required"
    )
    person = await rotating.sign_up("Gus")
    there = Company(rotating, service, person, await rotating.token(person.session))

    async def newer(token: str) -> str:
        """Wait for a token that is signed with another key."""
        while kid(new := await rotating.token(person.session)) == kid(token):
            pass
        return new

    async def published() -> set[str]:
        return {
            each["kid"] for each in (await rotating.http.get(f"{rotating.url}/jwks")).json()["keys"]
        }

    first = there.token
    assert person.id == (await there.seen_by(first, person.id))["id"]
    second = await newer(first)
    assert {kid(first), kid(second)} <= await published()
    for token in (second, first):
        assert person.id == (await there.seen_by(token, person.id))["id"]
    while kid(first) in await published():
        pass
    third = await newer(second)
    assert person.id == (await there.seen_by(third, person.id))["id"]
    refused = await there.nats("get", person.id, first)
    assert {"code": "unauthenticated", "message": "kid: no such key"} == refused
    assert "unauthenticated" == (await there.seen_by(first, person.id))["code"]


def kid(token: str) -> str:
    """Return the id of a token's key."""
    return str(jwt.get_unverified_header(token)["kid"])


@dataclass
class Proxy:
    """Stands before the real key set, and spoils its answers by `fault`."""

    target: str
    http: httpx.AsyncClient
    fault: str | None = None
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if self.fault == "slow":
                await reader.read()  # until the other side gives up
            elif self.fault != "down":
                writer.write(await self._reply())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _reply(self) -> bytes:
        genuine = (await self.http.get(self.target)).content
        status, body = {
            None: ("200 OK", genuine),
            "rubbish": ("200 OK", genuine[:-20]),
            "empty": ("200 OK", b'{"keys":[]}'),
            "a redirect": (f"302 Found\r\nLocation: {self.target}", b""),
        }[self.fault]
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body


@asynccontextmanager
async def standing_before(application: Any, fault: str | None) -> AsyncIterator[Proxy]:
    proxy = Proxy(f"{application.url}/jwks", application.http, fault)
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield proxy
    finally:
        server.close()


@pytest.mark.parametrize("fault", ["down", "slow", "rubbish", "empty", "a redirect"])
async def test_tokens_through_an_outage_of_the_key_endpoint(company, start, fault):
    """During an outage of the key set known keys serve; without any, a token is `unavailable`."""
    application = company.better_auth
    asked = company.boss.id
    async with standing_before(application, fault) as proxy:
        service = await start(
            application.database,
            BETTER_AUTH_URL=application.origin,
            RESPONDER_JWKS_URL=proxy.url,
            RESPONDER_HTTP_AUTH="required",
        )
        there = Company(application, service, company.boss, company.token)
        await undisturbed(there, there.seen_by(company.token, asked), {"unavailable"})
        assert "warning: the key set" in (await service.admin.get("/ready")).text or fault == "slow"

        proxy.fault = None
        # A download that began earlier may be under way; a token waits for it while it has time.
        while "code" in (answer := await there.seen_by(company.token, asked)):
            assert "unavailable" == answer["code"]
        assert asked == answer["id"]

        proxy.fault = fault
        stranger = Mint().token(asked)
        await undisturbed(
            there, there.seen_by(stranger, asked), {"unauthenticated", "unavailable"}, company.token
        )
        person = await application.sign_up("Hal")
        token = await application.token(person.session)
        assert person.id == (await there.seen_by(token, person.id))["id"]


async def undisturbed(
    there: Company, waiting: Any, codes: set[str], token: str | None = None
) -> None:
    """Ask on while a token waits for keys: requests with a known key or no token are answered."""
    task = asyncio.create_task(waiting)
    clock = asyncio.get_running_loop().time
    slowest, last = 0.0, clock()
    while not task.done():
        assert there.boss.id == (await there.nats("get", there.boss.id, token))["id"]
        assert there.boss.id == (await there.nats("get", there.boss.id))["id"]
        slowest, last = max(slowest, clock() - last), clock()
    assert (await task)["code"] in codes
    assert slowest < 0.5


async def test_a_guest_sees_only_themself(company):
    """The token of an anonymous user shows them their own record, and no other."""
    guest = await company.better_auth.post("sign-in/anonymous")
    user_id, token = guest["user"]["id"], await company.better_auth.token(guest["token"])
    me = await company.nats("whoami", "", token)

    assert (user_id, guest["user"]["email"]) == (me["identity"]["userId"], me["identity"]["email"])
    assert (True, "Anonymous") == (me["user"]["isAnonymous"], me["user"]["name"])
    assert me == await company.http("me", token)
    assert me["user"] == await company.seen_by(token, user_id)
    assert "not_found" == (await company.seen_by(token, company.boss.id))["code"]


async def test_an_admin_who_impersonates_a_user_sees_what_the_user_sees(company):
    """The token of an admin who impersonates a user is that of the user, and no admin's."""
    person = await company.better_auth.sign_up("Ida")
    answer = await company.act("impersonate-user", userId=person.id)
    token = await company.better_auth.token(answer["session"]["token"])

    assert person.id == (await company.nats("whoami", "", token))["identity"]["userId"]
    assert await company.seen(person.id) == await company.seen_by(token, person.id)
    assert "not_found" == (await company.seen_by(token, company.boss.id))["code"]


async def test_a_session_token_is_told_from_a_jwt(company):
    """A session token is refused with where to get a JWT, and is not repeated."""
    session = company.boss.session
    expected = f"not a JWT: get one from {company.better_auth.origin}/api/auth/token"

    over_nats = await company.nats("get", company.boss.id, session)
    over_http = await company.http("me", session)

    assert {"code": "unauthenticated", "message": expected} == over_nats
    assert ("unauthenticated", expected) == (over_http["code"], over_http["detail"])
