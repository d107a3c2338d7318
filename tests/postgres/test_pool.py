"""PostgreSQL under our feet: fresh answers, failing keys, outages, changed tables."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest

from responder.dev import postgres as private_postgres
from responder.errors import SettingsError
from responder.postgres.discovery import Discovery
from tests.roles import as_role

NEW_USER = """insert into users (id, email, "emailVerified", name)
              values ($1, $1 || '@example.com', true, $2)"""


async def ask_until(service, subject: str, payload: object, *, code: str | None) -> None:
    """Ask again and again until the answer has that code (None is a value)."""
    async with asyncio.timeout(60):
        while (await service.ask(subject, payload)).code != code:
            await asyncio.sleep(0.01)


async def refused_at_once(service) -> None:
    """Wait until a request is refused in much less than the timeout for which it could wait."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while True:
            start = loop.time()
            answer = await service.ask("users.get", "1")
            if answer.code == "unavailable" and loop.time() - start < service.settings.timeout / 2:
                return


async def waiting_for_locks(service, count: int) -> None:
    """Wait until so many of the service's queries wait for a lock."""
    query = """select count(*) from pg_stat_activity where application_name = 'responder'
               and datname = current_database() and wait_event_type = 'Lock'"""
    async with asyncio.timeout(60):
        while await service.database.fetchval(query) < count:
            await asyncio.sleep(0.01)


async def write_then_read(service, *, clients: int, rounds: int) -> list[str]:
    """Let each client write a row and ask for it at once; return what was stale."""
    stale = []

    async def live(client: int) -> None:
        key = f"client-{client}"
        await service.database.execute(NEW_USER, key, "0")
        for number in range(rounds):
            name = f"{client}-{number}"
            await service.database.execute("update users set name = $2 where id = $1", key, name)
            answer = await service.ask("users.get", key)
            if answer.json["name"] != name:
                stale.append(f"{name}: {answer.json}")

    await asyncio.gather(*(live(client) for client in range(clients)))
    return stale


async def test_everyone_reads_their_own_write(service):
    """A row that was written before the request was sent is what the reply shows."""
    stale = await write_then_read(service, clients=50, rounds=20)

    assert [] == stale


@pytest.mark.heavy
@pytest.mark.timeout(600)
async def test_two_hundred_clients_read_their_own_writes(template, create_database, start):
    """Under load too: 200 clients, 20,000 rounds of writing and asking, and nothing stale."""
    service = await start(await create_database(template=template[0]), RESPONDER_TIMEOUT="10")
    stale = await write_then_read(service, clients=200, rounds=100)

    assert [] == stale


@pytest.fixture
async def poisoned(start_with):
    """A service whose users are a view that raises for one row."""
    return await start_with(
        """
        create table rows (id text primary key, email text, name text);
        insert into rows select n, n || '@example.com', 'user ' || n from generate_series(1, 40) n;
        create view users as select id, email, true as "emailVerified",
          case when id = '13' then (1 / (length(id) - 2))::text else name end as name from rows;
        """,
        empty=True,
    )


async def test_a_key_that_makes_postgres_fail_fails_alone(poisoned):
    """One poisonous row in a batch gets its error; the others of the batch get their users."""
    answers = await asyncio.gather(*(poisoned.ask("users.get", str(n)) for n in range(1, 41)))

    assert {13: "unavailable"} == {
        n: answer.code for n, answer in enumerate(answers, start=1) if answer.code
    }
    assert [f"user {n}" for n in range(1, 41) if n != 13] == [
        answer.json["name"] for answer in answers if not answer.code
    ]


async def test_a_query_that_fails_says_nothing_about_itself(poisoned):
    """The caller of a query that fails learns only that a view has."""
    answer = await poisoned.ask("users.get", "13")

    expected = {"code": "unavailable", "message": "a view or a policy of the database fails"}
    assert expected == answer.json


