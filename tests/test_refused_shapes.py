"""Tables that cannot be read as they are: the operator is told what was found and what to set."""

from __future__ import annotations

import asyncpg
import pytest

from responder.errors import SettingsError
from tests.roles import as_role
from tests.shapes import ADA, MEMBERS, PLAIN

REFUSED = {
    "an id that is no key": (
        PLAIN.replace("id text", "id jsonb"),
        {},
        "public.users.id is of type jsonb, which cannot be read as id; RESPONDER_COLUMNS=user.id=",
    ),
    "a number with a fraction": (
        PLAIN.replace("id text", "id numeric"),
        {},
        "public.users.id is of type numeric",
    ),
    "two applications": (
        (
            "create schema a; create schema b; create table a.users (id text, email text, "
            "email_verified bool); create table b.users (id text, email text, email_verified bool)"
        ),
        {},
        "several tables could be Better Auth's: a.users, b.users; RESPONDER_USERS_TABLE decides",
    ),
    "a hundred tenants": (
        "".join(
            f"create schema t{n};"
            f"create table t{n}.users (id text, email text, email_verified bool);"
            for n in range(100, 200)
        ),
        {},
        (
            "t100.users, t101.users, t102.users, t103.users, t104.users and 95 more; "
            "RESPONDER_USERS_TABLE"
        ),
    ),
    "two tables of members": (
        PLAIN + MEMBERS + MEMBERS.replace("members", "member"),
        {},
        "public.member, public.members; RESPONDER_MEMBERS_TABLE decides",
    ),
    "a table that is not there": (
        PLAIN,
        {"RESPONDER_USERS_TABLE": "auth.usres"},
        "RESPONDER_USERS_TABLE: there is no table auth.usres; near it: public.users",
    ),
    "a column that is not there": (
        PLAIN,
        {"RESPONDER_COLUMNS": "user.name=nmae"},
        "public.users has no column nmae: RESPONDER_COLUMNS=user.name=",
    ),
    "members that lack what they were named for": (
        PLAIN + "create table workspace_member (user_id text, workspace_id text)",
        {"RESPONDER_MEMBERS_TABLE": "workspace_member"},
        (
            "public.workspace_member has no column organizationId: "
            "RESPONDER_COLUMNS=member.organizationId="
        ),
    ),
    "two spellings, neither Better Auth's": (
        PLAIN + """alter table users add "BANNED" bool, add "Banned" bool""",
        {},
        (
            "public.users has several columns for banned: BANNED, Banned; "
            "RESPONDER_COLUMNS=user.banned="
        ),
    ),
    "ids that cannot be compared": (
        PLAIN.replace("id text", "id uuid") + MEMBERS.replace('"userId" text', '"userId" int'),
        {},
        "public.members.userId cannot refer to public.users.id: their types are int4 and uuid",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_start_is_refused_with(start_with, name):
    """Where only the operator can decide, the start ends with what was found and what to set."""
    sql, settings, message = REFUSED[name]

    with pytest.raises(SettingsError) as refused:
        await start_with(sql, empty=True, **settings)

    assert message in str(refused.value)


async def test_a_database_before_better_auth_s_migration_is_unavailable(start_with):
    """A worker waits for Better Auth's tables, and says so in its answers."""
    service = await start_with("create table orders (id int)", empty=True, RESPONDER_TIMEOUT="0.5")

    answer = await service.ask("users.get", "1")

    assert "unavailable" == answer.code
    assert "has Better Auth's migration run in this database?" in answer.json["message"]


async def test_rows_that_a_policy_hides_are_not_found(create_database, start, caplog):
    """Under row-level security without a policy no user is found, and a warning says so."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(PLAIN + ADA)
        await admin.execute("drop role if exists hidden; create role hidden login")
        await admin.execute(
            "alter table users enable row level security; grant select on users to hidden"
        )
        service = await start(as_role(url, "hidden"))
        answer = await service.ask("users.get", "1")
    finally:
        await admin.execute("drop owned by hidden; drop role hidden")
        await admin.close()

    assert "not_found" == answer.code
    assert "row-level security decides which rows of public.users are seen" in caplog.text
