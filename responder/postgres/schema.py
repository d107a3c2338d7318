"""Better Auth's tables as they were found: an immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from responder.postgres.additional import AdditionalField
from responder.postgres.fields import MEMBER, USER
from responder.postgres.quoting import qualified, shown


class TableName(NamedTuple):
    """The name of a table, with that of its schema."""

    schema: str
    name: str

    def __str__(self) -> str:
        return shown(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, whether it may be null, and its type."""

    name: str
    not_null: bool
    type_schema: str
    type: str
    category: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with its columns by Better Auth's name of the field they hold."""

    schema: str
    name: str
    columns: Mapping[str, Column]
    version: str = ""
    row_security: bool = False
    home: TableName | None = None
    """The name under which it was found, whatever it has been renamed to since."""

    def __str__(self) -> str:
        return shown(self.schema, self.name)

    @property
    def quoted(self) -> str:
        """Its name in SQL, with its schema."""
        return qualified(self.schema, self.name)

    @property
    def relation(self) -> str:
        """What stays the same when it is renamed or moved."""
        return relation(self.version)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that lookups read; `members` is None without the organization plugin.

    `organizations` is None where it was not found or may not be read: it has names and no more.

    `formers` are the names under which tables were found that have been renamed since, each with
    the version of the table that bears it now, or "" where there is none. Such a table may replace
    the renamed one: `users` became `people`, say, and a new `users` is being filled. `additional`
    are the fields that are asked for besides those of the User; the column of one may be gone, and
    those that are `unreadable` are null.
    """

    users: Table
    members: Table | None
    formers: tuple[tuple[TableName, str], ...] = ()
    additional: tuple[AdditionalField, ...] = ()
    organizations: Table | None = None
    unreadable: tuple[AdditionalField, ...] = ()

    @property
    def tables(self) -> list[Table]:
        """The tables there are without which lookups cannot be answered."""
        return [self.users, self.members] if self.members else [self.users]

    @property
    def lost(self) -> list[AdditionalField]:
        """The additional fields whose column is gone."""
        columns = {USER.name: self.users.columns}
        if self.members:
            columns[MEMBER.name] = self.members.columns
        return [each for each in self.additional if each.field not in columns.get(each.table, {})]

    @property
    def read(self) -> list[Table]:
        """All tables that are read."""
        return [*self.tables, self.organizations] if self.organizations else self.tables

    @property
    def shape(self) -> object:
        """What makes a difference to lookups."""
        return [(str(table), table.columns, table.row_security) for table in self.read]

    @property
    def version(self) -> str:
        """Of the definitions of its tables, see `staleness`."""
        return " ".join(
            [*(table.version for table in self.read), *(each[1] for each in self.formers)]
        )


def relation(version: str) -> str:
    """Return the relation whose definition has a version (see `catalog.COLUMNS`)."""
    return version.partition(":")[0]