async def test_nothing_is_ever_written(start_with):
    """Even a view with a function that writes cannot make responder write."""
    service = await start_with(
        """
        create table rows (id text, email text, name text);
        insert into rows values ('1', 'one@example.com', 'one');
        create function spy(name text) returns text language plpgsql volatile as $$
          begin insert into rows values ('2', 'spy', 'spy'); return name; end $$;
        create view users as
          select id, email, true as "emailVerified", spy(name) as name from rows;
        """,
        empty=True,
    )

    answer = await service.ask("users.get", "1")

    assert "unavailable" == answer.code
    assert 1 == await service.database.fetchval("select count(*) from rows")


async def test_terminated_connections_cost_no_answer(service, cast):
    """When every connection is ended by an administrator, requests wait for the next ones."""
    done = asyncio.Event()
    codes = []

    async def ask() -> None:
        while not done.is_set():
            codes.append((await service.ask("users.get", cast.owner.id)).code)

    askers = [asyncio.create_task(ask()) for _ in range(8)]
    for _ in range(5):
        before = len(codes)
        await service.database.fetch("""
            select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = 'responder' and datname = current_database()""")
        while len(codes) < before + 50:
            await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*askers)

    assert {None} == set(codes)


async def test_a_crash_is_got_over_and_an_outage_refused_at_once(template, start):
    """After a crash of PostgreSQL answers are back; while it stays away, requests fail at once."""
    async with private_postgres.running(
        settings={"synchronous_commit": "on"}, open_roles=True
    ) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute(
            'create table users (id text primary key, email text, "emailVerified" boolean);'
            "insert into users values ('1', 'one@example.com', true)"
        )
        await connection.close()
        service = await start(server.url, RESPONDER_TIMEOUT="0.5")
        ready_before = (await service.admin.get("/ready")).status_code

        # A backend killed outright makes the postmaster restart all of them.
        backends = await service.database.fetch(
            "select pid from pg_stat_activity where application_name = 'responder'"
        )
        os.kill(backends[0]["pid"], signal.SIGKILL)
        after_crash = (await service.ask("users.get", "1")).code
        # Told to shut down while it recovers, PostgreSQL 18 may wait for ever.
        await ask_until(service, "users.get", "1", code=None)
        os.kill(server.pid, signal.SIGQUIT)
        await server.process.wait()
        await ask_until(service, "users.get", "1", code="unavailable")
        await refused_at_once(service)
        ready_during = (await service.admin.get("/ready")).status_code

    assert 200 == ready_before
    assert after_crash in (None, "unavailable")
    assert 503 == ready_during


async def test_a_column_that_goes_is_noticed(service, cast):
    """Dropping a column is picked up without a restart: its field answers as if missing."""
    before = await service.ask("users.get", cast.banned.id)
    await service.database.execute('alter table users drop column "banReason"')

    after = await service.ask("users.get", cast.banned.id)

    assert before.json["banReason"] is not None
    assert {**before.json, "banReason": None} == after.json


async def test_missing_tables_are_unavailable_until_they_are_back(service, cast):
    """While the table is away, answers are `unavailable` and not ready; once back, it is found."""
    await service.database.execute("alter table users rename to elsewhere")
    await service.database.execute(
        'alter table elsewhere rename column "emailVerified" to verified'
    )
    await ask_until(service, "users.get", cast.owner.id, code="unavailable")
    not_ready = (await service.admin.get("/ready")).status_code
    await service.database.execute(
        'alter table elsewhere rename column verified to "emailVerified"'
    )
    await service.database.execute("alter table elsewhere rename to users")

    await ask_until(service, "users.get", cast.owner.id, code=None)

    assert 503 == not_ready
    assert 200 == (await service.admin.get("/ready")).status_code


PLAIN = 'create table {} (id text primary key, email text, "emailVerified" boolean, name text);'
ADA = "insert into {} values ('1', 'ada@example.com', true, 'Ada');"
CRM = (
    PLAIN.format("users")
    + "insert into users values ('1', 'ada@example.com', false, 'Somebody else');"
)
MEMBERS = """create table members (id text, "userId" text, "organizationId" text, role text);
    insert into members values ('m', '1', 'acme', 'staff');"""
