"""Which tables are taken for Better Auth's, by the catalog's rows alone."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import OperatorError, SchemaError
from responder.postgres import decision
from responder.postgres.catalog import Catalog, CatalogColumn, CatalogReference
from responder.postgres.overrides import NO_OVERRIDES, Overrides, table_name
from responder.postgres.schema import Schema
from tests.names import NASTY

USERS = ("id", "email", "emailVerified", "name")
MEMBERS = ("id", "organizationId", "userId", "role")
SESSIONS = ("id", "userId", "token", "expiresAt", "ipAddress", "userAgent")


def table(
    name: str, columns: tuple[str, ...], *, schema: str = "public", readable: bool = True
) -> list[CatalogColumn]:
    return [
        CatalogColumn(schema, name, "1", False, column, readable, False, "pg_catalog", "text", "S")
        for column in columns
    ]


def find(
    columns: Sequence[CatalogColumn],
    references: Sequence[CatalogReference],
    overrides: Overrides = NO_OVERRIDES,
    *,
    before: Schema | None = None,
) -> Schema:
    return decision.find(Catalog(columns, references), overrides, before=before)


def refers(source: str, target: str, column: str = "userId") -> CatalogReference:
    return CatalogReference("public", source, "public", target, (column,), ("id",))


def names(found: Schema) -> tuple[str, str | None]:
    return str(found.users), str(found.members) if found.members else None


@pytest.mark.parametrize(
    ("users", "members"),
    [("user", "member"), ("users", "members"), ("User", "Member"), ("app_user", "app_members")],
)
def test_tables_are_known_by_their_columns(users, members):
    """Whatever the tables are called, their columns give them away."""
    found = find(table(users, USERS) + table(members, MEMBERS), [])

    assert (f"public.{users}", f"public.{members}") == names(found)


def test_columns_are_known_in_any_spelling():
    """CamelCase and snake_case, even within one table."""
    found = find(table("users", ("id", "email", "email_verified", "isAnonymous", "ban_reason")), [])

    assert {
        "id": "id",
        "email": "email",
        "emailVerified": "email_verified",
        "isAnonymous": "isAnonymous",
        "banReason": "ban_reason",
    } == {field: column.name for field, column in found.users.columns.items()}


def test_better_auths_own_spelling_wins():
    """Where two columns differ in underscores only, the one Better Auth would have made is read."""
    found = find(table("users", ("id", "email", "email_verified", "emailVerified")), [])

    assert "emailVerified" == found.users.columns["emailVerified"].name


def test_no_member_table_is_no_error():
    """Without the organization plugin there are users, and nothing else."""
    found = find(table("user", USERS), [])

    assert ("public.user", None) == names(found)


def test_no_users_at_all_is_an_error():
    """A database without Better Auth's users says what was looked for."""
    with pytest.raises(SchemaError, match="emailVerified"):
        find(table("orders", ("id", "total")), [])


def test_two_candidates_are_never_guessed_between():
    """Two tables that could be meant are both named, with the setting that decides."""
    both = table("users", USERS, schema="auth") + table("users", USERS, schema="crm")

    with pytest.raises(OperatorError, match=r"auth\.users, crm\.users.*USERS_TABLE"):
        find(both, [])


def test_the_users_that_sessions_belong_to_win():
    """An application's own `users` beside Better Auth's `user` is left alone."""
    both = table("users", USERS) + table("user", USERS) + table("session", SESSIONS)

    found = find(both, [refers("session", "user")])

    assert ("public.user", None) == names(found)


def test_what_our_role_may_read_does_not_decide():
    """Of two tables that could be meant, one that can be read is not for that reason the one."""
    both = table("user", USERS, schema="a", readable=False) + table("user", USERS, schema="b")

    with pytest.raises(OperatorError, match=r"a\.user, b\.user; RESPONDER_USERS_TABLE decides"):
        find(both, [])


def test_columns_that_may_not_be_read_are_named():
    """A missing privilege says on what, and how to get it."""
    users = table("user", USERS)
    users[1] = users[1]._replace(readable=False)

    with pytest.raises(SchemaError, match=r"may not read public\.user\.email: `responder grants`"):
        find(users, [])


@pytest.mark.parametrize("override", ["users", "crm.users"])
def test_a_table_can_be_named(override):
    """A table named by the operator is taken, with its schema or without."""
    both = table("users", USERS, schema="crm") + table("user", USERS)

    assert "crm.users" == str(find(both, [], Overrides(users=table_name(override))).users)


