"""Better Auth's tables as an immutable value, read from catalog rows."""

# Strategy: names are compared without case and underscores, column by column, because a table may
# mix camelCase and snake_case (generators, ORMs and years of migrations leave such tables behind).
# A table is Better Auth's users if it has the columns every version has had. An application may keep
# a `users` of its own beside them: then the one that Better Auth's sessions and accounts reference
# is taken. Whatever is still ambiguous is an error, never a guess.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from responder.errors import OperatorError, SchemaError

USER_FIELDS: Final = (
    "id",
    "email",
    "emailVerified",
    "name",
    "image",
    "isAnonymous",
    "role",
    "banned",
    "banReason",
    "banExpires",
    "createdAt",
)
MEMBER_FIELDS: Final = (
    "id",
    "organizationId",
    "userId",
    "role",
    "managerId",
    "departmentId",
    "createdAt",
)
# What a table must have to be taken for one of Better Auth's; the first two are needed in any case.
USER: Final = ("id", "email", "emailVerified")
MEMBER: Final = ("userId", "organizationId", "role")
SESSION: Final = ("userId", "token", "expiresAt")
ACCOUNT: Final = ("userId", "accountId", "providerId")


SHOWN: Final = 5  # how many candidates an error names: a schema for each tenant makes thousands

TableName = tuple[str, str]  # its schema, and its own


class CatalogColumn(NamedTuple):
    """A column as the catalog describes it; the type is the base type where it is a domain."""

    schema: str
    table: str
    name: str
    not_null: bool
    type_schema: str
    type: str
    category: str  # pg_type.typcategory


class CatalogReference(NamedTuple):
    """A foreign key from one table to another."""

    from_schema: str
    from_table: str
    to_schema: str
    to_table: str


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

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that lookups read; `members` is None without the organization plugin."""

    users: Table
    members: Table | None


def read(
    columns: Iterable[CatalogColumn],
    references: Iterable[CatalogReference],
    *,
    users: str | None = None,
    members: str | None = None,
) -> Schema:
    """Find Better Auth's tables.

    `users` and `members` name a table, with its schema or without, and overrule the search;
    `members` may be "off". Raises SchemaError if there are no users, OperatorError if there
    are several, or not the table that was named.
    """
    tables: defaultdict[TableName, list[CatalogColumn]] = defaultdict(list)
    for column in columns:
        tables[column.schema, column.table].append(column)
    owners = {
        (reference.to_schema, reference.to_table)
        for reference in references
        if _fits(its := tables[reference.from_schema, reference.from_table], SESSION)
        or _fits(its, ACCOUNT)
    }
    its_users = _choose(tables, USER, "RESPONDER_USERS_TABLE", users, preferred=owners)
    if its_users is None:
        raise SchemaError(
            "no table has the columns id, email and emailVerified: "
            "has Better Auth's migration run in this database?"
        )
    its_members = None
    if members != "off":
        its_members = _choose(tables, MEMBER, "RESPONDER_MEMBERS_TABLE", members)
    return Schema(
        users=_table(its_users, tables[its_users], USER_FIELDS),
        members=_table(its_members, tables[its_members], MEMBER_FIELDS) if its_members else None,
    )


def plain(name: str) -> str:
    """Return a name as names are compared: without case and underscores."""
    return name.replace("_", "").lower()


def _fits(columns: Iterable[CatalogColumn], required: Iterable[str]) -> bool:
    names = {plain(column.name) for column in columns}
    return all(plain(field) in names for field in required)


def _choose(
    tables: Mapping[TableName, list[CatalogColumn]],
    required: Sequence[str],
    setting: str,
    override: str | None,
    preferred: Collection[TableName] = (),
) -> TableName | None:
    if override:
        tables = {
            name: its for name, its in tables.items() if override in (name[1], ".".join(name))
        }
        required = required[:2]  # what a table cannot do without, if we need not recognize it
    fitting = [table for table, columns in tables.items() if _fits(columns, required)]
    if override and not fitting:
        raise OperatorError(f"{setting}: no table {override} with {' and '.join(required)}")
    if len(fitting) > 1:
        fitting = [table for table in fitting if table in preferred] or fitting
    if len(fitting) > 1:
        names = sorted(".".join(table) for table in fitting)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise OperatorError(
            f"several tables could be Better Auth's: {', '.join(names[:SHOWN])}{more}; "
            f"{setting} decides"
        )
    return fitting[0] if fitting else None


def _table(name: TableName, columns: list[CatalogColumn], fields: Iterable[str]) -> Table:
    found: dict[str, Column] = {}
    for field in fields:
        # Where two columns differ in case and underscores only, Better Auth's own spelling wins.
        same = [column for column in columns if plain(column.name) == plain(field)]
        for column in sorted(same, key=lambda column: column.name != field)[:1]:
            found[field] = Column(*column[2:])
    return Table(*name, found)