# What is there at first, what takes a table away, and what brings it back.
GONE = {
    "beside an application's own users": (
        CRM
        + PLAIN.format('"user"')
        + ADA.format('"user"')
        + """create table account (id text, "accountId" text, "providerId" text,
               "userId" text references "user");"""
        + MEMBERS,
        'drop table "user" cascade',
        PLAIN.format('"user"') + ADA.format('"user"'),
    ),
    "beside a copy": (
        PLAIN.format("users") + ADA.format("users") + MEMBERS,
        """create table copy as select * from users; update copy set name = 'Old';
           drop table users""",
        PLAIN.format("users") + ADA.format("users"),
    ),
    "the members": (
        PLAIN.format("users") + ADA.format("users") + MEMBERS,
        "drop table members",
        MEMBERS,
    ),
    "the members, beside others": (
        PLAIN.format("users") + ADA.format("users") + MEMBERS,
        """create table guests (user_id text, organization_id text, role text);
           insert into guests values ('1', 'acme', 'guest'); drop table members""",
        MEMBERS,
    ),
}


@pytest.mark.parametrize("name", GONE)
async def test_nothing_else_takes_the_place_of_a_table_that_is_gone(start_with, name):
    """While one of the tables is away, answers are `unavailable`, whatever else would fit; once it
    is back, they are by themselves what they were.
    """
    before, away, back = GONE[name]
    service = await start_with(before, empty=True, RESPONDER_TIMEOUT="0.5")

    there = (await service.ask("users.get", "1")).json
    await service.database.execute(away)
    missing = [(await service.ask("users.get", "1")).code for _ in range(5)]
    await service.database.execute(back)
    await ask_until(service, "users.get", "1", code=None)

    assert ("Ada", "acme") == (there["name"], there["organizationId"])
    assert ["unavailable"] * 5 == missing
    assert there == (await service.ask("users.get", "1")).json


async def test_a_table_that_is_renamed_and_replaced_is_followed(start_with):
    """Renamed away, it is the same table; the one that comes under the old name replaces it."""
    service = await start_with(
        PLAIN.format("users") + ADA.format("users") + MEMBERS, empty=True, RESPONDER_TIMEOUT="0.5"
    )
    names = []
    for statements in (
        "alter table users rename to people",
        "create table replacement as select * from people; update replacement set name = 'New'",
        "alter table people rename to persons",
        "alter table replacement rename to users",
        "alter table users rename to people",
        "drop table persons",
        """begin; create table users as select * from people; update users set name = 'Newest';
           commit""",
    ):
        await service.database.execute(statements)
        names.append((await service.ask("users.get", "1")).json.get("name"))

    assert ["Ada", "Ada", "Ada", "New", "New", "New", "Newest"] == names


async def test_a_table_that_changes_its_types_is_noticed(service, cast):
    """Ids that become integers are asked for as integers, by all who were refused."""
    await service.database.execute("""
        create table renumbered as
          select row_number() over (order by id) as id, email, "emailVerified", name from users;
        alter table renumbered add primary key (id);
        drop table users cascade;
        alter table renumbered rename to users;
    """)
    await service.database.execute("drop table sessions, accounts")

    answers = await asyncio.gather(*(service.ask("users.get", str(n)) for n in range(1, 60)))

    assert [str(n) for n in range(1, 60)] == [answer.json["id"] for answer in answers]


async def test_a_column_of_another_type_is_read_as_it_is(service, cast):
    """Retyping a column under prepared statements costs no answer, on any connection."""
    request = {"organizationId": cast.organization.id, "limit": 5}
    before = await asyncio.gather(*(service.ask("users.org_list", request) for _ in range(20)))
    await service.database.execute(
        """alter table members alter column "createdAt" type timestamp"""
    )

    after = await asyncio.gather(*(service.ask("users.org_list", request) for _ in range(20)))

    assert {answer.json["users"][0]["id"] for answer in before} == {
        answer.json["users"][0]["id"] for answer in after
    }


