"""A user answers as subjects.md, The User says, whatever its table looks like."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from responder import User

SCHEMAS = Path(__file__).parent / "schemas"
KEYS = (
    *("id", "email", "emailVerified", "name", "image", "isAnonymous", "role"),
    *("banned", "banReason", "banExpires"),
    *("organizationId", "orgRole", "managerId", "departmentId"),
)


async def stored(service, column, values, *, type="text"):  # noqa: A002
    """Store each value with a person of its own, and return what users.get_many makes of them."""
    rows = await service.database.fetch("select id from users order by id limit $1", len(values))
    ids = [row["id"] for row in rows]
    for user, value in zip(ids, values, strict=True):
        await service.database.execute(
            f'update users set "{column}" = $2::text::{type} where id = $1', user, value
        )
    return (await service.ask("users.get_many", {"ids": ids})).json["users"]


async def images_omitted(service):
    """Return the counter of the admin listener."""
    lines = (await service.admin.get("/metrics")).text.splitlines()
    (line,) = (each for each in lines if each.startswith("responder_images_omitted_total "))
    return float(line.split()[1])


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
    """An anonymous user is told from the others."""
    answer = await people_service.ask("users.get", {"id": cast.guest.id})

    assert answer.json["isAnonymous"] is True


@pytest.mark.parametrize("subject", ["get", "by_email", "get_many", "org_list"])
async def test_every_key_is_always_there(people_service, cast, subject):
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


# Conversions, each a table.


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
        "alter table members alter role type member_role[] using array['owner', 'staff']::member_role[]",
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


async def test_nobody_answers_with_functions_of_their_own(start_with, cast):
    """Who may create functions or operators beside the tables changes no answer."""
    service = await start_with(
        "alter table users alter role type text[] using array[role]",
        """create function public.array_to_string(text[], text) returns text
           language sql as $$ select 'admin' $$""",
        "alter table users alter id type varchar",
        """create function public.anyone(varchar, text) returns bool language sql as 'select true'""",
        """create operator public.= (leftarg = varchar, rightarg = text, function = anyone)""",
    )

    assert "user" == (await service.users.get(cast.owner.id)).role
    assert "not_found" == (await service.ask("users.get", "nobody")).code


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp"])
async def test_email_verified_may_be_a_time(start_with, type_):
    """A timestamp column (NextAuth heritage) means that it is not null."""
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


# Tables as generators make them.


def _snake(sql):
    """Write Better Auth's camelCase names in snake_case."""
    return re.sub('"(.*?)"', lambda name: re.sub("[A-Z]", r"_\g<0>", name[0]).lower(), sql)


def _mixed(sql):
    """Write some of them in snake_case."""
    for name in ("emailVerified", "banExpires", "organizationId", "managerId"):
        sql = sql.replace(f'"{name}"', _snake(f'"{name}"'))
    return sql


SAMPLE = """
insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role, banned,
                    "banReason", "banExpires", "isAnonymous", image)
values ('u1', 'Zoë', 'zoe@example.com', true, now(), now(), 'admin', true,
        'spam', '2031-01-01 00:00:00.5+00', true, 'https://images.example/z.png');
insert into organization (id, name, slug, "createdAt") values ('o1', 'Lumen', 'lumen', now());
insert into member (id, "organizationId", "userId", role, "createdAt", "managerId", "departmentId")
values ('m1', 'o1', 'u1', 'owner', now(), 'u1', 'sales');
"""
RENAME = """
alter table "user" rename "emailVerified" to email_verified;
alter table "user" rename "banExpires" to ban_expires;
alter table member rename "organizationId" to organization_id;
alter table member rename "managerId" to manager_id;
"""
PLURAL = """
alter table "user" rename to users;
alter table member rename to members;
alter table session rename to sessions;
alter table account rename to accounts;
"""


@pytest.mark.parametrize(
    ("file", "spell", "change"),
    [
        pytest.param("kysely-1.7.sql", str, "", id="singular-camelCase"),
        pytest.param("kysely-1.7.sql", str, PLURAL, id="plural-camelCase"),
        pytest.param("drizzle-1.7.sql", _snake, "", id="singular-snake_case"),
        pytest.param("drizzle-1.7.sql", _snake, PLURAL, id="plural-snake_case"),
        pytest.param("kysely-1.7.sql", _mixed, RENAME, id="mixed"),
    ],
)
async def test_the_tables_of_generators_are_read(start_with, file, spell, change):
    """Tables singular or plural, in camelCase, snake_case or both, answer the same user."""
    schema = (SCHEMAS / file).read_text()
    early, late = (change, "") if change == RENAME else ("", change)
    service = await start_with(schema, early, spell(SAMPLE), late, empty=True)
    answer = await service.ask("users.get", {"id": "u1"})

    assert {
        "id": "u1",
        "email": "zoe@example.com",
        "emailVerified": True,
        "name": "Zoë",
        "image": "https://images.example/z.png",
        "isAnonymous": True,
        "role": "admin",
        "banned": True,
        "banReason": "spam",
        "banExpires": "2031-01-01T00:00:00.500Z",
        "organizationId": "o1",
        "orgRole": "owner",
        "managerId": "u1",
        "departmentId": "sales",
    } == answer.json


# Images.


async def test_an_image_in_the_row_is_answered(people_service, cast):
    """An image that fits into a message is answered as it is."""
    answer = await people_service.ask("users.get", {"id": cast.painted.id})

    assert cast.painted.image == answer.json["image"]


async def test_an_image_in_the_row_is_answered_among_others(people_service, cast):
    """An image is the same whether its user is asked for alone or with a hundred others."""
    many = [cast.owner, cast.painted, cast.viewer] * 40
    answers = await asyncio.gather(
        *(people_service.ask("users.get", {"id": person.id}) for person in many)
    )

    assert [person.image for person in many] == [answer.json["image"] for answer in answers]


