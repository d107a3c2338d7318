"""Which column of a table holds a field."""

# Names are compared without case and underscores, column by column, because a table may mix
# camelCase and snake_case: generators, ORMs and years of migrations leave such tables behind. A
# name that is only near is never taken (see `near`), but for a boolean `anonymous` where there is
# no `isAnonymous`: to ignore it would show guests what only users may see.

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from responder.errors import OperatorError
from responder.postgres.additional import SETTING
from responder.postgres.catalog import CatalogColumn
from responder.postgres.fields import ANY, Description, Kind, plain
from responder.postgres.nearest import nearest, some
from responder.postgres.quoting import shown
from responder.postgres.schema import Column, Table, TableName
from responder.terminal import visible

_FLAG_OF_GUESTS: Final = ("isAnonymous", "anonymous")
_BOOLEAN: Final = "B"  # pg_type.typcategory

ByHand: TypeAlias = Mapping[str, str | None]


def holding(columns: Iterable[CatalogColumn], field: str, by_hand: ByHand) -> list[CatalogColumn]:
    """Return the columns that could hold a field."""
    if field in by_hand:
        return [column for column in columns if column.name == by_hand[field]]
    own, guests = _FLAG_OF_GUESTS
    same = [column for column in columns if plain(column.name) == plain(field)]
    if field == own and not same:
        return [
            column
            for column in columns
            if plain(column.name) == guests and column.category == _BOOLEAN
        ]
    return same


def lacking(
    columns: Sequence[CatalogColumn], required: Iterable[str], by_hand: ByHand
) -> list[str]:
    """Return the fields that no column holds, but for those that are said to have none."""
    return [
        field
        for field in required
        if not holding(columns, field, by_hand) and by_hand.get(field, "") is not None
    ]


def mapped(
    table: TableName,
    columns: Sequence[CatalogColumn],
    description: Description,
    by_hand: ByHand,
    additional: Iterable[str] = (),
) -> dict[str, CatalogColumn]:
    """Return the columns of a table by the field that each holds, additional ones, too.

    A column of a type that cannot hold its field is left out, if the table can do without (`near`
    tells of it). Raises OperatorError if it cannot, where several could hold a field, or where one
    that the operator has named is not there.
    """
    found = {}
    for field in dict.fromkeys((*description.fields, *additional)):
        kind = description.fields.get(field, ANY)
        column = _holder(table, columns, description, field, by_hand)
        if column is None:
            continue
        if not can_hold(kind, column):
            if field not in description.needs:
                continue
            raise OperatorError(
                f"{shown(*table, column.name)} is of type {shown(column.type)}, "
                f"which cannot be read as {field}; "
                f"RESPONDER_COLUMNS={description.name}.{field}=… names another column"
            )
        found[field] = column
    return found


def as_table(
    name: TableName,
    columns: Sequence[CatalogColumn],
    found: Mapping[str, CatalogColumn],
    *,
    home: TableName | None = None,
) -> Table:
    """Return a table as lookups read it.

    Args:
        name: its name.
        columns: all that it has.
        found: those that are read, by field.
        home: the name under which it was found first.
    """
    named = {
        field: Column(each.name, each.not_null, each.type_schema, each.type, each.category)
        for field, each in found.items()
    }
    return Table(*name, named, columns[0].version, columns[0].row_security, home)


def can_hold(kind: Kind, column: CatalogColumn) -> bool:
    """Tell whether a column is of a type that is one of a kind."""
    return column.type in kind.types or column.category in kind.categories


def _holder(
    table: TableName,
    columns: Sequence[CatalogColumn],
    description: Description,
    field: str,
    by_hand: ByHand,
) -> CatalogColumn | None:
    same = holding(columns, field, by_hand)
    if not same:
        if by_hand.get(field):
            raise missing_column(table, columns, description, field, by_hand)
        return None
    # Where columns differ in case and underscores only, Better Auth's own spelling wins.
    snake = re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", field)
    for spelling in (field, snake):
        for column in same:
            if column.name == spelling:
                return column
    if len(same) > 1:
        setting = f"RESPONDER_COLUMNS={description.name}.{field}=…"
        if field not in description.fields:
            setting = f"the exact name of one in {SETTING}"
        raise OperatorError(
            f"{table} has several columns for {visible(field)}: "
            f"{some(shown(each.name) for each in same)}; {setting} decides"
        )
    return same[0]


def missing_column(
    table: TableName,
    columns: Iterable[CatalogColumn],
    description: Description,
    field: str,
    by_hand: ByHand,
) -> OperatorError:
    """Return the error for a field that must have a column, and has none of the name wanted."""
    wanted = by_hand.get(field) or field
    return OperatorError(
        f"{table} has no column {visible(wanted)}: "
        f"RESPONDER_COLUMNS={description.name}.{field}=… says what it is called there; "
        f"{nearest(wanted, [column.name for column in columns])}"
    )
