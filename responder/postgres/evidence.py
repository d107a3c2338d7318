"""What speaks for a table being Better Auth's, and what speaks against it."""

# An application has many tables with a user, an organization and a role: messages, join requests,
# access lists, audit logs. One that is taken for the members by resemblance makes people colleagues
# who are not. So a table is a candidate only on evidence, and what speaks against it excludes it:
#
#   users    sessions or accounts refer to it; or it is called so (`user`, `users`, `app_user`); or
#            it has all the columns that Better Auth gives each user, or one that the operator names
#   members  it is called so (`member`, `memberships`) in the schema of the users, or with the
#            prefix of their table; or its last word is one of these, neither key may be null, and
#            its user column refers to the users that were found, and its name does not say that
#            they are not members now (`pending_members`)
#
# Of several candidates one wins if it has all that speaks for another, and more. An example, with
# the users in `auth.user`:
#
#   auth.member         its own name, their schema, a foreign key, no null      wins
#   auth.team_member    their schema, a foreign key, no null                    it has less
#   auth.message        a foreign key, no null                                  is called otherwise
#   auth.member_backup  their schema                                            says copy
#
# Where each of two has what the other lacks, they contradict each other, and only the operator can
# decide. That organization and user are unique decides between equals, and is no evidence by
# itself, because of join requests and access lists that is true as well. What our role may read is
# no evidence at all.

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from responder.postgres.catalog import Catalog, CatalogColumn, CatalogReference
from responder.postgres.columns import ByHand, holding, lacking
from responder.postgres.fields import ACCOUNT, MEMBER, SESSION, USER, plain
from responder.postgres.names import says_copy, says_not_now, words
from responder.postgres.quoting import shown
from responder.postgres.schema import Table, TableName

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
VIEWS: Final = ("v", "m")  # pg_class.relkind; they have neither foreign keys nor constraints
COPY: Final = "its name says copy"
OTHERWISE: Final = "it is called otherwise"


class Piece(Enum):
    """A kind of evidence."""

    SESSIONS = "sessions refer to it"
    ACCOUNTS = "accounts refer to it"
    CALLED = "it is called as users are"
    NAME = "its name is Better Auth's own"
    PREFIX = "it has the prefix of the users' table"
    COLUMNS = "it has every column of Better Auth's users"
    SETTING = "RESPONDER_COLUMNS names a column of it"
    SCHEMA = "it is in the schema of the users"
    REFERS = "its users are the users that were found"
    NOT_NULL = "neither its user nor its organization may be null"
    UNIQUE = "a user is in an organization once"


# What makes one candidate better than another. How a table of users is called does not.
_DECISIVE: Final = frozenset(
    {
        *(Piece.SESSIONS, Piece.ACCOUNTS),
        *(Piece.NAME, Piece.PREFIX, Piece.SCHEMA, Piece.REFERS, Piece.NOT_NULL),
    }
)
# What a table of members must have unless its whole name is Better Auth's.
_REQUIRED: Final = {
    Piece.REFERS: "no foreign key leads from its user to the users that were found",
    Piece.NOT_NULL: "its user or its organization may be null",
}
REQUIRED: Final = frozenset(_REQUIRED.values())
EVERY_COLUMN: Final = ("id", "name", "email", "emailVerified", "image", "createdAt", "updatedAt")


@dataclass(frozen=True, slots=True)
class Weighed:
    """A table that could be meant: what speaks for it, in words, and what excludes it."""

    table: TableName
    speaks: Mapping[Piece, str]
    missing: tuple[str, ...] = ()  # fields that it should have
    against: tuple[str, ...] = ()

    @property
    def is_candidate(self) -> bool:
        """Whether it may be taken unless the operator names another."""
        return not self.missing and not self.against

    @property
    def decisive(self) -> frozenset[Piece]:
        """What it has against other candidates."""
        return _DECISIVE.intersection(self.speaks)


def best(candidates: Sequence[Weighed]) -> list[Weighed]:
    """Return the candidates that no other one beats; of equals, those with a unique key."""
    kinds = {each.decisive for each in candidates}
    unbeaten = {kind for kind in kinds if not any(kind < another for another in kinds)}
    left = [each for each in candidates if each.decisive in unbeaten]
    unique = [each for each in left if Piece.UNIQUE in each.speaks]
    return unique if unique and len(unbeaten) == 1 else left