async def test_an_image_in_the_row_is_in_lists(people_service, cast):
    """users.get_many and users.org_list answer an image in the row, too."""
    batch = await people_service.users.get_many([cast.painted.id, cast.owner.id])
    members = [user async for user in people_service.users.org_list(cast.organization.id)]

    assert cast.painted.image == batch.users[0].image
    assert [cast.painted.image] == [user.image for user in members if user.id == cast.painted.id]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(70_000, id="larger-than-a-message"),
        pytest.param(65_500, id="larger-with-the-rest-of-its-record"),
    ],
)
async def test_an_image_too_large_for_a_message_is_null_and_counted(start_with, cast, size):
    """An image that would push the record over the limit answers as null, and is counted once."""
    service = await start_with(RESPONDER_ADMIN_LISTEN="127.0.0.1:0", config="max_payload: 65536")
    person, organization = cast.second_owner, cast.second_organization.id
    await service.database.execute(
        "update users set image = repeat('A', $2) where id = $1", person.id, size
    )
    answers = [
        await service.ask("users.get", {"id": person.id}),
        await service.ask("users.by_email", {"email": person.email}),
        await service.ask("users.get_many", {"ids": [person.id]}),
        await service.ask("users.org_list", {"organizationId": organization, "limit": 1}),
    ]

    users = [user for answer in answers for user in answer.json.get("users", [answer.json])]
    expected = [(person.id, person.name, None, "owner")] * 4
    assert expected == [(u["id"], u["name"], u["image"], u["orgRole"]) for u in users]
    assert 4 == await images_omitted(service)


async def test_images_too_large_are_null_among_others(start_with, cast):
    """One user's huge image changes nothing for those who are asked for at the same time."""
    service = await start_with(config="max_payload: 65536")
    await service.database.execute(
        "update users set image = repeat('A', 70000) where id = $1", cast.painted.id
    )
    many = [cast.owner, cast.painted, cast.viewer] * 30
    answers = await asyncio.gather(
        *(service.ask("users.get", {"id": person.id}) for person in many)
    )

    expected = [None if person is cast.painted else person.image for person in many]
    assert expected == [answer.json["image"] for answer in answers]


# Email.


async def test_a_user_is_found_by_email_in_any_case(people_service, cast):
    """An email is lower-cased before the lookup."""
    answer = await people_service.ask("users.by_email", {"email": cast.owner.email.upper()})

    assert cast.owner.id == answer.json["id"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda email: f" {email}", id="blank-before"),
        pytest.param(lambda email: f"{email} ", id="blank-after"),
        pytest.param(lambda email: email.replace(".", "_"), id="wildcard"),
        pytest.param(lambda email: "%", id="percent"),
        pytest.param(lambda email: email[:-1], id="part"),
        pytest.param(lambda email: f"{email}\0", id="nul"),
        pytest.param(lambda email: f"{email}\ud800", id="lone-surrogate"),
        pytest.param(lambda email: "", id="empty"),
    ],
)
async def test_an_email_is_compared_exactly(people_service, cast, change):
    """Nothing but the email itself, in any case, finds its user."""
    answer = await people_service.ask("users.by_email", {"email": change(cast.owner.email)})

    assert "not_found" == answer.code


async def test_an_email_stored_in_capitals_is_not_found(service, cast):
    """The stored email is not changed for the comparison: Better Auth would not find it, either."""
    await service.database.execute("update users set email = upper(email)")
    answer = await service.ask("users.by_email", {"email": cast.owner.email.upper()})

    assert "not_found" == answer.code


NAMESAKES = [
    ("several", "b", "2021-01-01"),
    ("several", "a", "2022-01-01"),
    ("equal", "d", "2021-01-01"),
    ("equal", "c", "2021-01-01"),
    ("nulls", "e", None),
    ("nulls", "f", "2022-01-01"),
    ("only nulls", "h", None),
    ("only nulls", "g", None),
]


async def test_of_several_users_with_an_email_the_earliest_answers(start_with):
    """Where an email is not unique the earliest createdAt wins, then the id."""
    service = await start_with(
        "alter table users drop constraint users_email_key",
        'alter table users alter "createdAt" drop not null',
    )
    await service.database.executemany(
        'insert into users (email, id, "createdAt", name, "emailVerified")'
        " values ($1, $2, $3::text::timestamptz, '', true)",
        NAMESAKES,
    )
    emails = ["several", "equal", "nulls", "only nulls"] * 20
    answers = await asyncio.gather(
        *(service.ask("users.by_email", {"email": email}) for email in emails)
    )

    assert ["b", "c", "f", "g"] * 20 == [answer.json["id"] for answer in answers]


async def test_many_emails_at_once_are_answered_each(people_service, cast):
    """Emails that are looked up together, in any case or unknown, each find their own user."""
    people = [cast.owner, cast.admin, cast.viewer, cast.guest, cast.no_organization] * 20
    answers = await asyncio.gather(
        people_service.ask("users.by_email", {"email": "nobody@example.com"}),
        *(people_service.ask("users.by_email", {"email": p.email.title()}) for p in people),
        people_service.ask("users.by_email", {"email": "\ud800"}),
    )

    expected = [None, *(person.id for person in people), None]
    assert expected == [answer.json.get("id") for answer in answers]


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
    """A User is a value."""
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
async def test_is_banned_gives_the_effective_answer(people_service, cast, person, at, expected):
    """A ban is in force until its end, and without an end for ever."""
    user = await people_service.users.get(getattr(cast, person).id)

    assert expected == user.is_banned(at)
