"""Custom columns that RESPONDER_ADDITIONAL_FIELDS asks for are answered with every user."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from responder.dev.tokens import Mint
from responder.errors import SettingsError
from responder.models import User
from responder.postgres.grants import grants_for
from tests.roles import as_role
from tests.shapes import PLAIN

# What Better Auth's generators make of string, number, boolean, date, string[], number[] and json
# (Kysely, Drizzle and Prisma; the names in camelCase and in snake_case), and what the value is.
GENERATED = [
    ('"phoneNumber" text', "'+46 70'", "+46 70"),
    ("preferred_locale text", "'sv \"x\" \\ ✓'", 'sv "x" \\ ✓'),
    ('"logins" integer', "7", 7),
    ('"points" bigint', "9007199254740993", "9007199254740993"),
    ("small_points bigint", "-9007199254740992", -9007199254740992),
    ('"newsletter" boolean', "true", True),
    ('"birthday" timestamptz', "'2001-02-03 04:05:06.789+02'", "2001-02-03T02:05:06.789Z"),
    ("last_seen timestamp", "'2001-02-03 04:05:06.7899'", "2001-02-03T03:05:06.789Z"),
    ('"trialEnds" timestamp(3)', "'2001-07-03 04:05:06'", "2001-07-03T02:05:06.000Z"),
    ("\"tags\" jsonb default '[]'", '\'["a", 1, {"b": null}]\'', ["a", 1, {"b": None}]),
    ("nick_names text[]", "array['a', null, 'c,d']", ["a", None, "c,d"]),
    ('"scores" integer[]', "array[1, 2]", [1, 2]),
    ("settings jsonb", "'{\"a\": 1.50}'", {"a": 1.5}),
]
# Other types, and values at the ends of what a type holds.
ODD = [
    ("j json", r"""'{"a": "\u0000\ud800", "a": 2}'""", {"a": 2}),
    ("days date", "'2027-01-31'", "2027-01-31"),
    ("no_day date", "'infinity'", None),
    ("old_day date", "'0044-03-15 BC'", None),
    ("for_ever timestamp", "'infinity'", None),
    ("since_ever timestamptz", "'-infinity'", None),
    ("late timestamp", "'294276-12-31 23:59:59'", None),
    ("early timestamp", "'4713-01-01 BC'", None),
    ("last timestamptz", "'9999-12-31 23:59:59.999Z'", "9999-12-31T23:59:59.999Z"),
    ("first timestamptz", "'0001-01-01 00:00:00Z'", "0001-01-01T00:00:00.000Z"),
    ("noon time", "'12:00:00.5'", "12:00:00.5"),
    ("span interval", "'1 day 2 hours'", "1 day 02:00:00"),
    ("amount numeric", "12345678901234567890.10", 12345678901234567890.10),
    ("no_amount numeric", "'NaN'", "NaN"),
    ("no_end double precision", "'-Infinity'", "-Infinity"),
    ("ratio real", "0.1", 0.1),
    ("cost money", "1.5", "$1.50"),
    ("address inet", "'10.0.0.1'", "10.0.0.1"),
    ("raw bytea", "'\\x00ff'", "\\x00ff"),
    ("words tsvector", "'b a'", "'a' 'b'"),
    ("period int4range", "'[1,3)'", "[1,3)"),
    ("uid uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("mood mood", "'so \"so\"'", 'so "so"'),
    ("big_domain large", "9007199254740993", "9007199254740993"),
    ("doc_domain document", "'[1 ,2]'", [1, 2]),
    ("place place", "row('x', 9007199254740993)", {"name": "x", "n": 9007199254740993}),
    ("docs json[]", r"""array['{"a": "\u0000"}']::json[]""", [{"a": "\0"}]),
    ("moments timestamptz[]", "array['2001-01-01Z']::timestamptz[]", None),  # as PostgreSQL has it
    ("nothing text", "null", None),
    ('"we.ird, = name" text', "'x'", "x"),
]
TYPES = """
create type mood as enum ('so "so"');
create domain large as bigint;
create domain document as json;
create type place as (name text, n bigint);
"""
COLUMNS = [*GENERATED, *ODD]
# Where the contract has another form than to_jsonb, or to_jsonb none at all.
EXCEPTED = {
    *('"points"', '"birthday"', "last_seen", '"trialEnds"', "no_day", "old_day", "for_ever"),
    *("since_ever", "late", "early", "last", "first", "big_domain", "j", "docs"),
}


def name(definition):
    """Return the name of a column from its definition, as it would be written in the setting."""
    return (
        definition[: definition.rindex('"') + 1] if definition[0] == '"' else definition.split()[0]
    )


SETTING = ",".join(f"user.{name(definition)}" for definition, *_ in COLUMNS)


async def test_every_type_is_answered_as_to_jsonb_has_it(start_with):
    """Columns of each type that a generator makes, and odd ones, over NATS, HTTP and in Python."""
    values = ", ".join(value for _, value, _ in COLUMNS)
    service = await start_with(
        TYPES,
        PLAIN[:-2] + "".join(f", {definition}" for definition, *_ in COLUMNS) + ");",
        f"insert into users values ('1', 'ada@example.com', true, 'Ada', {values})",
        "insert into users (id, email) values ('2', 'bo@example.com')",
        empty=True,
        RESPONDER_ADDITIONAL_FIELDS=SETTING,
        RESPONDER_TIMEZONE="Europe/Berlin",
        RESPONDER_HTTP_LISTEN="127.0.0.1:0",
    )
    expected = {name(each).strip('"'): value for each, _, value in COLUMNS}
    same = ", ".join(name(each) for each, _, value in COLUMNS if name(each) not in EXCEPTED)
    (as_jsonb,) = await service.database.fetchrow(
        f"select to_jsonb(s) from (select {same} from users where id = '1') s"
    )

    over_nats = (await service.ask("users.get", "1")).json["additionalFields"]
    over_http = (await service.http.get("/api/v1/users/1")).json()["additionalFields"]
    in_python = (await service.users.get("1")).additional_fields

    assert list(expected) == list(over_nats)
    assert expected == {**over_nats, "moments": None}
    assert over_nats == over_http == in_python
    assert json.loads(as_jsonb) == {key: over_nats[key] for key in json.loads(as_jsonb)}
    nulls = (await service.ask("users.get", "2")).json["additionalFields"]
    assert {**dict.fromkeys(nulls), "tags": []} == nulls


EMPLOYEES = (
    'alter table users add phone_number text, add "preferredLocale" text',
    "alter table members add title text, add badge json",
    "update users set phone_number = 'tel ' || id, \"preferredLocale\" = 'sv'",
    "update members set title = 'title of ' || \"userId\"",
)
FIELDS = "user.phoneNumber,member.title,locale=user.preferred_locale,member.badge,user.createdAt"


@pytest.fixture
async def employees(start_with):
    """A service on the demo people, who have two fields more, and so have their memberships."""
    return await start_with(
        *EMPLOYEES,
        RESPONDER_ADDITIONAL_FIELDS=FIELDS,
        RESPONDER_HTTP_LISTEN="127.0.0.1:0",
        RESPONDER_ADMIN_LISTEN="127.0.0.1:0",
    )


def users_in(answer):
    """Return the users of any reply."""
    return answer.json.get("users") or [answer.json.get("user") or answer.json]


async def test_they_are_in_every_answer_of_a_user(employees, cast):
    """get, by_email, get_many and org_list have them, as keys in the order of the setting."""
    person, organization = cast.owner, cast.organization.id
    asked = {"organizationId": organization}
    answers = [
        await employees.ask("users.get", {"id": person.id, **asked}),
        await employees.ask("users.by_email", {"email": person.email, **asked}),
        await employees.ask("users.get_many", {"ids": [person.id, cast.viewer.id], **asked}),
        await employees.ask("users.org_list", {**asked, "limit": 500}),
    ]
    stored = await employees.database.fetchval(
        'select "createdAt" from users where id = $1', person.id
    )

    found = [user for each in answers for user in users_in(each) if user["id"] == person.id]
    (fields,) = {json.dumps(user["additionalFields"]) for user in found}
    assert 4 == len(found)
    assert ["phoneNumber", "title", "locale", "badge", "createdAt"] == list(json.loads(fields))
    assert {
        "phoneNumber": f"tel {person.id}",
        "title": f"title of {person.id}",
        "locale": "sv",
        "badge": None,
        "createdAt": f"{stored.isoformat(timespec='milliseconds')[:23]}Z",
    } == json.loads(fields)


async def test_a_field_of_no_membership_is_null(employees, cast):
    """Without a membership to report its fields are null, and the user's own are not."""
    answer = await employees.ask("users.get", {"id": cast.owner.id, "organizationId": "none"})

    fields = answer.json["additionalFields"]
    assert (None, None) == (fields["title"], fields["badge"])
    assert f"tel {cast.owner.id}" == fields["phoneNumber"]


