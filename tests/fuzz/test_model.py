"""While rows change, each answer is what the contract says of the rows at some moment meanwhile."""

# Writers change rows one transaction at a time, and make of each a new state of the model. A reader
# notes which write had been confirmed when it asked, and which had been begun when it was answered:
# the answer has to be that of one of these states, whole. An answer that mixes two, that is older
# than its request, or that shows what its caller may not see, is that of none.

from __future__ import annotations

import asyncio
import random
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import pytest

from responder.dev import tables
from responder.dev.tokens import Mint
from responder.endpoints import ENDPOINTS
from tests.fuzz.budget import TIMEOUT, Budget, chance
from tests.fuzz.model import Caller, MemberRow, Model, Question, Rules, State, UserRow

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(TIMEOUT)]

NOW = datetime.now(UTC)
PEOPLE = [f"person {n}" for n in range(12)]
ORGANIZATIONS = [f"org {n}" for n in range(4)]
EMAILS = [f"mail.{n}@example.com" for n in range(9)]  # fewer than people: some share one
NOWHERE = ("nobody", "", "a\0b", "org 9", "' or true --")
READERS, WRITERS = 24, 3
WALKS = 4  # readers who walk through pages
LOOSEN = """
alter table users drop constraint users_email_key, alter email drop not null;
alter table members alter "createdAt" drop not null;
"""
USER_COLUMNS = (
    *("id", "email", "createdAt", "emailVerified", "name", "image", "isAnonymous"),
    *("role", "banned", "banReason", "banExpires"),
)
MEMBER_COLUMNS = (
    *("id", "organizationId", "userId", "role", "createdAt", "managerId", "departmentId"),
)


def _upsert(table: str, columns: tuple[str, ...]) -> str:
    names = ", ".join(f'"{each}"' for each in columns)
    values = ", ".join(f"${n}" for n in range(1, 1 + len(columns)))
    changes = ", ".join(f'"{each}" = excluded."{each}"' for each in columns)
    return (
        f"insert into {table} ({names}) values ({values}) on conflict (id) do update set {changes}"
    )


UPSERT = {
    UserRow: _upsert("users", USER_COLUMNS),
    MemberRow: _upsert("members", MEMBER_COLUMNS),
}


@dataclass
class World:
    """The states that there have been, the last of which may not be confirmed yet."""

    states: list[State]
    confirmed: int = 0  # the last state that surely is in the tables
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, pool: asyncpg.Pool, numbers: random.Random) -> None:
        """Change some rows in one transaction."""
        async with self.writing, pool.acquire() as connection:
            state = self.states[-1]
            for _ in range(numbers.choice((1, 1, 1, 2, 5))):
                state = _changed(state, numbers)
            before = self.states[-1]
            self.states.append(state)
            async with connection.transaction():
                await _apply(connection, before, state)
            self.confirmed = len(self.states) - 1


async def _apply(connection: Any, before: State, after: State) -> None:
    """Bring tables from one state to another."""
    await connection.execute(
        "delete from users where id = any($1)", list(before.users.keys() - after.users.keys())
    )
    await connection.execute(
        "delete from members where id = any($1)", list(before.members.keys() - after.members.keys())
    )
    for old, new in ((before.users, after.users), (before.members, after.members)):
        for key, row in new.items():
            if old.get(key) != row:
                await connection.execute(UPSERT[type(row)], *astuple(row))


def _changed(state: State, numbers: random.Random) -> State:
    """Return a state in which one thing is different."""
    pick = numbers.choice
    user = state.users.get(pick(PEOPLE))
    member = state.members[pick(list(state.members))] if state.members else None
    kind = numbers.randrange(10)
    if user is None:
        return state.with_user(_new_user(pick(PEOPLE), numbers))
    if kind == 0:
        return state.without_user(user.id)
    if kind <= 3:
        return state.with_user(_different(user, numbers))
    if kind <= 6 or member is None:
        return state.with_member(_new_member(user.id, numbers))
    if kind == 7:
        return state.with_member(replace(member, role=pick(("owner", "staff", "a,b"))))
    return state.without_member(member.id)


def _new_user(id_: str, numbers: random.Random) -> UserRow:
    user = UserRow(id_, numbers.choice(EMAILS), NOW - timedelta(days=numbers.randrange(3)))
    return _different(_different(user, numbers), numbers)


