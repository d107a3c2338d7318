"""A cursor is good for its organization, and any other is refused (subjects.md, users.org_list)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder import cursors
from tests.walks import TIMES, crowd


def cursor_of(organization, created, member):
    return cursors.encode(cursors.Position(organization, created, member))


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
    """A cursor that users.org_list has not given is refused, and the message names the field."""
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
    """A made-up cursor with an impossible time or id is invalid_request."""
    cursor = cursor_of(cast.organization.id, created, member)
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "cursor": cursor}
    )

    assert "invalid_request" == answer.code


async def test_a_cursor_of_a_table_that_has_changed_is_invalid(start_with):
    """A cursor from before a migration that drops createdAt is invalid_request, not internal."""
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


ZONES = st.none() | st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(timezones=ZONES).map(datetime.isoformat)


@given(data=st.data())
@settings(max_examples=80)
async def test_any_cursor_is_a_page_or_refused(people_service, cast, data):
    """The answer to any text as cursor is a page or invalid_request, never internal."""
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
async def test_a_cursor_at_the_ends_of_time_is_a_page_or_refused(people_service, cast, created):
    """A cursor with a time that Python can hold only in its own zone is never internal."""
    cursor = cursor_of(cast.organization.id, created, "x")
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "cursor": cursor}
    )

    assert answer.code in {None, "invalid_request"}