async def test_nothing_changes_where_none_are_asked_for(people_service, cast):
    """Without the setting a user has exactly 14 keys, in every answer, and in Python's, too."""
    person = cast.owner
    answers = [
        await people_service.ask("users.get", {"id": person.id}),
        await people_service.ask("users.get_many", {"ids": [person.id]}),
        await people_service.ask("users.org_list", {"organizationId": cast.organization.id}),
    ]
    user = await people_service.users.get(person.id)

    assert [14] == list({len(each) for answer in answers for each in users_in(answer)})
    assert 14 == len(user.model_dump())
    assert user.additional_fields is None
    contract = (await people_service.http.get("/openapi.json")).json()
    assert 14 == len(contract["components"]["schemas"]["User"]["properties"])


async def test_the_contract_names_them(employees):
    """OpenAPI has the keys of the setting."""
    contract = (await employees.http.get("/openapi.json")).json()

    user = contract["components"]["schemas"]["User"]
    (fields, null) = user["properties"]["additionalFields"]["anyOf"]
    assert "additionalFields" in user["required"]
    assert ["phoneNumber", "title", "locale", "badge", "createdAt"] == list(fields["properties"])
    assert {"type": "null"} == null


async def test_users_with_them_are_values(employees, cast):
    """Users of equal fields are equal, and may be kept in a set."""
    first, second = [await employees.users.get(cast.owner.id) for _ in range(2)]

    assert first == second
    assert 1 == len({first, second})
    assert first == User.model_validate_json(first.model_dump_json(by_alias=True))


