"""Migrations under constant load: no wrong answer, and errors only while the tables do not fit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from responder.app import serving

PEOPLE = 60
ORGANIZATION = "acme"
TABLES = f"""
    create table users (id text primary key, email text unique, "emailVerified" boolean, name text,
      "createdAt" timestamptz default now());
    create table members (id text primary key, "organizationId" text, "userId" text, role text,
      "createdAt" timestamptz default now());
    insert into users
      select lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000', n || '@example.com', true,
        'name of ' || n from generate_series(0, {PEOPLE - 1}) n;
    insert into members select 'm' || id, '{ORGANIZATION}', id, 'staff' from users;
"""
# Nothing but what its name says; each leaves tables that fit as they did before.
MIGRATIONS = {
    "a column is added": 'alter table users add column "banReason" text',
    "a column is dropped": 'alter table users drop column "banReason"',
    "a column is retyped": "alter table users alter column name type varchar(100)",
    "a spelling is changed": 'alter table members rename column "userId" to user_id',
    "ids become uuids": "alter table users alter column id type uuid using id::uuid",
    "references become uuids": (
        "alter table members alter column user_id type uuid using user_id::uuid"
    ),
    "times lose their zone": 'alter table members alter column "createdAt" type timestamp',
    "the table is replaced": """
        begin; create table replacement (like users including all);
        insert into replacement select * from users;
        alter table users rename to old; alter table replacement rename to users;
        commit""",
    "the old one is dropped": "drop table old",
    "the table moves": "create schema auth; alter table users set schema auth",
    "an index is built": "create index concurrently on members (user_id)",
    "statistics are gathered": "vacuum analyze members",
}


def person(number: int) -> str:
    return str(UUID(f"{number:08}-0000-4000-8000-000000000000"))


def is_right(number: int, user: dict[str, Any]) -> bool:
    expected = {
        "id": person(number),
        "email": f"{number}@example.com",
        "name": f"name of {number}",
        "emailVerified": True,
        "organizationId": ORGANIZATION,
        "orgRole": "staff",
    }
    return expected == {key: user[key] for key in expected}


class Load:
    """Asks without a pause, and remembers what came of it."""

    def __init__(self, service) -> None:
        self.service = service
        self.right = 0
        self.errors: Counter[str | None] = Counter()
        self.wrong: list[object] = []

    async def get(self, number: int) -> None:
        user = await self.ask("users.get", person(number))
        self.judge(user, user and is_right(number, user))

    async def by_email(self, number: int) -> None:
        user = await self.ask("users.by_email", f"{number}@example.com")
        self.judge(user, user and is_right(number, user))

    async def org_list(self, _: int) -> None:
        page = await self.ask("users.org_list", {"organizationId": ORGANIZATION, "limit": 500})
        users = sorted(page["users"], key=lambda user: user["id"]) if page else []
        all_right = all(is_right(number, user) for number, user in enumerate(users))
        self.judge(page, len(users) == PEOPLE and all_right)

    async def ask(self, subject: str, payload: object) -> Any:
        answer = await self.service.ask(subject, payload)
        if answer.code:
            self.errors[answer.code] += 1
            return None
        return answer.json

    def judge(self, answer: object, is_it_right: object) -> None:
        if answer is None:
            return
        if is_it_right:
            self.right += 1
        else:
            self.wrong.append(answer)

    async def more(self, answers: int) -> None:
        """Wait for so many more right answers."""
        wanted = self.right + answers
        async with asyncio.timeout(60):
            while self.right < wanted and not self.wrong:
                await asyncio.sleep(0.005)

    def told(self) -> set[str | None]:
        """The errors since the last time this was asked."""
        errors = set(self.errors)
        self.errors.clear()
        return errors

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        asks: list[Callable[[int], Any]] = [self.get, self.by_email, self.org_list, self.get]

        done = False

        async def without_a_pause(number: int) -> None:
            while not done:
                await asks[number % len(asks)](number % PEOPLE)
                number += 1

        async with asyncio.TaskGroup() as group:
            for start in range(12):
                group.create_task(without_a_pause(start))
            try:
                yield
            finally:
                done = True


@pytest.mark.heavy
async def test_no_migration_gives_a_wrong_answer_or_an_error(start_with):
    """Whatever is added, retyped, respelled, replaced or moved under load, answers are right."""
    service = await start_with(TABLES, empty=True, RESPONDER_TIMEOUT="10")
    load = Load(service)
    problems = {}

    async with load.running():
        await load.more(100)
        for name, statements in MIGRATIONS.items():
            for statement in [statements] if "begin" in statements else statements.split(";"):
                await service.database.execute(statement)
            await load.more(200)
            problems[name] = load.told()

    assert [] == load.wrong
    assert {name: set() for name in MIGRATIONS} == problems


@pytest.mark.heavy
async def test_errors_last_only_while_the_tables_do_not_fit(start_with):
    """Replaced in two steps, the table is missed between them and never read wrongly."""
    service = await start_with(TABLES, empty=True)
    await service.database.execute("create table replacement as select * from users")
    await service.database.execute(
        'alter table replacement rename column "emailVerified" to verified'
    )
    load = Load(service)

    async with load.running():
        await load.more(100)
        before = load.told()
        await service.database.execute("alter table users rename to old")
        await service.database.execute('alter table old rename column "emailVerified" to verified')
        async with asyncio.timeout(60):
            while not load.errors:
                await asyncio.sleep(0.005)
        await service.database.execute("alter table replacement rename to users")
        await service.database.execute(
            'alter table users rename column verified to "emailVerified"'
        )
        await load.more(200)
        during = load.told()
        await load.more(200)
        after = load.told()

    assert [] == load.wrong
    assert (set(), {"unavailable"}, set()) == (before, during, after)


@pytest.mark.heavy
async def test_an_override_follows_a_renamed_column(start_with):
    """A column named by hand is missed when it is renamed, and never read as null; a worker that
    has the new name answers right.
    """
    service = await start_with(TABLES, empty=True, RESPONDER_COLUMNS="user.name=name")
    follower = service.settings.model_copy(update={"columns": {"user": {"name": "display name"}}})
    load = Load(service)

    async with load.running():
        await load.more(100)
        before = load.told()
        await service.database.execute('alter table users rename column name to "display name"')
        async with serving(follower):
            await load.more(100)
        during = load.told()
        await service.database.execute('alter table users rename column "display name" to name')
        await load.more(200)
        load.told()
        await load.more(200)
        after = load.told()

    assert [] == load.wrong
    assert (set(), {"unavailable"}, set()) == (before, during, after)