async def test_a_query_that_hangs_holds_up_nobody_else(start_with):
    """One key that takes for ever times out; those that shared its batch are answered."""
    service = await start_with(
        """
        create table rows (id text primary key, email text, name text);
        insert into rows select n, n || '@example.com', 'user ' || n from generate_series(1, 9) n;
        create view users as select id, email, true as "emailVerified",
          case when id = '5' then pg_sleep(60)::text else name end as name from rows;
        """,
        empty=True,
        RESPONDER_TIMEOUT="1",
    )

    answers = await asyncio.gather(*(service.ask("users.get", str(n)) for n in range(1, 10)))

    assert {5: "timeout"} == {n: each.code for n, each in enumerate(answers, start=1) if each.code}


async def test_a_role_that_may_not_read_is_told_so(create_database, template, start):
    """Without the privilege to read, answers are `unavailable` and not ready; with it, they are
    back.
    """
    url = await create_database(template=template[0])
    owner_id = template[1].owner.id
    admin = await asyncpg.connect(url)
    await admin.execute("create role reader login")
    try:
        service = await start(as_role(url, "reader"))
        refused = await asyncio.gather(*(service.ask("users.get", owner_id) for _ in range(99)))
        not_ready = (await service.admin.get("/ready")).status_code
        await admin.execute("grant select on users, members to reader")
        await ask_until(service, "users.get", owner_id, code=None)
        ready = (await service.admin.get("/ready")).status_code
    finally:
        await admin.execute("drop owned by reader; drop role reader")
        await admin.close()

    assert {"unavailable"} == {answer.code for answer in refused}
    assert "may not read public.users.banExpires" in refused[0].json["message"]
    assert (503, 200) == (not_ready, ready)


async def test_a_time_zone_nobody_knows_ends_the_start(create_database, template, start):
    """A RESPONDER_TIMEZONE that PostgreSQL does not know is the operator's to mend."""
    url = await create_database(template=template[0])

    with pytest.raises(SettingsError, match="RESPONDER_TIMEZONE"):
        await start(url, RESPONDER_TIMEZONE="Mars/Phobos")


async def test_being_busy_is_no_reason_to_be_taken_for_dead(start_with, cast):
    """A worker that refuses more than it can hold is ready all the same."""
    service = await start_with(RESPONDER_MAX_PENDING="1", RESPONDER_ADMIN_LISTEN="127.0.0.1:0")
    async with service.database.acquire() as connection, connection.transaction():
        await connection.execute("lock table members in access exclusive mode")
        held = asyncio.create_task(service.ask("users.get", cast.owner.id))
        await waiting_for_locks(service, 1)
        refused = await service.ask("users.get", cast.owner.id)
        ready = asyncio.create_task(service.admin.get("/ready"))
        await waiting_for_locks(service, 2)

    assert "unavailable" == refused.code
    assert 200 == (await ready).status_code
    assert (await held).code is None


async def test_http_hears_the_last_word_of_the_worker(start_with, cast):
    """At the deadline the worker's own answer arrives over HTTP: `timeout`, not the bridge's."""
    service = await start_with(RESPONDER_HTTP_LISTEN="127.0.0.1:0", RESPONDER_TIMEOUT="0.5")
    async with service.database.acquire() as connection, connection.transaction():
        await connection.execute("lock table users in access exclusive mode")
        answer = await service.http.get(f"/api/v1/users/{cast.owner.id}")
        stats = (await service.ask("$SRV.STATS.users")).json

    assert 504 == answer.status_code
    assert {"get": "timeout"} == {
        each["name"]: each["last_error"] for each in stats["endpoints"] if each["last_error"]
    }


# What PostgreSQL does not refuse: the field it shows in, and its values before and after.
SILENT_CHANGES = {
    "a column is added": (
        "alter table users add column banned boolean default true",
        ("banned", False, True),
    ),
    "a column takes a name that was looked for": (
        "alter table users rename column name to ban_reason",
        ("banReason", None, "Noor Visser"),
    ),
    "a time becomes a boolean": (
        """alter table users alter column "emailVerified" type boolean using false""",
        ("emailVerified", True, False),
    ),
    "a time gets a zone": (
        """alter table users alter column "banExpires" type timestamptz using timestamptz
           '2030-01-02 03:04:05Z'""",
        ("banExpires", "2030-01-02T02:04:05.000Z", "2030-01-02T03:04:05.000Z"),
    ),
    "a word becomes a list": (
        "alter table users alter column role type text[] using '{admin,support}'",
        ("role", "admin", "admin,support"),
    ),
    "the table is swapped for another": (
        """begin; alter table users rename to old; alter table other rename to users; commit""",
        ("banned", False, True),
    ),
    "its schema is swapped for another": (
        """begin; create schema old; alter table users set schema old; alter table other rename to
           users; commit""",
        ("banned", False, True),
    ),
}