def test_a_table_that_is_named_and_does_not_fit_is_an_error():
    """Naming a table that is not there, or is not of users, names the setting."""
    with pytest.raises(OperatorError, match="RESPONDER_USERS_TABLE"):
        find(table("users", USERS), [], overrides=Overrides(users=("people",)))


@pytest.mark.parametrize("first", ["user", "users"])
def test_what_was_found_first_stays_the_one_meant(first):
    """A copy that comes up beside it, or takes its foreign keys along, does not confuse us."""
    both = table("users", USERS) + table("user", USERS) + table("session", SESSIONS)
    before = find([column for column in both if column.table == first], [])

    found = find(both, [refers("session", "user")], before=before)

    assert (f"public.{first}", None) == names(found)


def test_a_token_for_something_else_is_no_session():
    """An application's own users, whom its password resets refer to, are not for that reason
    Better Auth's.
    """
    users = table("user", USERS) + table("users", USERS)
    resets = table("password_reset", ("id", "user_id", "token", "expires_at"))
    accounts = table("account", ("id", "userId", "accountId", "providerId"))
    resets_refer = refers("password_reset", "users")
    accounts_refer = refers("account", "user")

    found = find(users + resets + accounts, [resets_refer, accounts_refer])
    with pytest.raises(OperatorError, match="RESPONDER_USERS_TABLE decides"):
        find(users + resets, [resets_refer])

    assert "public.user" == str(found.users)


def test_the_members_of_these_users_win():
    """Of several tables that could be of members, the one that refers to these users is taken."""
    all_three = table("user", USERS) + table("member", MEMBERS) + table("team_member", MEMBERS)

    found = find(all_three, [refers("member", "user")])

    assert ("public.user", "public.member") == names(found)


def test_the_schema_the_application_prefers_decides():
    """Where only schemas tell two tables apart, the one the connection string names is taken."""
    both = table("user", USERS, schema="a") + table("user", USERS, schema="b")

    assert "b.user" == str(find(both, [], Overrides(search_path=("nowhere", "b", "a"))).users)


def test_columns_by_hand_make_a_table_known():
    """A table is recognized by the columns it is said to have."""
    members = table("member", ("id", "workspace_id", "userId", "role"))
    overrides = Overrides(columns={"member": {"organizationId": "workspace_id"}})

    assert "public.member" == str(find(table("user", USERS) + members, [], overrides).members)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            Overrides(columns={"user": {"name": "fristName"}}),
            (
                "public.user has no column fristName: RESPONDER_COLUMNS=user.name=… says what it "
                "is called there; near it: firstName"
            ),
        ),
        (
            Overrides(columns={"member": {"organizationId": "workspaceid"}}),
            (
                "public.member has no column workspaceid: "
                "RESPONDER_COLUMNS=member.organizationId=… says what it is called there; "
                "near it: workspace_id"
            ),
        ),
        (
            Overrides(users=("usr",)),
            "RESPONDER_USERS_TABLE: there is no table usr; near it: public.user",
        ),
        (
            Overrides(members=("member",)),
            (
                "public.member has no column organizationId: "
                "RESPONDER_COLUMNS=member.organizationId=… says what it is called there; "
                "it has: id, role, userId, workspace_id"
            ),
        ),
        (
            Overrides(columns={"user": {"image": "nothing like it"}}),
            (
                "public.user has no column nothing like it: RESPONDER_COLUMNS=user.image=… says "
                "what it is called there; it has: email, email_verified, firstName, id"
            ),
        ),
    ],
)
def test_names_that_are_not_there_are_shown_beside_what_is(overrides, message):
    """An override that fits nothing says what there is."""
    users = table("user", ("id", "email", "email_verified", "firstName"))
    members = table("member", ("id", "workspace_id", "userId", "role"))

    with pytest.raises(OperatorError) as refused:
        find(users + members, [], overrides)

    assert message == refused.value.message


def test_columns_that_no_table_has_are_named():
    """Where columns are named by hand, and no table fits, the error has all that it would need."""
    with pytest.raises(OperatorError, match="RESPONDER_COLUMNS: no table has the columns id, mail"):
        find(table("user", ("key", "mail")), [], Overrides(columns={"user": {"email": "mail"}}))


def test_two_spellings_that_are_not_better_auths_are_not_guessed_between():
    """Where neither is its own, both are named, with the setting that decides."""
    users = table("user", (*USERS, "BANREASON", "Ban_Reason"))

    with pytest.raises(OperatorError, match=r"BANREASON, Ban_Reason; RESPONDER_COLUMNS=user\.banR"):
        find(users, [])


