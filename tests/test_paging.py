"""Walking an organization shows every member exactly once, whatever is changed meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest

from tests.walks import GENERIC, NULLABLE, TIMES, crowd, flat, in_order, walk

OFF = {"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_ADMIN_LISTEN": "off"}

# Whole walks.


@pytest.fixture(scope="module")
async def all_times(template, create_database):
    """The URL of a database with an organization for each entry of TIMES."""
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
    """A membership of an infinite time comes after the dated and before the undated ones."""
    service = await start(all_times, **OFF)
    found = flat(await walk(service, limits=[7], organization="infinite"))

    assert await in_order(service, "infinite") == found


async def test_memberships_of_all_times_are_walked(start_with):
    """Times that Python cannot hold, such as those before our era, end no walk."""
    service = await start_with(
        crowd(6, TIMES["distinct"]),
        """update members set "createdAt" = '0044-03-15 BC' where id = 'member 1'""",
        """update members set "createdAt" = '20000-01-01' where id = 'member 2'""",
        """update members set "createdAt" = '-infinity' where id = 'member 3'""",
        """update members set "createdAt" = 'infinity' where id = 'member 4'""",
    )
    found = flat(await walk(service, limits=[1]))

    assert await in_order(service) == found


async def test_pages_are_in_order_where_created_at_is_never_null(start_with):
    """Pages are in the same order on Better Auth's own columns, which allow no null."""
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
    """Pages are in the same order for timestamps without zone, with a cursor at each of them."""
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
    """Where memberships have no id, those that are equally old are in the order of their users."""
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
    """A page that ends with the last member has no next one."""
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
    """An organization that all members have left is an empty list."""
    await service.database.execute("delete from members")
    organization = await service.database.fetchval("select id from organizations limit 1")
    answer = await service.ask("users.org_list", organization)

    assert {"users": [], "nextCursor": None} == answer.json


async def test_the_last_page_is_empty_after_all_members_left(start_with):
    """The page after a cursor is empty, and the last, if all members have left since."""
    service = await start_with(crowd(10, TIMES["distinct"]))
    page = await service.ask("users.org_list", {"organizationId": "big", "limit": 5})
    await service.database.execute("delete from members")
    rest = await service.ask(
        "users.org_list", {"organizationId": "big", "cursor": page.json["nextCursor"]}
    )

    assert {"users": [], "nextCursor": None} == rest.json


async def test_a_cursor_whose_membership_is_gone_goes_on(start_with):
    """When the last member of a page leaves, the next page starts where that member was."""
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


async def test_an_organization_whose_users_are_gone_is_empty(start_with):
    """An organization whose users are all gone is walked to its end, and is empty."""
    service = await start_with(
        'alter table members drop constraint "members_userId_fkey"',
        crowd(7, TIMES["equal"]),
        "delete from users where id like 'user %'",
    )
    found = flat(await walk(service, limits=[2]))

    assert [] == found


# While members come and go.


async def churn(service, stop):
    """Insert and delete memberships anywhere in the order until `stop`; return the rounds."""
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
    """Walk while memberships of one guest come and go; return the other users, and the rounds."""
    await service.database.execute(
        """insert into users (id, name, email, "emailVerified")
        values ('guest', '', 'guest', true)"""
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
    service = await start_with(NULLABLE, crowd(5_000, times), RESPONDER_TIMEOUT="10")
    expected = await in_order(service)
    found, rounds = await busy_walk(service, limits)

    assert {} == {user: count for user, count in Counter(found).items() if count > 1}
    assert expected == found
    assert rounds > 0


@pytest.mark.heavy
async def test_a_long_walk_with_generic_plans(start_with):
    """With generic plans 20,000 members are walked in order; their index is for test_plans."""
    service = await start_with(
        NULLABLE, crowd(20_000, TIMES["some-null"]), GENERIC, RESPONDER_TIMEOUT="10"
    )
    found = flat(await walk(service, limits=[100]))

    assert await in_order(service) == found


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
    """Each member is listed with their image, however many messages that takes."""
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
    """On a page that is cut to fit into a message, an image that is left out counts once."""
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
