"""Tables that are swapped while callers ask: a copy never answers for the table that is meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from responder.dev.tokens import Mint
from responder.errors import SettingsError
from responder.postgres import discovery

TABLES = """
create table users (id text primary key, email text, "emailVerified" boolean, name text,
  banned boolean);
create table members (id text primary key, "userId" text references users, "organizationId" text,
  role text);
create table sessions (id text primary key, "userId" text references users, token text,
  "expiresAt" timestamptz, "ipAddress" text, "userAgent" text);
insert into users values ('1', 'ada@example.com', true, 'first', false),
  ('2', 'bob@example.com', true, 'first', false);
insert into members values ('m1', '1', 'acme', 'first'), ('m2', '2', 'acme', 'first');
"""
COPY = """create table {to} (like {of} including all); insert into {to} select * from {of};
update {to} set {column} = 'second'"""
USERS_NEW = COPY.format(of="users", to="users_new", column="name")
MEMBERS_NEW = COPY.format(of="members", to="members_new", column="role")
# Statements, each a transaction of its own, with what a request may be told after it: what stands
# in the table that has the name, or None for `unavailable`.
SWAPS: dict[str, list[tuple[str, str | None]]] = {
    "renamed away and in": [
        (USERS_NEW, "first"),
        ("alter table users rename to users_old", None),
        ("alter table users_new rename to users", "second"),
        ("drop table users", None),
    ],
    "renamed, and then changed": [
        (USERS_NEW, "first"),
        ("alter table users rename to users_old", None),
        ("alter table users_new rename to users", "second"),
        ("alter table users rename column email to mail", None),
        ("alter table users rename column mail to email", "second"),
    ],
    "renamed in one transaction": [
        (USERS_NEW, "first"),
        (
            "alter table users rename to users_old; alter table users_new rename to users",
            "second",
        ),
        ("drop table users_old cascade", "second"),
        ("drop table users", None),
    ],
    "renamed, then made from the old": [
        ("alter table users rename to users_backup", None),
        (COPY.format(of="users_backup", to="users", column="name"), "second"),
        ("drop table users", None),
    ],
    "dropped and made again": [
        (USERS_NEW, "first"),
        ("drop table users cascade", None),
        (COPY.format(of="users_new", to="users", column="name"), "second"),
    ],
    "moved between schemas": [
        ("create schema fresh; create schema archive", "first"),
        (COPY.format(of="users", to="fresh.users", column="name"), "first"),
        ("alter table users set schema archive", None),
        ("alter table fresh.users set schema public", "second"),
        ("drop table users", None),
    ],
    "renamed for good, and then swapped": [
        ("alter table users rename to people", "first"),
        (COPY.format(of="people", to="people_new", column="name"), "first"),
        ("alter table people rename to people_old", None),
        ("alter table people_new rename to users", "second"),
    ],
    "the members renamed away and in": [
        (MEMBERS_NEW, "first"),
        ("alter table members rename to members_old", None),
        ("alter table members_new rename to members", "second"),
        ('alter table members rename column "userId" to subject', None),
    ],
    "the members, after the users": [
        (USERS_NEW + ", email = 'x@example.com'", "first"),
        ("alter table users rename to people; alter table members rename to staff", "first"),
        ("alter table people rename to users", "first"),
        (COPY.format(of="staff", to="members", column="role"), "second"),
        ("alter table users rename to people", "second"),
    ],
}  # fmt: skip


@dataclass
class Callers:
    """Callers with tokens, who ask for each other and for their list."""

    service: Any
    mint: Mint
    seen: list[list[str]] = field(default_factory=list)  # by each who asks all the while, in order

    async def ask(self, subject: str, payload: object) -> Any:
        headers = {"Authorization": f"Bearer {self.mint.token('1')}"}
        return (await self.service.ask(subject, payload, headers)).json

    async def told(self, column: str) -> str | None:
        """Ask for a user, a list and oneself at once; return what all of them were told."""
        answers = await asyncio.gather(
            self.ask("users.get", {"id": "2"}),
            self.ask("users.by_email", {"email": "bob@example.com"}),
            self.ask("users.org_list", {"organizationId": "acme"}),
        )
        users = [user for each in answers for user in each.get("users", [each])]
        codes = {each.get("code") for each in answers}
        assert codes <= {None, "unavailable", "timeout"}, answers
        if codes != {None}:  # some may have been refused just before the table was there again
            return None
        told = {user.get(column) for user in users}
        assert len(told) == 1, answers
        return told.pop()

    @asynccontextmanager
    async def asking(self, column: str) -> AsyncIterator[None]:
        """Let callers ask all the while."""
        done = asyncio.Event()

        async def ask() -> None:
            seen: list[str] = []
            self.seen.append(seen)
            while not done.is_set():
                user = await self.ask("users.get", {"id": "2"})
                if "code" not in user and user[column] not in seen[-1:]:
                    seen.append(user[column])

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask())
            try:
                yield
            finally:
                done.set()


Begin = Callable[[str], Awaitable[Callers]]


@pytest.fixture
def begin(create_database, start, tmp_path: Path) -> Begin:
    """A function that starts a service on a database, with callers who have tokens."""

    async def on(url: str) -> Callers:
        mint = Mint()
        service = await start(
            url,
            **mint.publish(tmp_path / "jwks.json"),
            RESPONDER_TIMEOUT="0.6",
            RESPONDER_HTTP_LISTEN="off",
        )
        return Callers(service, mint)

    return on


QUICK = ("renamed away and in", "the members renamed away and in")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=() if each in QUICK else pytest.mark.heavy)  # 2 s each
        for each in SWAPS
    ],
)
async def test_a_copy_never_answers(create_database, begin, name):
    """After each statement of a migration callers are told what the table with the name has, or
    `unavailable` while there is none; and never what a copy has.
    """
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(TABLES)
    callers = await begin(url)
    column = "orgRole" if "members" in name else "name"
    told = []

    async with callers.asking(column):
        for statement, expected in SWAPS[name]:
            await admin.execute(statement)
            told.append(await _eventually(callers, column, expected))
    await admin.close()
    restarted = await _after_a_restart(begin, url, column)

    assert [expected for _, expected in SWAPS[name]] == told
    assert all(seen == sorted(set(seen)) for seen in callers.seen)  # never "first" again
    assert restarted in (told[-1], None)


async def _after_a_restart(begin: Begin, url: str, column: str) -> str | None:
    """Return what a caller is told of themself by a service that knows of no table before."""
    try:
        callers = await begin(url)
    except SettingsError:
        return None
    answer: dict[str, str | None] = await callers.ask("users.get", {"id": "1"})
    return answer.get(column)


async def _eventually(callers: Callers, column: str, expected: str | None) -> str | None:
    """Return what callers are told; where that may take a while, wait until it is as expected.

    What is told meanwhile may be what was told before, an error, and nothing else.
    """
    told = await callers.told(column)
    async with asyncio.timeout(60):
        while told is None and expected is not None:
            told = await callers.told(column)
    return told


async def test_members_that_are_dropped_for_good_take_no_restart(
    create_database, begin, monkeypatch
):
    """For a while their absence is an error; then the database is one without organizations, and
    when they come back, users have theirs.
    """
    monkeypatch.setattr(discovery, "FOR_GOOD", 1.0)
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(TABLES)
    callers = await begin(url)

    await admin.execute("drop table members")
    at_once = (await callers.ask("users.whoami", b"")).get("code")
    gone = await _until(callers, lambda user: user.get("organizationId", "") is None)
    await admin.execute("""create table members as select 'm1' as id, '1' as "userId",
      'acme' as "organizationId", 'first' as role""")
    back = await _until(callers, lambda user: user.get("organizationId") == "acme")
    await admin.close()

    assert ("unavailable", "first", "first") == (at_once, gone["name"], back["name"])


async def _until(callers: Callers, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for oneself until the answer is as it should be."""
    async with asyncio.timeout(60):
        while not condition(user := (await callers.ask("users.whoami", b"")).get("user") or {}):
            await asyncio.sleep(0.02)
    return user
