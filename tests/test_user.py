"""A user answers as subjects.md, The User says, whatever its table looks like."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from responder import User

KEYS = (
    *("id", "email", "emailVerified", "name", "image", "isAnonymous", "role"),
    *("banned", "banReason", "banExpires"),
    *("organizationId", "orgRole", "managerId", "departmentId"),
)


async def stored(service, column, values, *, type="text"):  # noqa: A002 - SQL's word
    """Store each value in a row of its own, and return what users.get_many makes of them."""
    rows = await service.database.fetch("select id from users order by id limit $1", len(values))
    ids = [row["id"] for row in rows]
    for user, value in zip(ids, values, strict=True):
        await service.database.execute(
            f'update users set "{column}" = $2::text::{type} where id = $1', user, value
        )
    return (await service.ask("users.get_many", {"ids": ids})).json["users"]


async def test_a_user_is_found_by_id(people_service, cast):
    """users.get answers all 14 fields of the user, and nothing else."""
    answer = await people_service.ask("users.get", {"id": cast.staff.id})

    assert {
        "id": cast.staff.id,
        "email": cast.staff.email,
        "emailVerified": True,
        "name": cast.staff.name,
        "image": cast.staff.image,
        "isAnonymous": False,
        "role": "user",
        "banned": False,
        "banReason": None,
        "banExpires": None,
        "organizationId": cast.organization.id,
        "orgRole": "staff",
        "managerId": cast.admin.id,
        "departmentId": "engineering",
    } == answer.json
    assert {} == answer.headers


async def test_a_banned_user_shows_reason_and_end(people_service, cast):
    """A ban answers with its reason, and its end as JavaScript writes it."""
    answer = await people_service.ask("users.get", {"id": cast.temporarily_banned.id})

    assert {
        "banned": True,
        "banReason": cast.temporarily_banned.ban_reason,
        "banExpires": "2099-12-31T00:00:00.000Z",
    } == {key: answer.json[key] for key in ("banned", "banReason", "banExpires")}


async def test_a_ban_that_is_over_is_reported_as_stored(people_service, cast):
    """`banned` stays true after banExpires has passed, as Better Auth leaves it."""
    answer = await people_service.ask("users.get", {"id": cast.ban_over.id})

    assert answer.json["banned"] is True


async def test_an_anonymous_user_is_marked(people_service, cast):
    """An anonymous user answers with isAnonymous."""
    answer = await people_service.ask("users.get", {"id": cast.guest.id})

    assert answer.json["isAnonymous"] is True


@pytest.mark.parametrize("subject", ["get", "by_email", "get_many", "org_list"])
async def test_a_user_has_all_keys_on_every_subject(people_service, cast, subject):
    """All 14 keys are in every user of every subject, with null where there is no value."""
    requests = {
        "get": {"id": cast.guest.id},
        "by_email": {"email": cast.guest.email},
        "get_many": {"ids": [cast.guest.id, cast.owner.id]},
        "org_list": {"organizationId": cast.organization.id, "limit": 500},
    }
    answer = await people_service.ask(f"users.{subject}", requests[subject])

    users = answer.json.get("users", [answer.json])
    assert users
    assert [KEYS] * len(users) == [tuple(user) for user in users]


async def test_null_stays_null(start_with, cast):
    """A text that is null in the table is null in the answer."""
    service = await start_with(
        "alter table users alter email drop not null, alter name drop not null",
        'update users set email = null, name = null, image = null, "banReason" = null',
        'update members set "managerId" = null, "departmentId" = null',
    )
    answer = await service.ask("users.get", {"id": cast.banned.id})

    texts = ("email", "name", "image", "banReason", "managerId", "departmentId")
    assert dict.fromkeys(texts) == {key: answer.json[key] for key in texts}


async def test_missing_plugin_columns_answer_with_their_defaults(start_with, cast):
    """Without the admin, anonymous and organization fields a user is an ordinary one."""
    service = await start_with(
        'alter table users drop role, drop banned, drop "banReason", drop "banExpires",'
        ' drop "isAnonymous", drop image, drop name',
        'alter table members drop "managerId", drop "departmentId"',
    )
    answer = await service.ask("users.get", {"id": cast.staff.id})

    assert {
        "id": cast.staff.id,
        "email": cast.staff.email,
        "emailVerified": True,
        "name": None,
        "image": None,
        "isAnonymous": False,
        "role": "user",
        "banned": False,
        "banReason": None,
        "banExpires": None,
        "organizationId": cast.organization.id,
        "orgRole": "staff",
        "managerId": None,
        "departmentId": None,
    } == answer.json


async def test_a_missing_email_verified_column_means_false(start_with, cast):
    """Where the users table is named by hand, it need not have emailVerified."""
    service = await start_with(
        'alter table users drop "emailVerified"', RESPONDER_USERS_TABLE="users"
    )
    answer = await service.ask("users.get", {"id": cast.staff.id})

    assert (None, False) == (answer.code, answer.json["emailVerified"])


# Columns of other types.


async def test_roles_answer_as_better_auth_stores_them(service):
    """No role means "user", and several stay comma-separated."""
    users = await stored(service, "role", [None, "", "user", "admin", "admin,support", "Ärztin"])

    assert ["user", "user", "user", "admin", "admin,support", "Ärztin"] == [
        user["role"] for user in users
    ]


async def test_roles_of_an_enum_answer_as_text(start_with):
    """An enum column answers in the same form as text."""
    service = await start_with(
        "create type platform_role as enum ('user', 'admin')",
        "alter table users alter role type platform_role using null",
    )
    users = await stored(service, "role", [None, "user", "admin"], type="platform_role")

    assert ["user", "user", "admin"] == [user["role"] for user in users]


async def test_roles_of_an_array_answer_comma_separated(start_with):
    """A text[] column answers in the same form as text."""
    service = await start_with("alter table users alter role type text[] using null")
    values = [None, "{}", "{user}", "{admin,support}"]
    users = await stored(service, "role", values, type="text[]")

    assert ["user", "user", "user", "admin,support"] == [user["role"] for user in users]


async def test_organization_roles_of_an_enum_or_array_answer_as_text(start_with, cast):
    """The role of a membership may be an enum or an array, too."""
    service = await start_with(
        "create type member_role as enum ('owner', 'staff')",
        "alter table members alter role type member_role[]"
        " using array['owner', 'staff']::member_role[]",
    )
    answer = await service.ask("users.get", {"id": cast.staff.id})

    assert "owner,staff" == answer.json["orgRole"]


async def test_flags_answer_as_stored_and_null_is_false(start_with):
    """A boolean answers as stored; null means false."""
    service = await start_with('alter table users alter "emailVerified" drop not null')
    flags = ("emailVerified", "banned", "isAnonymous")
    found = {
        flag: await stored(service, flag, ["true", "false", None], type="boolean") for flag in flags
    }

    assert {flag: [True, False, False] for flag in flags} == {
        flag: [user[flag] for user in users] for flag, users in found.items()
    }


async def test_functions_beside_the_tables_change_no_answer(start_with, cast):
    """A role that may create functions and operators beside the tables cannot change an answer."""
    service = await start_with(
        "alter table users alter role type text[] using array[role]",
        """create function public.array_to_string(text[], text) returns text
           language sql as $$ select 'admin' $$""",
        "alter table users alter id type varchar",
        """create function public.equal(varchar, text) returns bool language sql
           as 'select true'""",
        """create operator public.= (leftarg = varchar, rightarg = text, function = equal)""",
    )

    assert "user" == (await service.users.get(cast.owner.id)).role
    assert "not_found" == (await service.ask("users.get", "nobody")).code


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp"])
async def test_email_verified_may_be_a_time(start_with, type_):
    """A timestamp for emailVerified, which NextAuth leaves, is true unless it is null."""
    service = await start_with(
        'alter table users alter "emailVerified" drop not null,'
        f' alter "emailVerified" type {type_} using null'
    )
    users = await stored(service, "emailVerified", ["2020-01-01", None, "infinity"], type=type_)

    assert [True, False, True] == [user["emailVerified"] for user in users]


ENDS = {
    None: None,
    "2031-02-03 04:05:06.789": "2031-02-03T04:05:06.789Z",
    "2031-02-03 04:05:06": "2031-02-03T04:05:06.000Z",
    "2031-02-03 04:05:06.999999": "2031-02-03T04:05:06.999Z",
    "1969-12-31 23:59:59.5": "1969-12-31T23:59:59.500Z",
    "infinity": None,
}


async def test_ends_of_bans_are_utc_with_milliseconds(start_with):
    """A time with a zone answers in UTC, whatever the zone of the server, and infinity as null."""
    service = await start_with(
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Kolkata''',"
        " current_database()); end $$"
    )
    values = [
        value if value in (None, "infinity") else f"{value}+00" for value in (*ENDS, "infinity")
    ]
    users = await stored(
        service, "banExpires", [*values, "2031-01-01 00:30+01"], type="timestamptz"
    )

    expected = [*ENDS.values(), None, "2030-12-31T23:30:00.000Z"]
    assert expected == [user["banExpires"] for user in users]


async def test_ends_of_bans_without_zone_are_utc(start_with):
    """A time without a zone is UTC, whatever the zone of the server."""
    service = await start_with(
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Kolkata''',"
        " current_database()); end $$",
        'alter table users alter "banExpires" type timestamp using null',
    )
    users = await stored(service, "banExpires", list(ENDS), type="timestamp")

    assert list(ENDS.values()) == [user["banExpires"] for user in users]


async def test_ends_of_bans_without_zone_are_in_the_zone_of_the_setting(start_with):
    """RESPONDER_TIMEZONE says what a time without a zone means, in summer and in winter."""
    service = await start_with(
        'alter table users alter "banExpires" type timestamp using null',
        RESPONDER_TIMEZONE="Europe/Berlin",
    )
    values = ["2031-07-01 12:00", "2031-01-01 12:00", "infinity", None]
    users = await stored(service, "banExpires", values, type="timestamp")

    assert ["2031-07-01T10:00:00.000Z", "2031-01-01T11:00:00.000Z", None, None] == [
        user["banExpires"] for user in users
    ]


# Python.


async def test_a_user_in_python_has_snake_case_attributes(people_service, cast):
    """UsersClient returns a User whose attributes are the keys in snake_case."""
    user = await people_service.users.get(cast.temporarily_banned.id)

    assert (
        User(
            id=cast.temporarily_banned.id,
            email=cast.temporarily_banned.email,
            email_verified=True,
            name=cast.temporarily_banned.name,
            image=cast.temporarily_banned.image,
            is_anonymous=False,
            role="user",
            banned=True,
            ban_reason=cast.temporarily_banned.ban_reason,
            ban_expires=datetime(2099, 12, 31, tzinfo=UTC),
            organization_id=cast.organization.id,
            org_role="staff",
            manager_id=cast.owner.id,
            department_id="sales",
        )
        == user
    )


async def test_a_user_in_python_is_found_by_email(people_service, cast):
    """UsersClient.by_email returns the same User as get."""
    user = await people_service.users.by_email(cast.owner.email.upper())

    assert await people_service.users.get(cast.owner.id) == user


async def test_a_user_in_python_cannot_be_changed(people_service, cast):
    """An attribute of a User cannot be set."""
    user = await people_service.users.get(cast.owner.id)

    with pytest.raises(ValueError, match="frozen"):
        user.role = "admin"


@pytest.mark.parametrize(
    ("person", "at", "expected"),
    [
        ("owner", datetime(2027, 1, 1, tzinfo=UTC), False),
        ("banned", datetime(2027, 1, 1, tzinfo=UTC), True),
        ("temporarily_banned", datetime(2027, 1, 1, tzinfo=UTC), True),
        ("temporarily_banned", datetime(2099, 12, 31, tzinfo=UTC), False),
        ("temporarily_banned", datetime(2100, 1, 1, tzinfo=UTC), False),
        ("ban_over", datetime(2027, 1, 1, tzinfo=UTC), False),
        ("ban_over", datetime(2026, 1, 1, tzinfo=UTC), True),
    ],
)
async def test_is_banned_tells_whether_a_ban_is_in_force(
    people_service, cast, person, at, expected
):
    """A ban is in force until its end, and without an end for ever."""
    user = await people_service.users.get(getattr(cast, person).id)

    assert expected == user.is_banned(at)