async def told(service, what):
    """Return a counter of the admin listener."""
    lines = (await service.admin.get("/metrics")).text.splitlines()
    (line,) = (each for each in lines if each.startswith(f"responder_{what}_omitted_total "))
    return int(float(line.split()[1]))


@pytest.mark.parametrize(
    ("image", "badge", "lost"),
    [
        pytest.param(40_000, 40_000, (1, 0), id="the-image-goes-first"),
        pytest.param(0, 70_000, (0, 1), id="fields-larger-than-a-message"),
        pytest.param(100, 65_100, (1, 1), id="fields-larger-with-the-rest-of-their-record"),
        pytest.param(100, 65_400, (1, 1), id="fields-larger-and-a-small-image"),
        pytest.param(70_000, 70_000, (1, 1), id="both-larger-than-a-message"),
        pytest.param(30_000, 30_000, (0, 0), id="both-fit"),
    ],
)
async def test_a_record_too_large_for_a_message(start_with, cast, image, badge, lost):
    """The image is null first, then additionalFields, and both are counted, in every answer."""
    service = await start_with(
        *EMPLOYEES,
        RESPONDER_ADDITIONAL_FIELDS=FIELDS,
        RESPONDER_ADMIN_LISTEN="127.0.0.1:0",
        config="max_payload: 65536",
    )
    person, organization = cast.second_owner, cast.second_organization.id
    await service.database.execute(
        "update users set image = nullif(repeat('A', $2), '') where id = $1", person.id, image
    )
    await service.database.execute(
        "update members set badge = to_json(repeat('B', $2)) where \"userId\" = $1",
        person.id,
        badge,
    )
    answers = [
        await service.ask("users.get", {"id": person.id}),
        await service.ask("users.by_email", {"email": person.email}),
        await service.ask("users.get_many", {"ids": [person.id]}),
        await service.ask("users.org_list", {"organizationId": organization, "limit": 1}),
    ]
    crowd = await asyncio.gather(*(service.ask("users.get", {"id": person.id}) for _ in range(8)))

    images, fields = lost
    for user in (user for answer in (*answers, *crowd) for user in users_in(answer)):
        assert (user["image"] is None) == (images == 1 or image == 0)
        assert (user["additionalFields"] is None) == (fields == 1)
        assert (person.id, person.name) == (user["id"], user["name"])
    assert 12 * images == await told(service, "images")
    assert 12 * fields == await told(service, "additional_fields")