def test_a_column_of_an_impossible_type_is_an_error():
    """A column that cannot hold what its name says is named, with its type and the setting."""
    users = table("user", USERS)
    users[0] = users[0]._replace(type="jsonb", category="U")

    with pytest.raises(
        OperatorError, match=r"user\.id is of type jsonb.*RESPONDER_COLUMNS=user\.id"
    ):
        find(users, [])


def test_integers_never_refer_to_uuids():
    """Members whose userId cannot be a user's id are an error that names both types."""
    users, members = table("user", USERS), table("member", MEMBERS)
    users[0] = users[0]._replace(type="uuid", category="U")
    members[2] = members[2]._replace(type="int4", category="N")

    with pytest.raises(OperatorError, match="int4 and uuid"):
        find(users + members, [])


def test_members_can_be_switched_off():
    """`off` leaves the members out, though they are there."""
    found = find(
        table("users", USERS) + table("members", MEMBERS), [], overrides=Overrides(no_members=True)
    )

    assert ("public.users", None) == names(found)


HOSTILE = "member\nalter role evil superuser; --"
ODD_NAME = st.sampled_from(NASTY) | st.sampled_from(["users", "members", "public"])


@pytest.mark.parametrize(
    "at",
    [{"name": HOSTILE}, {"schema": HOSTILE, "name": "member"}, {"name": "m\u2028", "schema": "a"}],
)
def test_a_name_with_control_characters_is_not_taken(at):
    """It is refused in one line that names it, escaped, and the setting that decides."""
    users = table("users", USERS)
    odd = table(columns=MEMBERS, **at)

    with pytest.raises(OperatorError, match="RESPONDER_MEMBERS_TABLE") as refused:
        find(users + odd, [])

    assert refused.value.message.isprintable()
    assert 'U&"m' in refused.value.message


def test_a_name_with_control_characters_stands_in_the_way_of_none():
    """Where there is a table with a plain name, such a table beside it changes nothing."""
    plain = table("users", USERS) + table("member", MEMBERS)
    odd = table("users\n", USERS) + table(HOSTILE, MEMBERS)

    assert ("public.users", "public.member") == names(find(plain + odd, []))


def test_a_table_renamed_to_a_name_with_control_characters_is_not_followed():
    """A table that was found is not read under such a name, and the error names both."""
    before = find(table("users", USERS), [])

    with pytest.raises(OperatorError, match="control characters"):
        find(table("users\n", USERS), [], before=before)


def test_a_name_with_control_characters_is_taken_by_hand():
    """The operator names all of it that has them: the schema, too."""
    tables = table("users\n", USERS, schema="a\tb")
    by_hand = Overrides(users=table_name(r'U&"a\0009b".U&"users\000a"'), no_members=True)

    assert r'U&"a\0009b".U&"users\000a"' == str(find(tables, [], by_hand).users)
    with pytest.raises(OperatorError, match="control characters"):
        find(tables, [], Overrides(users=("users\n",), no_members=True))


@hypothesis.settings(max_examples=300)
@given(
    tables=st.lists(
        st.tuples(ODD_NAME, ODD_NAME, st.sampled_from([USERS, MEMBERS, USERS[:3], ("id",)])),
        unique_by=lambda each: each[:2],
        max_size=5,
    ),
    columns=st.lists(ODD_NAME, max_size=3, unique=True),
    kind=ODD_NAME,
    readable=st.booleans(),
    overrides=st.builds(
        Overrides,
        users=st.none() | st.tuples(ODD_NAME) | st.tuples(ODD_NAME, ODD_NAME),
        members=st.none() | st.tuples(ODD_NAME),
        columns=st.fixed_dictionaries(
            {},
            optional={
                "user": st.dictionaries(st.sampled_from(("email", "image")), ODD_NAME),
                "member": st.dictionaries(st.sampled_from(("role", "managerId")), ODD_NAME),
            },
        ),
    ),
)
def test_what_is_said_of_names_is_one_line_without_control_characters(
    tables, columns, kind, readable, overrides
):
    """Whatever things are called and whatever the operator says, an error can be shown."""
    rows = [
        CatalogColumn(schema, name, "1", False, column, readable, False, kind, kind, "S")
        for schema, name, fields in tables
        for column in (*fields, *columns)
    ]
    try:
        said = names(find(rows, [], overrides))
    except SchemaError as error:
        said = (error.message, None)

    assert all(each is None or each.isprintable() for each in said)
