"""Walking an organization shows every member exactly once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta, timezone
from itertools import cycle

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from responder import wire

OFF = {"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_ADMIN_LISTEN": "off"}
NULLABLE = 'alter table members alter "createdAt" drop not null'
GENERIC = """
do $$ begin
    execute format('alter database %I set plan_cache_mode = force_generic_plan', current_database());
end $$
"""
# When the nth of n members joined, as SQL. What is equal is ordered by id.
TIMES = {
    "distinct": "timestamptz '2020-01-01' + n * interval '1 second'",
    "equal": "timestamptz '2020-01-01'",
    "some-equal": "timestamptz '2020-01-01' + n / 7 * interval '1 microsecond'",
    "null": "null::timestamptz",
    "some-null": "case when n % 3 > 0 then timestamptz '2020-01-01' + n / 2 * interval '1 second' end",
    "infinite": "case when n % 2 = 0 then timestamptz '2020-01-01' else 'infinity' end",
    "backwards": "timestamptz '2020-01-01' - n * interval '1 day'",
}


def crowd(count, times, organization="big"):
    """SQL for an organization of so many members: `member n` is of `user n`."""
    return f"""
        insert into organizations (id, name, slug, "createdAt")
        values ('{organization}', '', '{organization}', now());
        insert into users (id, name, email, "emailVerified")
        select format('user %s', n), '', format('user %s', n), true
        from generate_series(1, {count}) n
        on conflict do nothing;
        insert into members (id, "organizationId", "userId", role, "createdAt")
        select format('member %s', n) || '{"" if organization == "big" else f" {organization}"}',
               '{organization}', format('user %s', n), 'staff', {times}
        from generate_series(1, {count}) n;
        analyze users, members;
    """


async def in_order(service, organization="big"):
    """Return the user ids of an organization in the order of subjects.md, users.org_list."""
    rows = await service.database.fetch(
        """select "userId" from members where "organizationId" = $1
        order by "createdAt" nulls last, id""",
        organization,
    )
    return [row[0] for row in rows]


async def walk(service, *, limits, organization="big"):
    """Return the user ids of an organization, page by page."""
    limits = cycle(limits)
    pages, cursor, seen = [], None, set()
    while True:
        request = {"organizationId": organization, "limit": next(limits), "cursor": cursor}
        answer = await service.ask("users.org_list", request)
        assert answer.code is None, answer.json
        assert len(answer.json["users"]) <= request["limit"]
        pages.append([user["id"] for user in answer.json["users"]])
        cursor = answer.json["nextCursor"]
        if cursor is None:
            return pages
        assert cursor not in seen, "the walk has no end"
        seen.add(cursor)


def flat(pages):
    return [user for page in pages for user in page]


# Whole walks.


@pytest.fixture(scope="module")
async def all_times(template, create_database):
    """A database with an organization for each of the times."""
    url = await create_database(template=template[0])
    connection = await asyncpg.connect(url)
    await connection.execute(NULLABLE)
    for name, times in TIMES.items():
        await connection.execute(crowd(60, times, name))
    await connection.close()
    return url


async def test_pages_are_in_order(all_times, start):
    """Pages of every size, put together, are the members by createdAt, nulls last, then id."""
    service = await start(all_times, **OFF)
    sizes = [[1], [7], [59], [60], [61], [500], [2, 30, 1]]
    expected = {
        name: [await in_order(service, name)] * len(sizes) for name in TIMES if name != "infinite"
    }
    found = {
        name: [flat(await walk(service, limits=limits, organization=name)) for limits in sizes]
        for name in expected
    }

    assert expected == found


async def test_members_of_infinite_times_are_walked(all_times, start):
    """Infinity is later than any time and earlier than none at all, and ends no walk."""
    service = await start(all_times, **OFF)
    found = flat(await walk(service, limits=[7], organization="infinite"))

    assert await in_order(service, "infinite") == found


async def test_pages_are_in_order_where_created_at_is_never_null(start_with):
    """The same holds on Better Auth's own columns, which allow no null."""
    names = ("distinct", "some-equal", "backwards")
    service = await start_with(*(crowd(60, TIMES[name], name) for name in names))
    expected = {name: [await in_order(service, name)] * 3 for name in names}
    found = {
        name: [
            flat(await walk(service, limits=limits, organization=name))
            for limits in ([1], [7], [100])
        ]
        for name in names
    }

    assert expected == found