class Tables:
    """What the catalog says, by table."""

    def __init__(self, catalog: Catalog) -> None:
        self.columns: dict[TableName, list[CatalogColumn]] = {}
        self.references: dict[TableName, list[CatalogReference]] = {}
        self.keys: dict[TableName, list[frozenset[str]]] = {}
        for column in catalog.columns:
            self.columns.setdefault(TableName(*column[:2]), []).append(column)
        for reference in catalog.references:
            self.references.setdefault(TableName(*reference[:2]), []).append(reference)
        for key in catalog.keys:
            self.keys.setdefault(TableName(*key[:2]), []).append(frozenset(key.columns))

    def targets(self, table: TableName, column: str) -> dict[TableName, str]:
        """Return what a column refers to: tables, and their columns."""
        return {
            TableName(each.to_schema, each.to_table): each.to_columns[at]
            for each in self.references.get(table, ())
            for at, name in enumerate(each.from_columns)
            if name == column
        }

    def sessions(self) -> Iterator[tuple[Piece, TableName, str]]:
        """Yield each table of sessions or accounts that is no copy, with its user column."""
        for table, columns in self.columns.items():
            for piece, shape in ((Piece.SESSIONS, SESSION), (Piece.ACCOUNTS, ACCOUNT)):
                if not lacking(columns, shape, {}) and not says_copy(table.name):
                    yield piece, table, holding(columns, "userId", {})[0].name


class UserEvidence:
    """What the catalog says for and against each table of users."""

    def __init__(self, tables: Tables, by_hand: ByHand) -> None:
        self._tables = tables
        self._by_hand = by_hand
        self._referring: dict[TableName, dict[Piece, str]] = {}
        for piece, source, column in tables.sessions():
            for target in tables.targets(source, column):
                said = f"{shown(*source, column)} refers to it"
                self._referring.setdefault(target, {}).setdefault(piece, said)

    def considered(self) -> list[Weighed]:
        """Return each table that has the columns, or something that speaks for it and an email,
        however that is called.
        """
        weighed = map(self.weigh, self._tables.columns)
        return [
            each
            for each in weighed
            if not each.missing
            or (each.speaks and (not set(USER.needs) & set(each.missing) or self._has_mail(each)))
        ]

    def _has_mail(self, weighed: Weighed) -> bool:
        return any("mail" in plain(each.name) for each in self._tables.columns[weighed.table])

    def weigh(self, table: TableName) -> Weighed:
        """Say what speaks for a table and against it."""
        columns = self._tables.columns[table]
        speaks = dict(self._referring.get(table, {}))
        if words(table.name)[-1:] in USER.called:
            speaks[Piece.CALLED] = f"it is called {shown(table.name)}"
        if not lacking(columns, EVERY_COLUMN, {}):
            speaks[Piece.COLUMNS] = Piece.COLUMNS.value
        if any(self._by_hand.get(field) for field in USER.known_by):
            speaks[Piece.SETTING] = Piece.SETTING.value
        against = list(_against_name(table))
        if not speaks:
            against.append("no session or account refers to it, and it is called otherwise")
        missing = lacking(columns, USER.known_by, self._by_hand)
        return Weighed(table, speaks, tuple(missing), tuple(against))