async def test_large_fields_split_a_page_and_not_a_list(start_with, cast):
    """A page has fewer users where their fields are large; a list is refused."""
    service = await start_with(
        *EMPLOYEES,
        "update members set badge = to_json(repeat('B', 9000))",
        RESPONDER_ADDITIONAL_FIELDS=FIELDS,
        config="max_payload: 65536",
    )
    organization = cast.organization.id
    everyone = [user async for user in service.users.org_list(organization)]
    page = await service.ask("users.org_list", {"organizationId": organization})
    ids = [user.id for user in everyone][:40]
    many = await service.ask("users.get_many", {"ids": ids, "organizationId": organization})
    batch = await service.users.get_many(ids, organization_id=organization)

    assert 1 < len(page.json["users"]) < 8
    assert len(everyone) == len({user.id for user in everyone})
    assert {9000} == {len(user.additional_fields["badge"]) for user in everyone}
    assert "payload_too_large" == many.code
    assert ids == [user.id for user in batch.users]
    assert {9000} == {len(user.additional_fields["badge"]) for user in batch.users}


async def test_a_column_dropped_while_running_is_null(employees, cast, caplog):
    """The next answer has null for it, the log has a warning, and it is back when it is there."""
    caplog.set_level(logging.WARNING, logger="responder")
    await employees.database.execute("alter table users drop phone_number")
    without = await employees.users.get(cast.owner.id)
    warned = [record.getMessage() for record in caplog.records]
    await employees.database.execute('alter table users add "phoneNumber" int default 7')
    back = await employees.users.get(cast.owner.id)

    assert "user.phoneNumber answers null: its column is gone" in warned
    assert (None, "sv") == (
        without.additional_fields["phoneNumber"],
        without.additional_fields["locale"],
    )
    assert 7 == back.additional_fields["phoneNumber"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("user.phoneNumbr", r"no column is user\.phoneNumbr; near it: phone_number"),
        ("member.salary", r"no column is member\.salary; it has: "),
        ("user.given=user.first", r"no column is user\.first; near it: first_name"),
        ("x=user.firstName", r"user\.firstName is the column that every User has as name"),
        ("user.twice", r"users has several columns for twice: .*; the exact name of one in"),
    ],
)
async def test_a_name_that_is_no_column_ends_the_start(start_with, setting, said):
    """A field without a column, or with one that the User has, is an error with near names."""
    with pytest.raises(SettingsError, match=said):
        await start_with(
            *EMPLOYEES,
            'alter table users rename name to "first_name"',
            'alter table users add "Twice" int, add "t_wice" int',
            RESPONDER_ADDITIONAL_FIELDS=setting,
            RESPONDER_COLUMNS="user.name=first_name",
        )


async def test_a_field_of_members_needs_a_table_of_members(start_with):
    """Without a member table, a field of it is no column."""
    with pytest.raises(SettingsError, match="there is no table of members"):
        await start_with(PLAIN, empty=True, RESPONDER_ADDITIONAL_FIELDS="member.title")


BROKEN = (
    "create type level as enum ('low', 'broken')",
    """create function level_as_json(level) returns json language plpgsql immutable as $$
    begin
      if $1::text = 'broken' then raise 'of a person'; end if;
      return to_json($1::text);
    end $$""",
    "create cast (level as json) with function level_as_json(level)",
    "alter table users add level level default 'low', add nick text default 'nick'",
    "alter table members add since daterange default '[2020-01-01,)'",
)
BROKEN_FIELDS = "user.level,user.nick,member.since"


