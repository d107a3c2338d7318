"""The organization fields of a user come from the membership of subjects.md, The User."""

from __future__ import annotations

import asyncio

import pytest

NONE = (None, None, None, None)
EVERY_WAY = pytest.mark.parametrize("ask", ["get", "by_email", "get_many", "among others"])
START = """
alter table members alter "createdAt" drop not null;
delete from members;
"""


async def organization_fields(service, ask, person, **organization):
    """Return the four organization fields of a person, asked for in one of the ways."""
    if ask == "get":
        user = (await service.ask("users.get", {"id": person.id, **organization})).json
    elif ask == "by_email":
        user = (await service.ask("users.by_email", {"email": person.email, **organization})).json
    elif ask == "get_many":
        (user,) = (await service.ask("users.get_many", {"ids": [person.id], **organization})).json[
            "users"
        ]
    else:
        others = [service.ask("users.get", {"id": f"nobody {n}"}) for n in range(50)]
        *_, answer = await asyncio.gather(
            *others, service.ask("users.get", {"id": person.id, **organization})
        )
        user = answer.json
    return tuple(user[key] for key in ("organizationId", "orgRole", "managerId", "departmentId"))


async def join(service, person, *memberships):
    """Make a person a member: id, organization, role, and when."""
    await service.database.executemany(
        'insert into members (id, "organizationId", "userId", role, "createdAt")'
        " values ($1, $2, $3, $4, $5::text::timestamptz)",
        [
            (id_, organization.id, person.id, role, created)
            for id_, organization, role, created in memberships
        ],
    )


@EVERY_WAY
async def test_without_an_organization_named_the_earliest_membership_answers(
    people_service, cast, ask
):
    """A user of two organizations answers with the one that they joined first."""
    fields = await organization_fields(people_service, ask, cast.two_organizations)

    assert (cast.organization.id, "staff", cast.admin.id, "engineering") == fields


@EVERY_WAY
async def test_what_is_in_no_organization_is_no_membership(start_with, cast, ask):
    """A row without an organization, however early and whatever its role, is not chosen."""
    service = await start_with(
        'alter table members alter "organizationId" drop not null',
        f"""insert into members (id, "userId", role, "createdAt")
            values ('early', '{cast.two_organizations.id}', 'superowner', '1999-01-01')""",
    )

    fields = await organization_fields(service, ask, cast.two_organizations)

    assert (cast.organization.id, "staff") == fields[:2]


@EVERY_WAY
async def test_the_membership_in_the_organization_named_answers(people_service, cast, ask):
    """A user of two organizations answers with the one that the request names."""
    fields = await organization_fields(
        people_service, ask, cast.two_organizations, organizationId=cast.second_organization.id
    )

    assert (cast.second_organization.id, "admin", cast.second_owner.id, None) == fields


@EVERY_WAY
async def test_a_user_who_is_not_in_the_organization_named_has_four_nulls(
    people_service, cast, ask
):
    """Where the user has no membership in the organization named, the four fields are null."""
    fields = await organization_fields(
        people_service, ask, cast.owner, organizationId=cast.second_organization.id
    )

    assert NONE == fields


@EVERY_WAY
@pytest.mark.parametrize("organization", ["", "nobody's", "a\0b", "\ud800"])
async def test_an_impossible_organization_matches_nothing(people_service, cast, ask, organization):
    """A user is not a member of an organization whose id cannot exist."""
    fields = await organization_fields(people_service, ask, cast.owner, organizationId=organization)

    assert NONE == fields


@EVERY_WAY
async def test_null_names_no_organization(people_service, cast, ask):
    """An organizationId that is null is answered as if it were not given."""
    fields = await organization_fields(people_service, ask, cast.owner, organizationId=None)

    assert (cast.organization.id, "owner", None, None) == fields


@EVERY_WAY
async def test_a_user_without_memberships_has_four_nulls(people_service, cast, ask):
    """A user of no organization answers with four nulls."""
    fields = await organization_fields(people_service, ask, cast.no_organization)

    assert NONE == fields


