"""Catalogs that are large, slow to read, or refused."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from tests.roles import as_role
from tests.shapes import ADA, MEMBERS, PLAIN

MANY = """
create procedure build() language plpgsql as $$ begin
  for n in 1..20 loop
    execute format('create schema tenant_%s', n);
    for t in 1..25 loop
      execute format('create table tenant_%s.table_%s (id int, user_id int, tenant_id int, %s)',
        n, t, (select string_agg('c' || c || ' text', ', ') from generate_series(1, 30) c));
    end loop;
    commit;
  end loop;
end $$
"""


async def answers(service, payload: str = "1") -> dict[str, object]:
    """Ask until there is a user."""
    async with asyncio.timeout(60):
        while (answer := await service.ask("users.get", payload)).code:
            await asyncio.sleep(0.02)
    return answer.json


@pytest.mark.heavy
async def test_a_catalog_that_takes_longer_than_a_lookup_may_is_read(create_database, start):
    """Five hundred tables are looked through although a query has 10 ms; a change of the tables
    that were found, and a table that comes, show.
    """
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(PLAIN + ADA)
    await admin.execute(MANY)
    await admin.execute("call build()")
    service = await start(url, RESPONDER_TIMEOUT="0.02", RESPONDER_HTTP_LISTEN="off")

    at_first = await answers(service)
    await admin.execute("alter table users add column banned boolean default true")
    changed = await answers(service)
    await admin.execute(MEMBERS + "insert into members values ('1', 'acme', 'staff')")
    async with asyncio.timeout(60):
        while (await answers(service))["organizationId"] is None:
            await asyncio.sleep(0.02)
    await admin.close()

    assert (False, True) == (at_first["banned"], changed["banned"])


async def test_a_catalog_that_is_refused_is_waited_for(create_database, start, caplog):
    """One line of the log has the cause, none a traceback; once it may be read, it is."""
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute(PLAIN + ADA + MEMBERS)
    await admin.execute("create role refused login; grant select on users, members to refused")
    await admin.execute("revoke select on pg_catalog.pg_attribute from public")
    try:
        with caplog.at_level(logging.WARNING):
            service = await start(as_role(url, "refused"), RESPONDER_TIMEOUT="0.5")
            refused = [await service.ask("users.get", "1") for _ in range(20)]
            ready = await service.admin.get("/ready")
        await admin.execute("grant select on pg_catalog.pg_attribute to public")
        user = await answers(service)
    finally:
        await admin.execute("drop owned by refused; drop role refused")
        await admin.close()

    told = [each for each in caplog.records if each.name.startswith("responder.postgres")]
    said = [each.message for each in told if "catalog" in each.message]
    assert 1 == len(said)
    assert "cannot be read: InsufficientPrivilegeError" in said[0]
    assert [None] == list({each.exc_info for each in told})
    assert {said[0]} == {each.json["message"] for each in refused}
    assert 503 == ready.status_code
    assert "Ada" == user["name"]