def _different(user: UserRow, numbers: random.Random) -> UserRow:
    pick = numbers.choice
    return replace(
        user,
        **pick(
            (
                {"banned": pick((None, False))},
                {"banned": True, "ban_expires": None, "ban_reason": "a reason"},
                {"banned": True, "ban_expires": NOW + timedelta(days=9), "ban_reason": None},
                {"banned": True, "ban_expires": NOW - timedelta(days=9), "ban_reason": "old"},
                {"role": pick((None, "", "user", "support"))},
                {"role": pick(("admin", "user,superadmin"))},
                {"is_anonymous": pick((None, False, True))},
                {"email": pick((*EMAILS, None))},
                {"name": f"name {numbers.randrange(999)}"},
                {"image": pick((None, "https://images.example/x.png"))},
                {"email_verified": pick((True, False))},
            )
        ),
    )


def _new_member(user_id: str, numbers: random.Random) -> MemberRow:
    pick = numbers.choice
    return MemberRow(
        f"membership {numbers.randrange(60)}",
        pick(ORGANIZATIONS),
        user_id,
        pick(("owner", "admin", "viewer")),
        pick((None, NOW, NOW - timedelta(days=numbers.randrange(5)))),
        pick((None, "a manager")),
        pick((None, "a department")),
    )


@dataclass(frozen=True)
class Reader:
    """Asks a service, over NATS or HTTP, and looks whether the answers are the model's."""

    service: Any
    mint: Mint
    rules: Rules
    world: World
    numbers: random.Random
    tokens: dict[Caller, str]

    async def read(self) -> None:
        """Ask one question, and look at its answer."""
        question = self.question()
        first = self.world.confirmed
        over_http = self.numbers.random() < 0.3
        answer = await (self.over_http if over_http else self.over_nats)(question)
        possible = []
        for state in self.world.states[first:]:
            possible.append(Model(state, self.rules).answer(question))
            if possible[-1] == answer:
                return
        pytest.fail(f"{question}\nwas answered {answer}\nand not {possible}")

    def question(self) -> Question:
        """Return any question."""
        pick, caller = self.numbers.choice, None
        if self.numbers.random() < 0.7:
            caller = Caller(pick((*PEOPLE, "gone")), pick((None, *ORGANIZATIONS, "org 9")))
        endpoint = pick([each.name for each in ENDPOINTS])
        request = REQUESTS[endpoint](self.numbers)
        if endpoint not in {"org_list", "memberships"} and self.numbers.random() < 0.4:
            request["organizationId"] = pick((*ORGANIZATIONS, *NOWHERE, None))
        return Question(endpoint, request, caller)

    def headers(self, caller: Caller | None) -> dict[str, str]:
        if caller is None:
            return {}
        if caller not in self.tokens:
            claims: dict[str, Any] = {"role": "admin", "orgId": caller.organization_id}
            self.tokens[caller] = self.mint.token(caller.user_id, **claims)
        return {"Authorization": f"Bearer {self.tokens[caller]}"}

    async def over_nats(self, question: Question) -> Any:
        payload: Any = _spelled(question.request, self.numbers)
        reply = await self.service.ask(
            f"users.{question.endpoint}", payload, self.headers(question.caller)
        )
        return _answer(reply.code, reply.json)

    async def over_http(self, question: Question) -> Any:
        (route,) = (each.route for each in ENDPOINTS if each.name == question.endpoint)
        if route is None or "" in question.request.values():  # a path has no empty segment
            return await self.over_nats(question)
        rest = {key: value for key, value in question.request.items() if value is not None}
        path = route
        for key in question.request:
            if f"{{{key}}}" in path:
                path = path.replace(f"{{{key}}}", quote(rest.pop(key), safe=""))
        if "ids" in rest:
            rest["id"] = rest.pop("ids")
        query = f"?{urlencode(rest, doseq=True)}" if rest else ""
        reply = await self.service.http.get(path + query, headers=self.headers(question.caller))
        return _answer(None if reply.is_success else reply.json()["code"], reply.json())

    async def walk(self) -> None:
        """Walk through an organization: who is in it throughout is seen once, and in order."""
        pick = self.numbers.choice
        caller = pick((None, Caller(pick(PEOPLE))))
        organization, limit = pick(ORGANIZATIONS), self.numbers.randrange(1, 4)
        first, cursor, seen = self.world.confirmed, None, []
        while True:
            since = self.world.confirmed
            request = {"organizationId": organization, "limit": limit, "cursor": cursor}
            reply = await self.service.ask("users.org_list", request, self.headers(caller))
            states = self.world.states[since:]
            whole = {"organizationId": organization}
            possible = [
                Model(state, self.rules).answer(Question("org_list", whole, caller))
                for state in states
            ]
            if reply.code:
                assert reply.code in possible
                return
            page = reply.json["users"]
            assert len(page) <= limit
            lists = [each["users"] for each in possible if not isinstance(each, str)]
            assert any(all(user in users for user in page) for users in lists), (page, lists)
            seen += [each["id"] for each in page]
            cursor = reply.json["nextCursor"]
            if cursor is None:
                break
        throughout = _throughout(self.world.states[first:], organization)
        assert throughout == [each for each in seen if each in throughout], (seen, throughout)


