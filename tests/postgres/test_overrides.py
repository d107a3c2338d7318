"""What the operator may say about the tables."""

from __future__ import annotations

import re

import pytest

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
