"""What resembles Better Auth's tables, and is not: callers are never answered from it."""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
import pytest

from responder.dev.tokens import Mint
from tests.roles import as_role
from tests.shapes import JOIN_REQUEST, MESSAGE, PROJECT_ACCESS, core, member
from tests.waiting import until

PEOPLE = """
    insert into "user" (id, name, email) values ('ada', 'Ada', 'ada@example.com'),
      ('eve', 'Eve', 'eve@example.com');"""
REQUESTS = """
    insert into join_request select 'acme', id, 'member',
      case id when 'eve' then 'rejected' end from "user";"""
MESSAGES = """
    insert into message select id, 'chat', 'acme', id, 'user', '' from "user";"""
ACCESS = """
    insert into project_access select id, 'acme', 'viewer' from "user";"""


class Eve:
    """A caller, whom a service answers over and over."""

    def __init__(self, service, headers) -> None:
        self.service, self.headers = service, headers

    async def told(self) -> list[object]:
        """What she is told of Ada, of herself and of an organization in which she is not."""
        ada = await self.service.ask("users.get", "ada", self.headers)
        herself = await self.service.ask("users.get", "eve", self.headers)
        listed = await self.service.ask("users.org_list", "acme", self.headers)
        return [ada.code, herself.json.get("organizationId"), listed.code]


HIDDEN = ["not_found", None, "unavailable"]


async def test_what_resembles_memberships_makes_no_colleagues(
    create_database, start, tmp_path, caplog
):
    """A rejected requester sees no user of the organization: at the start, when more such tables
    come, and after a restart; while real memberships are taken when they come.
    """
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(core() + PEOPLE + JOIN_REQUEST + MESSAGE + REQUESTS + MESSAGES)
    mint = Mint()
    settings = mint.publish(tmp_path / "jwks.json")
    headers = {"Authorization": f"Bearer {mint.token('eve')}"}
    eve = Eve(await start(url, **settings), headers)
    at_start = await eve.told()

    await admin.execute(PROJECT_ACCESS + ACCESS)
    await until(lambda: "public.project_access has the columns of members" in caplog.text)
    running = await eve.told()
    again = Eve(await start(url, **settings), headers)
    restarted = await again.told()
    await admin.execute(member("member"))
    await admin.execute("insert into member select id, 'acme', id, 'staff' from \"user\"")
    await until(lambda: caplog.text.count("members in public.member") > 1)
    colleagues = [await each.told() for each in (eve, again)]
    await admin.close()

    assert [HIDDEN] * 3 == [at_start, running, restarted]
    assert [[None, "acme", None]] * 2 == colleagues
    for name in ("join_request", "message"):
        assert f"set RESPONDER_MEMBERS_TABLE=public.{name}" in caplog.text


async def test_members_of_another_owner_are_not_adopted_while_running(
    create_database, start, tmp_path, caplog
):
    """A role that may create tables makes no memberships for a service that runs."""

    def warned(table: str) -> bool:
        return f"{table} has the columns of members" in caplog.text

    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute("drop role if exists stranger; create role stranger login")
    try:
        await admin.execute(core() + PEOPLE)
        await admin.execute("create schema theirs authorization stranger")
        mint = Mint()
        settings = mint.publish(tmp_path / "jwks.json")
        eve = Eve(await start(url, **settings), {"Authorization": f"Bearer {mint.token('eve')}"})
        told = []
        for table in ("public.member", "theirs.org_member"):
            await admin.execute(f"{member(table)} alter table {table} owner to stranger")
            await admin.execute(f"insert into {table} select id, 'acme', id, 'o' from \"user\"")
            await until(partial(warned, table))
            told.append(await eve.told())
    finally:
        await admin.execute("drop owned by stranger; drop role stranger")
        await admin.close()

    assert [HIDDEN] * 2 == told


@pytest.fixture
async def reader(create_database):
    """A database and a role that may read nothing in it yet."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute("drop role if exists shape_reads; create role shape_reads login")
    yield url, admin
    await admin.execute("drop owned by shape_reads; drop role shape_reads")
    await admin.close()


async def test_a_copy_that_may_be_read_does_not_answer_for_what_may_not(reader, start):
    """An unreadable `user` is the error, at the start and after a restart, until it is granted."""
    url, admin = reader
    await admin.execute(
        core()
        + PEOPLE
        + """create table user_backup as table "user";
        grant select on user_backup, session to shape_reads"""
    )
    answers = []
    for _ in range(2):
        service = await start(as_role(url, "shape_reads"), RESPONDER_TIMEOUT="0.5")
        answer = await service.ask("users.get", "ada")
        ready = await service.admin.get("/ready")
        answers.append((answer.code, answer.json["message"], ready.status_code))
    await admin.execute('grant select on "user" to shape_reads')
    async with asyncio.timeout(60):
        while (granted := await service.ask("users.get", "ada")).code:
            await asyncio.sleep(0.01)

    assert [("unavailable", 503)] * 2 == [(code, status) for code, _, status in answers]
    assert all("may not read public.user." in message for _, message, _ in answers)
    assert all("backup" not in message for _, message, _ in answers)
    assert "Ada" == granted.json["name"]


async def test_views_over_what_may_not_be_read_are_named_with_their_setting(reader, start):
    """The message has the views, and a line to paste that makes them answer."""
    url, admin = reader
    await admin.execute(
        core(schema="internal")
        + member("internal.member", 'internal."user"')
        + PEOPLE.replace('"user"', 'internal."user"')
        + """insert into internal.member select id, 'acme', id, 'staff' from internal."user";
        create schema api; create view api.users as table internal."user";
        create view api.members as table internal.member;
        grant usage on schema api to shape_reads;
        grant select on all tables in schema api to shape_reads"""
    )
    blind = await start(as_role(url, "shape_reads"), RESPONDER_TIMEOUT="0.5")
    message = (await blind.ask("users.get", "ada")).json["message"]
    service = await start(as_role(url, "shape_reads"), RESPONDER_USERS_TABLE="api.users")
    ada = (await service.ask("users.get", "ada")).json

    assert "may not read internal.user" in message
    assert "it may read api.users: RESPONDER_USERS_TABLE=api.users" in message
    assert ("Ada", "acme", "staff") == (ada["name"], ada["organizationId"], ada["orgRole"])
