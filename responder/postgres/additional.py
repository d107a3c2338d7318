"""Fields that the operator has asked for besides those of the User."""

# They are custom columns of Better Auth's tables (its own word is `additionalFields`), found as the
# other fields are. What seems to hold a secret cannot be asked for.

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from responder.postgres.fields import (
    MEMBER,
    USER,
    Description,
    plain,
    refuse_secret,
)
from responder.postgres.nearest import nearest
from responder.postgres.quoting import split, unquoted
from responder.terminal import visible

SETTING: Final = "RESPONDER_ADDITIONAL_FIELDS"
EXCERPT: Final = 64  # characters of what was not understood
_TABLES: Final = {each.name: each for each in (USER, MEMBER)}


class Named(Protocol):
    """A column of a table."""

    @property
    def name(self) -> str:
        """Its own name."""


class AdditionalField(NamedTuple):
    """A field that is asked for."""

    key: str  # under which it is answered
    table: str  # `user` or `member`
    field: str

    def __str__(self) -> str:
        return f"{self.table}.{visible(self.field)}"


def field_names(text: str) -> tuple[AdditionalField, ...]:
    """Read which fields are asked for, each with the key under which it is answered.

    Double quotes protect `.`, `,` and `=`. Raises ValueError with what is wrong.

    >>> field_names("member.title,locale=user.preferred_locale")[1]
    AdditionalField(key='locale', table='user', field='preferred_locale')
    """
    fields: dict[str, AdditionalField] = {}
    for entry in split(text, ","):
        field = _field(entry)
        if field.key in fields:
            raise ValueError(f"the key {field.key[:EXCERPT]!r} is there twice; another=… names one")
        fields[field.key] = field
    return tuple(fields.values())


def _field(entry: str) -> AdditionalField:
    *keys, name = (part.strip() for part in split(entry, "="))
    table_name, *names = (unquoted(part.strip()) for part in split(name, "."))
    table = _TABLES.get(table_name)
    if table is None or len(names) != 1 or not names[0] or len(keys) > 1:
        raise ValueError(
            "expected user.field, member.field or key=user.field, with commas between, "
            f"not {entry.strip()[:EXCERPT]!r}"
        )
    key = unquoted(keys[0]) if keys else names[0]
    if not key or not key.isprintable():
        raise ValueError(f"expected the key of {name[:EXCERPT]!r} before the =")
    known = {plain(each): each for each in table.fields}
    field = known.get(plain(names[0]), names[0])
    if field in table.answered:
        raise ValueError(f"every User has {table.name}.{field} already")
    refuse_secret(field)
    return AdditionalField(key, table.name, field)


def fields_of(description: Description, additional: Iterable[AdditionalField]) -> list[str]:
    """Return the fields of a table that are asked for."""
    return [each.field for each in additional if each.table == description.name]


def problem(
    additional: Iterable[AdditionalField],
    description: Description,
    columns: Mapping[str, Named] | None,
    names: Collection[str],
) -> str | None:
    """Return what keeps fields of a table from being answered, None if nothing does.

    Args:
        additional: what is asked for, of all tables.
        description: of the table.
        columns: its columns by field; None where there is no such table.
        names: of all columns that it has.
    """
    for each in additional:
        if each.table != description.name:
            continue
        if columns is None:
            return f"{SETTING}: {each} is asked for, and there is no table of {each.table}s"
        if each.field not in columns:
            return f"{SETTING}: no column is {each}; {nearest(each.field, names)}"
        for field in description.answered:
            if field in columns and columns[field].name == columns[each.field].name:
                return f"{SETTING}: {each} is the column that every User has as {field}"
    return None
