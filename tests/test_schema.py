"""Which tables are taken for Better Auth's, by the catalog's rows alone."""

from __future__ import annotations

import pytest

from responder.errors import OperatorError, SchemaError
from responder.schema import CatalogColumn, CatalogReference, Schema, read

USERS = ("id", "email", "emailVerified", "name")
MEMBERS = ("id", "organizationId", "userId", "role")
SESSIONS = ("id", "userId", "token", "expiresAt")


def table(name: str, columns: tuple[str, ...], *, schema: str = "public") -> list[CatalogColumn]:
    return [
        CatalogColumn(schema, name, column, False, "pg_catalog", "text", "S") for column in columns
    ]


def names(found: Schema) -> tuple[str, str | None]:
    return str(found.users), found.members and str(found.members)


@pytest.mark.parametrize(
    ("users", "members"),
    [("user", "member"), ("users", "members"), ("User", "Member"), ("app_user", "org_member")],
)
def test_tables_are_known_by_their_columns(users, members):
    """Whatever the tables are called, their columns give them away."""
    found = read(table(users, USERS) + table(members, MEMBERS), [])

    assert (f"public.{users}", f"public.{members}") == names(found)


def test_columns_are_known_in_any_spelling():
    """CamelCase and snake_case, even within one table."""
    found = read(table("users", ("id", "email", "email_verified", "banExpires", "ban_reason")), [])

    assert {
        "id": "id",
        "email": "email",
        "emailVerified": "email_verified",
        "banExpires": "banExpires",
        "banReason": "ban_reason",
    } == {field: column.name for field, column in found.users.columns.items()}


def test_better_auths_own_spelling_wins():
    """Where two columns differ in underscores only, the one Better Auth would have made is read."""
    found = read(table("users", ("id", "email", "email_verified", "emailVerified")), [])

    assert "emailVerified" == found.users.columns["emailVerified"].name


def test_no_member_table_is_no_error():
    """Without the organization plugin there are users, and nothing else."""
    found = read(table("user", USERS), [])

    assert ("public.user", None) == names(found)


def test_no_users_at_all_is_an_error():
    """A database without Better Auth's users says what was looked for."""
    with pytest.raises(SchemaError, match="emailVerified"):
        read(table("orders", ("id", "total")), [])


def test_two_candidates_are_never_guessed_between():
    """Two tables that could be meant are both named, with the setting that decides."""
    both = table("users", USERS, schema="auth") + table("users", USERS, schema="crm")

    with pytest.raises(OperatorError, match=r"auth\.users, crm\.users.*USERS_TABLE"):
        read(both, [])


def test_the_users_that_sessions_belong_to_win():
    """An application's own `users` beside Better Auth's `user` is left alone."""
    both = table("users", USERS) + table("user", USERS) + table("session", SESSIONS)

    found = read(both, [CatalogReference("public", "session", "public", "user")])

    assert ("public.user", None) == names(found)


@pytest.mark.parametrize("override", ["users", "crm.users"])
def test_a_table_can_be_named(override):
    """A table named by the operator is taken, with its schema or without."""
    both = table("users", USERS, schema="crm") + table("user", USERS)

    assert "crm.users" == str(read(both, [], users=override).users)


def test_a_table_that_is_named_and_does_not_fit_is_an_error():
    """Naming a table that is not there, or is not of users, names the setting."""
    with pytest.raises(OperatorError, match="RESPONDER_USERS_TABLE"):
        read(table("users", USERS), [], users="people")


def test_members_can_be_switched_off():
    """`off` leaves the members out, though they are there."""
    found = read(table("users", USERS) + table("members", MEMBERS), [], members="off")

    assert ("public.users", None) == names(found)