def _throughout(states: list[State], organization: str) -> list[str]:
    """Return users whose membership in an organization speaks for them in every state."""
    listed = [
        [(each.user_id, each.id, each.created_at) for each in Model(state).listed(organization)]
        for state in states
    ]
    return [each[0] for each in listed[0] if all(each in others for others in listed)]


REQUESTS: dict[str, Any] = {
    "get": lambda numbers: {"id": numbers.choice((*PEOPLE, *NOWHERE))},
    "by_email": lambda numbers: {
        "email": numbers.choice((*EMAILS, *(each.upper() for each in EMAILS), "x@example.com"))
    },
    "get_many": lambda numbers: {
        "ids": numbers.choices((*PEOPLE, *NOWHERE), k=numbers.randrange(1, 20))
    },
    "org_list": lambda numbers: {
        "organizationId": numbers.choice((*ORGANIZATIONS, *NOWHERE)),
        "limit": 500,
    },
    "memberships": lambda numbers: {
        "id": numbers.choice((*PEOPLE, *NOWHERE)),
        "limit": 500,
    },
    "whoami": lambda numbers: {},
}


def _spelled(request: Any, numbers: random.Random) -> Any:
    """Return the payload of a request in one of the forms that it may have."""
    if not request:
        return numbers.choice((b"", {}))
    if numbers.random() < 0.2 and "organizationId" in request:
        rest = {key: value for key, value in request.items() if key != "organizationId"}
        return rest | {"organization_id": request["organizationId"]}
    return dict(request)


def _answer(code: str | None, reply: Any) -> Any:
    """Return what the model speaks of: of whoami, not what the token says."""
    if code is not None:
        return code
    return {key: value for key, value in reply.items() if key != "identity"}


def test_the_model_has_every_endpoint():
    """What can be asked has a method of the model, and questions."""
    names = {each.name for each in ENDPOINTS}

    assert set() == names - REQUESTS.keys()
    assert all(hasattr(Model, each) for each in names)


RULES = {
    "by-organization": ({}, Rules()),
    "all": ({"RESPONDER_VISIBILITY": "all"}, Rules(visible_to_all=True)),
    "by-role": (
        {"RESPONDER_ORG_ROLES": "owner,b"},
        Rules(organization_roles=frozenset({"owner", "b"})),
    ),
}


@pytest.mark.parametrize(("variables", "rules"), RULES.values(), ids=RULES)
async def test_each_answer_is_that_of_the_rows_at_some_moment(
    create_database, start, tmp_path, variables, rules
):
    """Whoever asks, and whatever is written meanwhile, the answer is what the contract says."""
    numbers = chance("rows")
    url = await create_database()
    connection = await asyncpg.connect(url)
    await tables.create_tables(connection)
    await connection.execute(LOOSEN)
    await connection.executemany(
        """insert into organizations (id, name, slug, "createdAt")
        values ($1, 'name of ' || $1::text, 'slug of ' || $1::text, now())""",
        [(each,) for each in ORGANIZATIONS],
    )
    state = State()
    for _ in range(80):
        state = _changed(state, numbers)
    await _apply(connection, State(), state)
    await connection.close()
    mint, world = Mint(), World([state])
    service = await start(
        url, **mint.publish(tmp_path / "jwks.json"), RESPONDER_TIMEOUT="10", **variables
    )
    tokens = dict[Caller, str]()
    budget, asked = Budget(0.4), 0

    async def write(number: int) -> None:
        changes = chance(f"writer {number}")
        while budget.left:
            await world.write(service.database, changes)

    async def read(number: int) -> None:
        nonlocal asked
        reader = Reader(service, mint, rules, world, chance(f"reader {number}"), tokens)
        while budget.left:
            await (reader.walk() if number < WALKS else reader.read())
            asked += 1

    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(number))
        for number in range(READERS):
            group.create_task(read(number))

    print(f"{asked} questions, {len(world.states)} states")
    assert asked > READERS
    assert len(world.states) > WRITERS