async def test_each_of_many_requests_has_its_own_organization(people_service, cast):
    """Requests that are answered together keep their organizations apart."""
    first, second = cast.organization.id, cast.second_organization.id
    organizations = [first, second, None, "a\0b", "nobody's"] * 20
    answers = await asyncio.gather(
        *(
            people_service.ask(
                "users.get", {"id": cast.two_organizations.id, "organizationId": organization}
            )
            for organization in organizations
        )
    )

    assert [first, second, first, None, None] * 20 == [
        answer.json["organizationId"] for answer in answers
    ]


async def test_lists_report_the_organization_listed(people_service, cast):
    """A user of two organizations appears in each list with the membership there."""
    found = [
        (user.organization_id, user.org_role, user.manager_id)
        for organization in (cast.organization.id, cast.second_organization.id)
        async for user in people_service.users.org_list(organization)
        if user.id == cast.two_organizations.id
    ]

    assert [
        (cast.organization.id, "staff", cast.admin.id),
        (cast.second_organization.id, "admin", cast.second_owner.id),
    ] == found


ORDERS = [
    ("earliest", ("b", "2020-01-01"), ("a", "2020-01-01 00:00:00.000001")),
    ("equal", ("b", "2020-01-01"), ("a", "2020-01-01")),
    ("null last", ("a", None), ("b", "2030-01-01")),
    ("only nulls", ("b", None), ("a", None)),
    ("infinity before null", ("a", None), ("b", "infinity")),
]


@pytest.mark.parametrize("ask", ["by_email", "among others"])
async def test_the_earliest_membership_is_by_time_and_id(start_with, cast, ask):
    """Without an organization named: the earliest createdAt, nulls last, then the lower id."""
    service = await start_with(START)
    found = {}
    for name, *memberships in ORDERS:
        await service.database.execute("delete from members")
        organizations = (cast.organization, cast.second_organization)
        await join(
            service,
            cast.owner,
            *(
                (id_, organization, id_, created)
                for (id_, created), organization in zip(memberships, organizations, strict=True)
            ),
        )
        _, found[name], *_ = await organization_fields(service, ask, cast.owner)

    assert {
        "earliest": "b",
        "equal": "a",
        "null last": "b",
        "only nulls": "a",
        "infinity before null": "b",
    } == found


async def test_memberships_without_created_at_are_ordered_by_id(start_with, cast):
    """Where memberships have no createdAt, the one with the lower id answers."""
    service = await start_with(START, 'alter table members drop "createdAt"')
    await service.database.executemany(
        'insert into members (id, "organizationId", "userId", role) values ($1, $2, $3, $1)',
        [
            ("b", cast.organization.id, cast.owner.id),
            ("a", cast.second_organization.id, cast.owner.id),
        ],
    )
    fields = await organization_fields(service, "get", cast.owner)

    assert (cast.second_organization.id, "a", None, None) == fields


async def test_memberships_without_id_are_ordered_by_organization(start_with, cast):
    """Where memberships have no id and are equally old, the lower organization id decides."""
    service = await start_with(START, "alter table members drop id")
    await service.database.executemany(
        'insert into members ("organizationId", "userId", role, "createdAt")'
        " values ($1, $2, 'staff', '2020-01-01')",
        [
            (organization.id, cast.owner.id)
            for organization in (cast.organization, cast.second_organization)
        ],
    )
    (organization, *_) = await organization_fields(service, "get", cast.owner)

    assert min(cast.organization.id, cast.second_organization.id) == organization


# Duplicates: Better Auth lets a user be twice in an organization.


@pytest.mark.parametrize("ask", ["get", "among others"])
async def test_of_duplicate_memberships_the_earliest_answers(service, cast, ask):
    """A user who is twice in an organization answers with the earlier membership."""
    await join(
        service,
        cast.owner,
        ("0", cast.organization, "later", "2099-01-01"),
        ("1", cast.organization, "earlier", "2000-01-01"),
    )
    fields = await organization_fields(
        service, ask, cast.owner, organizationId=cast.organization.id
    )

    assert (cast.organization.id, "earlier", None, None) == fields


async def members(service, organization, limit):
    """Walk an organization; return the id and role of each member."""
    request = {"organizationId": organization.id, "limit": limit}
    found, cursor = [], None
    while True:
        page = (await service.ask("users.org_list", {**request, "cursor": cursor})).json
        found += [(user["id"], user["orgRole"]) for user in page["users"]]
        assert cursor is None or cursor != page["nextCursor"], "the walk has no end"
        cursor = page["nextCursor"]
        if cursor is None:
            return found