async def test_pages_are_in_order_without_time_zones(start_with):
    """The same holds for timestamps without zone, with cursors at every one of them."""
    service = await start_with(
        NULLABLE,
        crowd(40, TIMES["some-null"]),
        'alter table members alter "createdAt" type timestamp',
    )
    found = flat(await walk(service, limits=[1]))

    assert await in_order(service) == found


async def test_pages_are_in_order_without_created_at(start_with):
    """Where memberships have no createdAt, the id alone orders them."""
    service = await start_with(
        crowd(40, TIMES["equal"]), 'alter table members drop column "createdAt"'
    )
    found = flat(await walk(service, limits=[3, 1]))

    assert sorted(f"user {n}" for n in range(1, 41)) == found


async def test_pages_are_in_order_without_id(start_with):
    """Where memberships have no id, the user's orders those that are equally old."""
    service = await start_with(
        NULLABLE, crowd(40, TIMES["some-null"]), "alter table members drop id"
    )
    rows = await service.database.fetch(
        """select "userId" from members where "organizationId" = 'big'
        order by "createdAt" nulls last, "userId" """
    )
    found = flat(await walk(service, limits=[3, 1]))

    assert [row[0] for row in rows] == found


async def test_pages_are_in_order_with_generic_plans(start_with):
    """The same statements, planned without regard to their parameters, answer the same."""
    names = ("some-null", "null", "some-equal")
    service = await start_with(
        NULLABLE, *(crowd(200, TIMES[name], name) for name in names), GENERIC
    )
    expected = {name: await in_order(service, name) for name in names}
    found = {
        name: flat(await walk(service, limits=[7, 1, 30], organization=name)) for name in names
    }

    assert expected == found


async def test_a_full_last_page_has_no_cursor(people_service, cast):
    """Where a page ends with the last member there is no next one."""
    request = {"organizationId": cast.second_organization.id, "limit": 61}
    answer = await people_service.ask("users.org_list", request)

    assert (61, None) == (len(answer.json["users"]), answer.json["nextCursor"])


async def test_the_client_walks_all_pages(people_service, cast):
    """UsersClient.org_list iterates over all members, whatever the size of a page."""
    walks = [
        [user.id async for user in people_service.users.org_list(cast.organization.id, page=page)]
        for page in (10, 100, 184, 500)
    ]

    assert 184 == len(set(walks[0]))
    assert [walks[0]] * 4 == walks


@pytest.mark.parametrize("organization", ["empty", "unknown", "", "a\0b", "\ud800", "x" * 5_000])
async def test_an_organization_without_members_is_an_empty_list(people_service, organization):
    """No members, or no such organization: an empty list, and no error."""
    answer = await people_service.ask("users.org_list", {"organizationId": organization})

    assert {"users": [], "nextCursor": None} == answer.json


async def test_an_organization_that_exists_without_members_is_an_empty_list(service):
    """An organization that everyone has left is an empty list."""
    await service.database.execute("delete from members")
    organization = await service.database.fetchval("select id from organizations limit 1")
    answer = await service.ask("users.org_list", organization)

    assert {"users": [], "nextCursor": None} == answer.json


async def test_a_walk_of_an_organization_that_empties(start_with):
    """A cursor whose members have all left since answers an empty last page."""
    service = await start_with(crowd(10, TIMES["distinct"]))
    page = await service.ask("users.org_list", {"organizationId": "big", "limit": 5})
    await service.database.execute("delete from members")
    rest = await service.ask(
        "users.org_list", {"organizationId": "big", "cursor": page.json["nextCursor"]}
    )

    assert {"users": [], "nextCursor": None} == rest.json


async def test_a_cursor_whose_membership_is_gone_goes_on(start_with):
    """The member that a page ended with may leave: the next page starts where it was."""
    service = await start_with(NULLABLE, crowd(9, TIMES["some-null"]))
    expected = await in_order(service)
    found, cursor = [], None
    for _ in expected:
        page = await service.ask(
            "users.org_list", {"organizationId": "big", "limit": 1, "cursor": cursor}
        )
        found += [user["id"] for user in page.json["users"]]
        cursor = page.json["nextCursor"]
        await service.database.execute('delete from members where "userId" = $1', found[-1])

    assert expected == found


