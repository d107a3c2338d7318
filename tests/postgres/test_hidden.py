"""A hidden user costs what one costs that does not exist, and a caller what they may, however many
organizations there are.
"""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from responder import cursors
from responder.dev import tables
from responder.dev.tokens import Mint
from responder.models import OrgList
from responder.postgres import decision, lookups
from responder.postgres.connection import NO_MEMOIZE, PLANNING
from responder.postgres.discovery import fetch_catalog
from responder.postgres.visibility import DEFAULT_RULES, Caller, Rules

USERS = 2_000
CROWD = 10_000  # organizations
CALLER = Caller("user 1999", None)
IN_ONE, IN_TWENTY = [f"user {n}" for n in range(500, 600)], [f"user {n}" for n in range(100)]
ABSENT = [f"user {n} is not there" for n in range(500, 600)]


@pytest.fixture(scope="module")
async def connection(create_database):
    """A connection to tables in which users 0 to 99 are in twenty organizations, others in one."""
    connection = await asyncpg.connect(
        await create_database(), server_settings={**PLANNING, **NO_MEMOIZE}
    )
    await tables.create_tables(connection)
    await connection.execute(f"""
        insert into users (id, name, email, "emailVerified")
          select 'user ' || n, 'x', 'user.' || n || '@example.com', true
          from generate_series(0, {USERS - 1}) n;
        insert into organizations (id, name, slug, "createdAt")
          select 'org ' || n, 'x', n, now() from generate_series(0, {USERS + 20}) n;
        insert into members (id, "organizationId", "userId", role, "createdAt")
          select n || ' ' || k, 'org ' || n + k, 'user ' || n, 'member', now()
          from generate_series(0, {USERS - 1}) n
          cross join lateral generate_series(0, case when n < 100 then 19 else 0 end) k;
        analyze users, members""")
    yield connection
    await connection.close()


async def touched(connection: asyncpg.Connection[Any], query: tuple[str, Any]) -> int:
    """Return how many pages of tables and indexes a query needs: they are what takes time."""
    sql, arguments = query
    plan = await connection.fetchval(f"explain (analyze, buffers, format json) {sql}", *arguments)
    root = json.loads(plan)[0]["Plan"]
    return root["Shared Hit Blocks"] + root["Shared Read Blocks"]


@pytest.mark.parametrize(
    "rules", [DEFAULT_RULES, Rules(organization_roles=("member",))], ids=["shared", "roles"]
)
@pytest.mark.parametrize("indexed", [True, False], ids=["index", "no-index"])
@pytest.mark.parametrize("many", [True, False], ids=["many", "one"])
@pytest.mark.parametrize("by", ["id", "email"])
@pytest.mark.parametrize("hidden", [IN_ONE, IN_TWENTY], ids=["in-one", "in-twenty"])
async def test_a_hidden_user_costs_what_an_absent_one_does(
    connection, rules, *, indexed, many, by, hidden
):
    """About as many pages are read for users that a caller may not see as for none at all."""
    found = decision.find(await fetch_catalog(connection))
    lookup = getattr(lookups.statements(found, rules=rules).callers, f"by_{by}")
    transaction = connection.transaction()
    await transaction.start()
    try:
        if not indexed:
            await connection.execute('drop index "members_userId_idx"')
        costs = []
        for users in (hidden, ABSENT):
            keys = [
                each if by == "id" else f"{each.replace(' ', '.')}@example.com" for each in users
            ]
            keys = keys if many else keys[:1]
            callers = [CALLER] * len(keys)
            query = lookup.query(keys, [None] * len(keys), callers, cap=8192)
            costs.append(await touched(connection, query))
    finally:
        await transaction.rollback()

    assert 0.6 < costs[0] / costs[1] < 1.6


@pytest.fixture(params=[{}, {"RESPONDER_ORG_ROLES": "member"}], ids=["shared", "roles"])
async def crowded(request, create_database, start, tmp_path):
    """A service on a database in which three users are in 10,000 organizations each."""
    url = await create_database()
    connection = await asyncpg.connect(url)
    await tables.create_tables(connection)
    await connection.execute(f"""
        insert into users (id, name, email, "emailVerified")
          select id, id, id || '@example.com', true from unnest(array['a', 'b', 'c']) id;
        insert into organizations (id, name, slug, "createdAt")
          select 'org ' || n, 'x', n, now() from generate_series(1, {2 * CROWD}) n;
        insert into members (id, "organizationId", "userId", role, "createdAt")
          select id || n, 'org ' || first + n, id, 'member', now()
          from (values ('a', 0), ('b', {CROWD}), ('c', {CROWD - 1})) as person(id, first)
          cross join generate_series(1, {CROWD}) n;
        analyze users, members""")
    await connection.close()
    mint = Mint()
    service = await start(url, **mint.publish(tmp_path / "jwks.json"), **request.param)
    return service, {"Authorization": f"Bearer {mint.token('a')}"}


async def test_ten_thousand_organizations_on_both_sides_are_a_lookup(crowded):
    """A caller in 10,000 organizations is answered about users in as many, shared or not."""
    service, headers = crowded

    answers = [await service.ask("users.get", who, headers) for who in ("a", "b", "c")]
    batch = await service.ask("users.get_many", {"ids": ["a", "b", "c"]}, headers)

    assert [None, "not_found", None] == [answer.code for answer in answers]
    assert "org 10000" == answers[2].json["organizationId"]
    assert ["b"] == batch.json["missing"]


async def test_a_cursor_is_of_the_list_that_its_receiver_sees(people_service, cast):
    """A cursor names the last membership of its page, none of another list or of a later page."""
    organization = cast.organization.id
    rows = await people_service.database.fetch(
        'select id from members where "organizationId" = $1 order by "createdAt", id', organization
    )
    request: dict[str, Any] = {"organizationId": organization, "limit": 50}
    seen, pages = 0, 0
    while True:
        page = (await people_service.ask("users.org_list", request)).json
        seen, pages = seen + len(page["users"]), pages + 1
        if page["nextCursor"] is None:
            break
        position = cursors.decode(page["nextCursor"], OrgList(organization))
        assert rows[seen - 1]["id"] == position.member_id
        request["cursor"] = page["nextCursor"]

    assert (184, 4) == (seen, pages)