@pytest.mark.parametrize("change", SILENT_CHANGES)
async def test_a_change_that_postgres_does_not_refuse_shows_in_the_next_answer(
    create_database, start, change
):
    """After any change of the tables the next answer is right, on every connection."""
    statement, (field, before, after) = SILENT_CHANGES[change]
    url = await create_database()
    admin = await asyncpg.connect(url)
    await admin.execute("""
        create table users (id text, email text, "emailVerified" timestamp, name text, role text,
          "banExpires" timestamp);
        insert into users values ('1', 'noor@example.com', now(), 'Noor Visser', 'admin',
          '2030-01-02 03:04:05');
        create table other as select *, true as banned from users; alter table other drop email;
        alter table other add column email text;
    """)
    service = await start(
        url, RESPONDER_TIMEZONE="Europe/Amsterdam", RESPONDER_USERS_TABLE="public.users"
    )

    async def everywhere() -> set[object]:
        asking = (service.ask("users.get", "1") for _ in range(40))
        return {(await each).json.get(field) for each in [asyncio.create_task(a) for a in asking]}

    try:
        seen_before = await everywhere()
        await admin.execute(statement)
        seen_after = await everywhere()
    finally:
        await admin.close()

    assert ({before}, {after}) == (seen_before, seen_after)


async def test_the_catalog_is_read_once_for_all_who_notice(service, cast, monkeypatch):
    """Two hundred requests that meet a changed table have the catalog read once, not each."""
    reads = []
    follow = Discovery._follow

    async def counted(self, source):
        reads.append(source)
        return await follow(self, source)

    monkeypatch.setattr(Discovery, "_follow", counted)
    await service.database.execute('alter table users rename column "banReason" to ban_reason')

    answers = await asyncio.gather(*(service.ask("users.get", cast.banned.id) for _ in range(200)))

    assert {cast.banned.ban_reason} == {answer.json["banReason"] for answer in answers}
    assert 1 == len(reads)


async def test_a_key_that_was_out_of_range_is_found_once_it_is_not(start_with):
    """An id too large for an integer is unknown, and is found as soon as the column is wider."""
    service = await start_with(
        """create table users (id int primary key, email text, "emailVerified" boolean)""",
        empty=True,
    )
    before = (await service.ask("users.get", "3000000000")).code
    await service.database.execute("alter table users alter column id type bigint")
    await service.database.execute("insert into users values (3000000000, 'x@example.com', true)")

    after = (await service.ask("users.get", "3000000000")).code

    assert ("not_found", None) == (before, after)


async def test_members_that_come_later_are_noticed(start_with, cast):
    """The organization plugin's table is found before long when it is created under us."""
    service = await start_with("alter table members rename to member")
    await service.database.execute('alter table member rename column "organizationId" to "other"')
    request = {"organizationId": cast.organization.id}
    await ask_until(service, "users.org_list", request, code="unavailable")
    await service.database.execute('alter table member rename column "other" to "organizationId"')

    await ask_until(service, "users.org_list", request, code=None)


async def test_a_name_that_is_away_for_a_moment_costs_no_error(start_with, cast):
    """While a column is renamed and renamed back, nobody is told of a bug."""
    service = await start_with()
    codes = set()
    for _ in range(20):
        asking = [asyncio.create_task(service.ask("users.get", cast.owner.id)) for _ in range(20)]
        await service.database.execute('alter table users rename column "name" to "nom"')
        await service.database.execute('alter table users rename column "nom" to "name"')
        codes |= {(await each).code for each in asking}

    assert {None} == codes