async def test_memberships_that_lost_their_user_are_passed_over(start_with):
    """A membership whose user is gone is not listed, and ends no walk."""
    service = await start_with(
        'alter table members drop constraint "members_userId_fkey"',
        crowd(40, TIMES["distinct"]),
        "delete from users where id like 'user %' and right(id, 1) in ('1', '2', '3', '4')"
        " or id in ('user 10', 'user 39', 'user 40')",
    )
    lost = {f"user {n}" for n in (*range(1, 41),) if n % 10 in (1, 2, 3, 4)} | {
        *("user 10", "user 39", "user 40")
    }
    expected = [user for n in range(1, 41) if (user := f"user {n}") not in lost]
    found = [flat(await walk(service, limits=limits)) for limits in ([1], [3], [500])]

    assert [expected] * 3 == found


async def test_an_organization_that_lost_all_users(start_with):
    """An organization whose members' users are all gone is walked to its end, and is empty."""
    service = await start_with(
        'alter table members drop constraint "members_userId_fkey"',
        crowd(7, TIMES["equal"]),
        "delete from users where id like 'user %'",
    )
    found = flat(await walk(service, limits=[2]))

    assert [] == found


# While members come and go.


async def churn(service, stop):
    """Insert and delete memberships all over the order until told to stop; count the rounds."""
    rounds = 0
    while not stop.is_set():
        await service.database.execute(
            """insert into members (id, "organizationId", "userId", role, "createdAt")
            select format('member %s', n / 4.0) || $1, 'big', 'guest', 'staff',
                   case when n % 5 > 0
                        then timestamptz '2019-12-01' + random() * interval '3 months' end
            from generate_series(1, 40) n""",
            f" guest {rounds}",
        )
        await service.database.execute(
            """delete from members where "userId" = 'guest' and random() < 0.7"""
        )
        rounds += 1
    return rounds


