"""What the operator may say about the tables."""

from __future__ import annotations

import re

import pytest

from responder.postgres.additional import field_names
from responder.postgres.overrides import column_names, table_name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app_user", ("app_user",)),
        ("auth.app_user", ("auth", "app_user")),
        ('"my.schema"."app ""user"""', ("my.schema", 'app "user"')),
        (' auth . "user" ', ("auth", "user")),
    ],
)
def test_the_name_of_a_table_is_literal(text, parts):
    """With its schema or without; double quotes protect a dot."""
    assert parts == table_name(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"a', '""'])
def test_what_is_no_name_of_a_table(text):
    """Anything else is refused."""
    with pytest.raises(ValueError, match="quote"):
        table_name(text)


def test_columns_by_hand():
    """Names are literal, quotes protect what separates them, fields may be in either spelling."""
    text = (
        'user.name=firstName, user.ban_reason = "a=b, ""c""" '
        ",member.organizationId=org,member.managerId="
    )

    assert {
        "user": {"name": "firstName", "banReason": 'a=b, "c"'},
        "member": {"organizationId": "org", "managerId": None},
    } == column_names(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user.naem=x", "did you mean name"),
        ("user.password=x", "it has id, email"),
        ("member.name=x", "member has no field 'name'"),
        ("session.token=x", "user.field or member.field"),
        ("name=x", "user.field or member.field"),
        ("user.name", "user.field=column"),
        ("user.name=a=b", "user.field=column"),
        ("user.name=x,member.role=Password_Hash", "seems to hold a secret"),
        ("user.name=a,", "user.field=column"),
        ("user.name=a,user.name=b", "twice"),
        ("user.email=", "cannot do without"),
        ('user.name="a', "not closed"),
    ],
)
def test_what_is_wrong_with_columns_by_hand(text, message):
    """What cannot be meant is refused, with what would be right."""
    with pytest.raises(ValueError, match=re.escape(message)):
        column_names(text)


def test_additional_fields_are_read_as_they_are_written():
    """A key is the field as it is written, or what stands before the =; quotes protect."""
    text = ' user.phone_number , job title = member.title,"a,b"=user."x.y=z",user."createdat" '

    assert [
        ("phone_number", "user", "phone_number"),
        ("job title", "member", "title"),
        ("a,b", "user", "x.y=z"),
        ("createdat", "user", "createdAt"),
    ] == [tuple(field) for field in field_names(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phoneNumber", "expected user.field, member.field"),
        ("session.ipAddress", "expected user.field, member.field"),
        ("user.phone,", "expected user.field, member.field"),
        ("user.a.b", "expected user.field, member.field"),
        ("user.", "expected user.field, member.field"),
        ("a=b=user.phone", "expected user.field, member.field"),
        ("=user.phone", "expected the key"),
        ("a\nb=user.phone", "expected the key"),
        ('user."phone', "not closed"),
        ("user.title,member.title", "the key 'title' is there twice"),
        ("user.Ban_Reason", "every User has user.banReason already"),
        ("x=member.organization_id", "every User has member.organizationId already"),
        ("x=user.password_hash", "seems to hold a secret"),
        ("member.backup_CODES", "backupcode"),
        ("hint=user.TwoFactorSecret", "secret"),
        *((f"x=user.my{word}s", word.lower()) for word in ("Otp", "Salt", "Pwd", "apiKey")),
        *((f"x=user.my{word}s", word.lower()) for word in ("Passwd", "recovery", "privateKey")),
        *((f"x=user.my_{word}", word) for word in ("hash", "token", "credential", "password")),
    ],
)
def test_what_is_wrong_with_additional_fields(text, message):
    """What cannot be meant, what a User has, and what may hold a secret is refused."""
    with pytest.raises(ValueError, match=re.escape(message)):
        field_names(text)
