"""A user is found by email as subjects.md, users.by_email says."""

from __future__ import annotations

import asyncio

import pytest


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


async def test_of_users_with_the_same_email_the_earliest_answers(start_with):
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


async def test_each_of_many_emails_at_once_is_answered(people_service, cast):
    """Emails that are looked up together, in any case or unknown, each find their own user."""
    people = [cast.owner, cast.admin, cast.viewer, cast.guest, cast.no_organization] * 20
    answers = await asyncio.gather(
        people_service.ask("users.by_email", {"email": "nobody@example.com"}),
        *(people_service.ask("users.by_email", {"email": p.email.title()}) for p in people),
        people_service.ask("users.by_email", {"email": "\ud800"}),
    )

    expected = [None, *(person.id for person in people), None]
    assert expected == [answer.json.get("id") for answer in answers]