class MemberEvidence:
    """What the catalog says for and against each table of members of some users.

    Args:
        tables: all there are.
        by_hand: what the operator has said of the columns of members.
        users: the users that were found.
        adopting: whether the first member table is looked for while running.
    """

    def __init__(
        self, tables: Tables, by_hand: ByHand, users: Table, *, adopting: bool = False
    ) -> None:
        self._tables = tables
        self._by_hand = by_hand
        self._users = TableName(users.schema, users.name)
        self._user_id = users.columns["id"].name
        of_users = tables.columns[self._users][0]
        self._kind = of_users.kind
        self._owners = {of_users.owner, of_users.schema_owner} if adopting else None
        *prefix, last = words(users.name) or ("",)
        self._prefix = tuple(prefix) if (last,) in USER.called else ()

    def considered(self) -> list[Weighed]:
        """Return each table that has the keys of a membership, or its name and a user."""
        considered = []
        for table, columns in self._tables.columns.items():
            missing = lacking(columns, MEMBER.needs, self._by_hand)
            called = words(table.name)[-1:] in MEMBER.called
            if not missing or (called and "userId" not in missing):
                considered.append(self.weigh(table))
        return considered

    def weigh(self, table: TableName) -> Weighed:
        """Say what speaks for a table and against it."""
        columns = self._tables.columns[table]
        user, organization = (
            next(iter(holding(columns, field, self._by_hand)), None)
            for field in ("userId", "organizationId")
        )
        speaks = dict(self._name(table))
        if table.schema == self._users.schema:
            speaks[Piece.SCHEMA] = Piece.SCHEMA.value
        if any(self._by_hand.get(field) for field in MEMBER.needs):
            speaks[Piece.SETTING] = Piece.SETTING.value
        against = [*_against_name(table, in_schema=self._users.schema)]
        if words(table.name)[-1:] not in MEMBER.called:
            against.append(OTHERWISE)
        if says_not_now(table.name) and Piece.NAME not in speaks:
            against.append("its name says that they are not members now")
        if user:
            speaks.update(self._keys(table, user, organization))
            against += self._of_others(table, user.name)
        its_users = TableName(table.schema, self._users.name)
        others = its_users != self._users and its_users in self._tables.columns
        if others and Piece.REFERS not in speaks:
            against.append(f"its schema has users of its own: {its_users}")
        if user and organization and Piece.NAME not in speaks:
            against += self._of_something_else(table, {user.name, organization.name}, user.name)
        if not {Piece.NAME, Piece.SETTING} & speaks.keys():
            against += [said for piece, said in _REQUIRED.items() if piece not in speaks]
        if self._owners is not None and not self._is_ours(columns[0], self._owners):
            against.append("another role than that of the users owns it: a restart may take it")
        missing = lacking(columns, MEMBER.known_by, self._by_hand)
        return Weighed(table, speaks, tuple(missing), tuple(against))

    def _keys(
        self, table: TableName, user: CatalogColumn, organization: CatalogColumn | None
    ) -> Iterator[tuple[Piece, str]]:
        if self._tables.targets(table, user.name).get(self._users) == self._user_id:
            yield Piece.REFERS, f"{shown(user.name)} refers to {shown(*self._users)}"
        if organization is None:
            return
        if user.not_null and organization.not_null:
            yield Piece.NOT_NULL, Piece.NOT_NULL.value
        if {user.name, organization.name} in self._tables.keys.get(table, ()):
            yield Piece.UNIQUE, Piece.UNIQUE.value

    def _name(self, table: TableName) -> Iterator[tuple[Piece, str]]:
        *before, last = words(table.name) or ("",)
        if (last,) not in MEMBER.called:
            return
        prefixed = tuple(before) == self._prefix
        if prefixed and self._prefix:
            yield Piece.PREFIX, Piece.PREFIX.value
        if (prefixed and self._prefix) or (not before and table.schema == self._users.schema):
            yield Piece.NAME, f"it is called {shown(table.name)}"

    def _is_ours(self, column: CatalogColumn, owners: Container[str]) -> bool:
        """Tell whether the owners of a table and of its schema are those of the users."""
        same_schema = column.schema == self._users.schema
        return column.owner in owners and (same_schema or column.schema_owner in owners)

    def _of_others(self, table: TableName, user: str) -> Iterator[str]:
        """Yield what says that its users are others than those that were found.

        No foreign key leads to a view, and they follow a table that was renamed away.
        """
        targets = self._tables.targets(table, user)
        key = targets.get(self._users, self._user_id)
        if key != self._user_id:
            yield f"{shown(user)} refers to {shown(*self._users, key)}, which is not read as the id"
        followed = all(says_copy(each.name) for each in targets)
        if self._users not in targets and self._kind not in VIEWS and not followed:
            yield f"{shown(user)} refers to {shown(*min(targets))}"

    def _of_something_else(
        self, table: TableName, keys: Container[str], user: str
    ) -> Iterator[str]:
        """Yield what says that it has the members of projects or teams within organizations."""
        before = words(table.name)[:-1]
        ends = {"".join(before[at:]) + end for at in range(len(before)) for end in ("", "id")}
        unique = [key for key in self._tables.keys.get(table, ()) if user in key]
        for column in self._tables.columns[table]:
            name = column.name
            if name in keys or plain(name) in ("id", "role"):
                continue
            refers = self._tables.targets(table, name).keys() - {self._users}
            is_key = words(name)[-1:] == ("id",) or refers
            if plain(name) in ends or (is_key and any(name in key for key in unique)):
                yield f"its members are those of {shown(name)}"


def _against_name(table: TableName, *, in_schema: str | None = None) -> Iterator[str]:
    if any(map(CONTROL.search, table)):
        yield "its name has control characters"
    if says_copy(table.name) or (table.schema != in_schema and says_copy(table.schema)):
        yield COPY