async def test_an_image_is_counted_once_however_often_its_user_is_asked_for(start_with, cast):
    """Fields are tried one by one, and what the answer lacks beside them is counted at the end."""
    person = cast.owner.id
    service = await start_with(
        *BROKEN,
        f"update users set level = 'broken', image = repeat('x', 100000) where id = '{person}'",
        RESPONDER_ADDITIONAL_FIELDS=BROKEN_FIELDS,
        RESPONDER_ADMIN_LISTEN="127.0.0.1:0",
        config="max_payload: 65536",
    )
    answer = await service.ask("users.get", person)

    assert (None, None) == (answer.json["image"], answer.json["additionalFields"]["level"])
    assert "responder_images_omitted_total 1.0" in (await service.admin.get("/metrics")).text


async def test_what_cannot_be_made_json_is_null(start_with, cast, tmp_path, caplog):
    """A value whose conversion raises is null, with a warning; other fields and users have theirs.

    In a page, or a list, it is null in all its users.
    """
    person, other = cast.owner, cast.viewer
    caplog.set_level(logging.WARNING, logger="responder")
    mint = Mint()
    service = await start_with(
        *BROKEN,
        f"update users set level = 'broken' where id = '{person.id}'",
        RESPONDER_ADDITIONAL_FIELDS=BROKEN_FIELDS,
        **mint.publish(tmp_path / "jwks.json"),
    )
    organization = {"organizationId": cast.organization.id}
    token = {"Authorization": f"Bearer {mint.token(other.id)}"}

    def levels(answer):
        return {user["id"]: user["additionalFields"]["level"] for user in users_in(answer)}

    for headers in (None, token):
        beside = await asyncio.gather(
            *(
                service.ask("users.get", {"id": each.id}, headers)
                for each in (other, person, other, person, other)
            )
        )
        by_email = await service.ask("users.by_email", person.email, headers)
        many = await service.ask("users.get_many", {"ids": [person.id, other.id]}, headers)
        page = await service.ask("users.org_list", organization, headers)
        role = await service.ask("users.org_list", {**organization, "roles": ["owner"]}, headers)

        assert ["low", None, "low", None, "low"] == [
            level for each in beside for level in levels(each).values()
        ]
        assert {person.id: None} == levels(by_email)
        assert {person.id: None, other.id: None} == levels(many)
        assert {None} == set(levels(page).values())
        assert person.id in levels(role)
        answers = (*beside, by_email, many, page, role)
        found = [user["additionalFields"] for each in answers for user in users_in(each)]
        assert {("nick", "[2020-01-01,)")} == {(each["nick"], each["since"]) for each in found}
    await service.database.execute("update users set level = 'low'")
    healed = await service.ask("users.org_list", organization)
    warned = [record.getMessage() for record in caplog.records]
    assert {"low"} == set(levels(healed).values())
    assert "user.level cannot be read, and is null: RaiseError [P0001]" in warned
    assert not [each for each in warned if "of a person" in each or "user.nick" in each]


async def test_the_role_of_grants_may_read_them(start_with, start, cast):
    """`responder grants` names their columns, and a service of that role answers them."""
    owner = await start_with(*EMPLOYEES, RESPONDER_ADDITIONAL_FIELDS=FIELDS)
    settings = owner.settings
    sql = await grants_for(settings.dsn, settings.overrides, role="least_of_fields")
    asked = {"id": cast.owner.id, "organizationId": cast.organization.id}
    expected = (await owner.ask("users.get", asked)).json
    await owner.database.execute(sql)
    try:
        service = await start(
            as_role(owner.url, "least_of_fields"),
            RESPONDER_ADDITIONAL_FIELDS=FIELDS,
            RESPONDER_HTTP_LISTEN="off",
            RESPONDER_ADMIN_LISTEN="off",
        )
        answer = await service.ask("users.get", asked)
        page = await service.ask("users.org_list", {"organizationId": cast.organization.id})
    finally:
        await owner.database.execute("drop owned by least_of_fields; drop role least_of_fields")

    assert expected == answer.json
    assert "sv" == expected["additionalFields"]["locale"]
    assert expected in users_in(page)
    assert '"phone_number"' in sql
