"""What the operator says about the tables, in settings."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from responder.postgres.additional import EXCERPT, AdditionalField
from responder.postgres.fields import MEMBER, ORGANIZATION, USER, Description, plain, refuse_secret
from responder.postgres.quoting import split, unquoted

MAX_PARTS = 2  # of a table's name: its schema and its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the operator has said about the tables.

    `users` and `members` are the parts of a table's name, its schema first if it is given.
    `columns` has the names of columns by table (`user`, `member`) and field, None for a field that
    has none. `additional` are fields besides those of the User. `search_path` has the schemas in
    which the application itself looks, in order.
    """

    users: tuple[str, ...] | None = None
    members: tuple[str, ...] | None = None
    no_members: bool = False
    columns: Mapping[str, Mapping[str, str | None]] = dataclasses.field(default_factory=dict)
    additional: tuple[AdditionalField, ...] = ()
    search_path: tuple[str, ...] = ()


NO_OVERRIDES: Final = Overrides()


def table_name(text: str) -> tuple[str, ...]:
    """Read the name of a table, with its schema or without; double quotes protect a dot.

    A name that responder has printed is read as it was printed, `U&"…"` too. Raises ValueError if
    it is neither.

    >>> table_name('auth.app_user')
    ('auth', 'app_user')
    """
    parts = tuple(unquoted(part.strip()) for part in split(text, "."))
    if len(parts) > MAX_PARTS or not all(parts):
        raise ValueError("expected table or schema.table; double quotes protect a dot")
    return parts


def column_names(text: str) -> Mapping[str, Mapping[str, str | None]]:
    """Read what columns are called: `user.name=firstName,member.organizationId=workspace_id`.

    Names are in their literal case; double quotes protect `.`, `,` and `=`; nothing after the `=`
    says that the field has no column. What seems to hold a secret is refused. Raises ValueError
    with what is wrong.
    """
    columns: dict[str, dict[str, str | None]] = {}
    for entry in split(text, ","):
        name, *values = split(entry, "=")
        if len(values) != 1:
            raise ValueError(
                "expected user.field=column or member.field=column, with commas between"
            )
        table, known = _known(name.strip())
        if known in columns.setdefault(table.name, {}):
            raise ValueError(f"{table.name}.{known} is there twice")
        column = unquoted(values[0].strip())
        refuse_secret(column)
        columns[table.name][known] = column or None
        if columns[table.name][known] is None and known in table.needs:
            raise ValueError(f"{table.name}.{known} cannot do without a column")
    return columns


def _known(name: str) -> tuple[Description, str]:
    """The table and field that an override is about."""
    table_name, _, field = name.partition(".")
    table = {each.name: each for each in (USER, MEMBER, ORGANIZATION)}.get(table_name)
    if table is None:
        raise ValueError(f"expected user.field or member.field, not {name[:EXCERPT]!r}")
    fields = {plain(each): each for each in table.fields}
    known = fields.get(plain(field))
    if known is None:
        near = difflib.get_close_matches(plain(field), fields, n=1)
        hint = f"did you mean {fields[near[0]]}?" if near else f"it has {', '.join(table.fields)}"
        raise ValueError(f"{table.name} has no field {field[:EXCERPT]!r}; {hint}")
    return table, known