async def busy_walk(service, limits):
    """Walk while guests come and go, beginning once they do; return all pages but the guests'."""
    await service.database.execute(
        """insert into users (id, name, email, "emailVerified") values ('guest', '', 'guest', true)"""
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        churning = tasks.create_task(churn(service, stop))
        while not await service.database.fetchval(
            """select exists (select from members where "userId" = 'guest')"""
        ):
            await asyncio.sleep(0)
        try:
            pages = await walk(service, limits=limits)
        finally:
            stop.set()
    return [user for user in flat(pages) if user != "guest"], churning.result()


@pytest.mark.parametrize(
    "times",
    [TIMES["distinct"], TIMES["equal"], TIMES["some-equal"], TIMES["null"], TIMES["some-null"]],
    ids=["distinct", "equal", "some-equal", "null", "some-null"],
)
async def test_a_walk_while_members_come_and_go(start_with, times):
    """Every membership that exists throughout is shown exactly once, in its order."""
    service = await start_with(NULLABLE, crowd(300, times))
    expected = await in_order(service)
    found, rounds = await busy_walk(service, [1, 20, 3, 50])

    assert expected == found
    assert rounds > 0


@pytest.mark.heavy
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("limits", [[1, 7, 100, 500, 33], [100], [11]], ids=["mixed", "100", "11"])
async def test_a_long_walk_while_members_come_and_go(start_with, times, limits):
    """An organization of 5,000 is walked with every stable member exactly once, in order."""
    service = await start_with(NULLABLE, crowd(5_000, times))
    expected = await in_order(service)
    found, rounds = await busy_walk(service, limits)

    assert {} == {user: count for user, count in Counter(found).items() if count > 1}
    assert expected == found
    assert rounds > 0


@pytest.mark.heavy
async def test_a_long_walk_with_generic_plans(start_with):
    """A generic plan walks no wrong index: a page of 100 among 20,000 members stays fast."""
    service = await start_with(NULLABLE, crowd(20_000, TIMES["some-null"]), GENERIC)
    now = asyncio.get_running_loop().time
    start = now()
    found = flat(await walk(service, limits=[100]))
    elapsed = now() - start

    assert await in_order(service) == found
    assert elapsed < 20


# Large images.


async def images_walk(start_with, count, size, **options):
    service = await start_with(
        crowd(count, TIMES["equal"]),
        f"update users set image = 'data:image/png;base64,' || id || repeat('A', {size})"
        " where id like 'user %'",
        **options,
    )
    pages, cursor = [], None
    while True:
        answer = await service.ask(
            "users.org_list", {"organizationId": "big", "limit": 500, "cursor": cursor}
        )
        pages.append(answer)
        assert cursor is None or cursor != answer.json["nextCursor"], "the walk has no end"
        cursor = answer.json["nextCursor"]
        if cursor is None:
            return await in_order(service), pages


@pytest.mark.parametrize(
    ("count", "size", "options"),
    [
        pytest.param(30, 20_000, {"config": "max_payload: 65536"}, id="20-KB"),
        pytest.param(30, 60_000, {"config": "max_payload: 65536"}, id="one-a-message"),
        pytest.param(200, 8_000, {"config": "max_payload: 65536"}, id="small"),
        pytest.param(20, 300_000, {}, id="300-KB"),
        pytest.param(400, 300_000, {}, id="400-of-300-KB", marks=pytest.mark.heavy),
    ],
)
async def test_a_walk_of_members_with_large_images(start_with, count, size, options):
    """Everyone is listed with their image, however many messages that takes."""
    expected, pages = await images_walk(start_with, count, size, **options)

    users = [user for page in pages for user in page.json["users"]]
    assert expected == [user["id"] for user in users]
    assert [f"data:image/png;base64,{user}{'A' * 20}" for user in expected] == [
        user["image"][: 42 + len(user["id"])] for user in users
    ]
    limit = 65_536 if options else 1_048_576
    assert max(len(page.body) for page in pages) <= limit
    assert min(len(page.json["users"]) for page in pages) >= 1


async def test_an_image_left_out_counts_once(start_with):
    """Of a page that is cut to fit into a message, an image that is left out is counted once."""
    service = await start_with(
        crowd(400, TIMES["distinct"]),
        """update users set name = repeat('n', 5000),
                            image = case id when 'user 1' then repeat('x', 1048400) end
        where id like 'user %'""",
        RESPONDER_ADMIN_LISTEN="127.0.0.1:0",
    )
    page = await service.ask("users.org_list", {"organizationId": "big", "limit": 400})
    metrics = (await service.admin.get("/metrics")).text

    assert 100 < len(page.json["users"]) < 400
    assert "\nresponder_images_omitted_total 1.0\n" in metrics


# Cursors.


def cursor_of(organization, created, member):
    return wire.encode_cursor(wire.Position(organization, created, member))


async def some_cursor(service, cast):
    page = await service.ask("users.org_list", {"organizationId": cast.organization.id, "limit": 3})
    return page.json["nextCursor"]


async def test_a_cursor_belongs_to_its_organization(people_service, cast):
    """A cursor of one organization is refused for another."""
    cursor = await some_cursor(people_service, cast)
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.second_organization.id, "cursor": cursor}
    )

    assert "invalid_request" == answer.code
    assert "cursor" in answer.json["message"]