async def test_a_user_with_duplicate_memberships_is_listed_once(start_with, cast):
    """Of duplicate memberships, the earliest is listed, on whatever page the others are."""
    service = await start_with(START)
    there = cast.second_organization
    await join(
        service,
        cast.owner,
        ("5", there, "earliest", "2020-01-01"),
        ("1", there, "later", "2020-01-03"),
        ("2", there, "undated", None),
    )
    await join(service, cast.admin, ("4", there, "staff", "2020-01-02"))
    await join(service, cast.staff, ("8", there, "8", None), ("7", there, "7", None))
    await join(service, cast.viewer, ("6", there, "staff", "2020-01-04"))

    found = [await members(service, there, limit) for limit in (1, 2, 3, 500)]

    assert [
        [
            (cast.owner.id, "earliest"),
            (cast.admin.id, "staff"),
            (cast.viewer.id, "staff"),
            (cast.staff.id, "7"),
        ]
    ] * 4 == found


async def test_a_user_with_duplicate_memberships_without_id_is_listed_once(start_with, cast):
    """Where memberships have no id, duplicates are listed once all the same."""
    service = await start_with(START, "alter table members drop id")
    await service.database.executemany(
        'insert into members ("organizationId", "userId", role, "createdAt")'
        " values ($1, $2, $3, $4::text::timestamptz)",
        [
            (cast.second_organization.id, person.id, role, created)
            for person, role, created in (
                (cast.owner, "earliest", "2020-01-01"),
                (cast.admin, "staff", "2020-01-02"),
                (cast.owner, "later", "2020-01-03"),
            )
        ],
    )

    found = [await members(service, cast.second_organization, limit) for limit in (1, 500)]

    assert [[(cast.owner.id, "earliest"), (cast.admin.id, "staff")]] * 2 == found


# Without the organization plugin.


@pytest.fixture(params=["drop table members", "off"])
async def without_members(request, start_with):
    """A service that has no member table, or was told not to look for one."""
    if request.param == "off":
        return await start_with(RESPONDER_MEMBERS_TABLE="off")
    return await start_with(request.param)


async def test_without_a_member_table_the_organization_fields_are_null(without_members, cast):
    """Users answer without the organization plugin, whether the request names one or not."""
    named = {"organizationId": cast.organization.id}
    found = [
        await organization_fields(without_members, ask, cast.owner, **organization)
        for ask in ("get", "by_email", "get_many", "among others")
        for organization in ({}, named)
    ]

    assert [NONE] * 8 == found


async def test_without_a_member_table_there_are_no_lists(without_members, cast):
    """users.org_list is unavailable, and says that there is no member table."""
    answer = await without_members.ask("users.org_list", {"organizationId": cast.organization.id})

    assert ("unavailable", "503") == (answer.code, answer.headers["Nats-Service-Error-Code"])
    assert "member table" in answer.json["message"]


@pytest.mark.parametrize(("users", "members"), [("bigint", "text"), ("text", "bigint")])
async def test_ids_of_nineteen_digits_find_their_membership(start_with, users, members):
    """Ids as large as a bigint holds are found where one table has them as text."""
    largest, larger = str(2**63 - 1), str(2**63)
    ids = [largest, "1234567890123456789", *([larger] if users == "text" else [])]
    values = ", ".join(f"('{each}', '{each}@example.com', true)" for each in ids)
    service = await start_with(
        f"""create table users (id {users} primary key, email text, "emailVerified" boolean)""",
        f"""create table members (id text, "organizationId" text, "userId" {members}, role text)""",
        f"insert into users values {values}",
        f"insert into members values ('m', 'acme', '{largest}', 'owner'), "
        "('n', 'acme', '1234567890123456789', 'owner')",
        empty=True,
    )

    answers = [await service.ask("users.get", {"id": each}) for each in ids]
    page = await service.ask("users.org_list", {"organizationId": "acme"})

    assert ["owner", "owner", None][: len(ids)] == [answer.json["orgRole"] for answer in answers]
    assert 2 == len(page.json["users"])