async def test_a_cursor_may_be_used_again(people_service, cast):
    """The same cursor answers the same page, with any limit."""
    request = {
        "organizationId": cast.organization.id,
        "cursor": await some_cursor(people_service, cast),
    }
    short = await people_service.ask("users.org_list", {**request, "limit": 5})
    again = await people_service.ask("users.org_list", {**request, "limit": 5})
    long = await people_service.ask("users.org_list", {**request, "limit": 50})

    assert short.json == again.json
    assert short.json["users"] == long.json["users"][:5]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cursor: f"{cursor}A", id="longer"),
        pytest.param(lambda cursor: cursor[:-1], id="shorter"),
        pytest.param(lambda cursor: cursor[::-1], id="backwards"),
        pytest.param(lambda cursor: cursor.swapcase(), id="other-case"),
        pytest.param(lambda cursor: f" {cursor}", id="blank"),
        pytest.param(lambda cursor: cursor * 2, id="twice"),
        pytest.param(lambda cursor: "", id="empty"),
        pytest.param(lambda cursor: "ü", id="not-ascii"),
        pytest.param(lambda cursor: "\ud800", id="lone-surrogate"),
        pytest.param(lambda cursor: "\0", id="nul"),
        pytest.param(lambda cursor: "W10", id="empty-list"),
        pytest.param(lambda cursor: "bnVsbA", id="null"),
        pytest.param(lambda cursor: "W1tbW1tbW1s" * 5_000, id="deep"),
        pytest.param(lambda cursor: "_____w", id="not-utf8"),
    ],
)
async def test_a_cursor_that_was_changed_is_invalid(people_service, cast, change):
    """What users.org_list has not given is no cursor, and the message names the field."""
    cursor = await some_cursor(people_service, cast)
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "cursor": change(cursor)}
    )

    assert "invalid_request" == answer.code
    assert "cursor" in answer.json["message"]


@pytest.mark.parametrize(
    ("created", "member"),
    [
        ("soon", "x"),
        ("", "x"),
        ("2020-02-30", "x"),
        ("2020-01-01T00:00:00+25:00", "x"),
        ("1000000-01-01T00:00:00+00:00", "x"),
        ("2020-01-01 00:00:00 Nowhere/Land", "x"),
        ("2020-01-01T00:00:00+00:00", "\0"),
        (None, "a\0"),
    ],
)
async def test_a_cursor_that_points_nowhere_is_invalid(people_service, cast, created, member):
    """A cursor that was made up with a time or an id that cannot be is invalid_request."""
    cursor = cursor_of(cast.organization.id, created, member)
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "cursor": cursor}
    )

    assert "invalid_request" == answer.code


async def test_a_cursor_of_a_table_that_has_changed_is_invalid(start_with):
    """A cursor from before a migration that took the times away is refused, not a bug."""
    service = await start_with(
        crowd(9, TIMES["equal"]), 'alter table members drop column "createdAt"'
    )
    answers = [
        await service.ask(
            "users.org_list",
            {"organizationId": "big", "cursor": cursor_of("big", created, "member 1")},
        )
        for created in ("2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00")
    ]

    assert ["invalid_request"] * 2 == [answer.code for answer in answers]


async def test_memberships_of_all_times_are_walked(start_with):
    """Times that Python cannot hold, such as before our era, end no walk."""
    service = await start_with(
        crowd(6, TIMES["distinct"]),
        """update members set "createdAt" = '0044-03-15 BC' where id = 'member 1'""",
        """update members set "createdAt" = '20000-01-01' where id = 'member 2'""",
        """update members set "createdAt" = '-infinity' where id = 'member 3'""",
        """update members set "createdAt" = 'infinity' where id = 'member 4'""",
    )
    found = flat(await walk(service, limits=[1]))

    assert await in_order(service) == found


ZONES = st.none() | st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(timezones=ZONES).map(datetime.isoformat)


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_no_cursor_is_a_bug(people_service, cast, data):
    """Whatever is sent as a cursor, the answer is a page or invalid_request."""
    good = await some_cursor(people_service, cast)
    organization = cast.organization.id
    created = st.none() | MOMENTS | st.text(max_size=30)
    cursor = data.draw(
        st.text(max_size=60)
        | st.builds(
            lambda at, char: good[:at] + char + good[at + 1 :],
            st.integers(0, len(good) - 1),
            st.characters(codec="ascii"),
        )
        | st.builds(cursor_of, st.just(organization), created, st.text(max_size=40))
    )
    answer = await people_service.ask(
        "users.org_list", {"organizationId": organization, "cursor": cursor, "limit": 1}
    )

    assert answer.code in {None, "invalid_request"}


@pytest.mark.parametrize(
    "created",
    [
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59-10:00",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59.999999+00:00",
    ],
)
async def test_cursors_at_the_ends_of_time_are_no_bug(people_service, cast, created):
    """A time that only another zone could hold is a page or invalid_request."""
    cursor = cursor_of(cast.organization.id, created, "x")
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "cursor": cursor}
    )

    assert answer.code in {None, "invalid_request"}
