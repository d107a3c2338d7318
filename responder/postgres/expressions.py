"""Tables and columns of a schema as SQL expressions."""

# A parameter is sent as text and cast to its column's type, because casting the column instead
# would read the whole table: `id::text = any($1)` cannot use the index of a uuid, `id =
# any($1::uuid[])` can.

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from responder.postgres.ids import INTEGER_PATTERN, INTEGER_RANGE, INTEGERS, UUID_PATTERN
from responder.postgres.instants import NUMBERS, instant
from responder.postgres.quoting import ident, literal
from responder.postgres.schema import Column, Table

_COMPARES_WITH_TEXT: Final = {"text", "varchar"}  # through their own index
_BETWEEN_ROLES: Final = "'^[[:space:]]+|[[:space:]]*,[[:space:]]*|[[:space:]]+$'"
_JSON: Final = {"json", "jsonb"}
_NO: Final = "('', 'false', 'f', 'no', 'n', 'off', '0')"  # as PostgreSQL reads a boolean

LARGEST_EXACT: Final = 2**53  # of integers, in JavaScript and in many other readers of JSON
# The times that RFC 3339 can write, and what comes before and after them in each time zone.
_FIRST: Final = "timestamp '0001-01-01'"
_END: Final = "timestamp '10000-01-01'"
_BEFORE: Final = "timestamp '0002-01-01 BC'"
_AFTER: Final = "timestamp '10001-01-01'"


class Value:
    """A column of a row in a query, such as `u."email"`, and how it is compared."""

    def __init__(self, alias: str, column: Column) -> None:
        self.column = column
        self._sql = f"{alias}.{ident(column.name)}"
        # In the order of answers citext is text, and so compared by PostgreSQL's own operators.
        self.sortable: str = f"{self}::text" if column.type == "citext" else str(self)

    def __str__(self) -> str:
        return self._sql

    def equals(self, text: str) -> str:
        """Compare it with text that is a value of its type."""
        return self.is_(self.cast(text))

    def refers_to(self, other: Value) -> str:
        """Compare it with a column of another table, by its own index."""
        return self.is_(self.converted(str(other), other.column))

    def converted(self, value: str, column: Column) -> str:
        """Return a value of another column as one of this one's type; null if it is none."""
        return _converted(value, column, self.column)

    def is_(self, value: object) -> str:
        """Compare it with a value of its own type."""
        return self.same(self, value)

    def same(self, value: object, other: object) -> str:
        """Compare two values of its type."""
        return f"{value} {self._operator('=')} {other}"

    def _operator(self, name: str) -> str:
        # An extension's operators are where it was installed, which need not be on the search path:
        # without them citext would be compared as text, exactly and without its index.
        if self.column.type != "citext":
            return name
        return f"operator({ident(self.column.type_schema)}.{name})"

    def comes_after(self, value: str) -> str:
        """Tell whether it comes after a value of its own type, in the order of its index."""
        return f"{self} {self._operator('>')} {value}"

    @property
    def as_key(self) -> str:
        """Text that is equal for equal values."""
        return self.text_as_key(f"{self}::text")

    def text_as_key(self, text: str) -> str:
        """Return text that is a value of its type likewise."""
        return f"lower({text})" if self.column.type == "citext" else text

    def cast(self, text: str) -> str:
        """Make text a value of its type."""
        plain = self.column.type in _COMPARES_WITH_TEXT
        return text if plain else f"{text}::{self.type}"

    def cast_sortable(self, text: str) -> str:
        """Make text a value that `sortable` is compared with."""
        value = self.cast(text)
        return f"{value}::text" if self.column.type == "citext" else value

    @property
    def type(self) -> str:
        """The name of its type, with its schema."""
        return f"{ident(self.column.type_schema)}.{ident(self.column.type)}"

    def instant(self, timezone: str) -> str:
        """Read it, a time of any type, as a timestamp with a zone (see `instants`)."""
        return instant(str(self), self.column.type, timezone)

    def json(self, timezone: str) -> str:
        """Write it as JSON text, null where it is null.

        As PostgreSQL's to_jsonb has it, but for times and for integers that JavaScript cannot read
        exactly. (`to_json` says the same, and does not raise for what json may hold and jsonb may
        not.)
        """
        match self.column.type if self.column.type_schema == "pg_catalog" else None:
            case "int8":
                exact = f"{self} between -{LARGEST_EXACT} and {LARGEST_EXACT}"
                return f"case when {exact} then {self}::text else to_json({self}::text)::text end"
            case "timestamptz":
                time = f"({self} at time zone 'UTC')"
            case "timestamp" if timezone == "UTC":
                time = str(self)
            case "timestamp":
                # Near the ends of what PostgreSQL knows, a time in another zone would be none.
                near = f"least(greatest({self}, {_BEFORE}), {_AFTER})"
                time = f"({near} at time zone {literal(timezone)} at time zone 'UTC')"
            case "date":
                time = str(self)
            case _:
                return f"to_json({self})::text"
        written = f"to_json({self})::text"
        if self.column.type != "date":
            written = f"""'"' || to_char({time}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"'"""
        return f"case when {time} >= {_FIRST} and {time} < {_END} then {written} end"


class Row:
    """A table in a query, under an alias; its columns go by Better Auth's name of the field."""

    def __init__(self, table: Table | None, alias: str) -> None:
        self._table = table
        self._columns = table.columns if table else {}
        self._alias = alias
        self.source: str = f"{table.quoted} {alias}" if table else ""

    def __getitem__(self, field: str) -> Value:
        return Value(self._alias, self._columns[field])

    def get(self, field: str) -> Value | None:
        """Return a column that may be missing."""
        return self[field] if field in self._columns else None

    def under(self, alias: str) -> Row:
        """Return the same table under another alias."""
        return Row(self._table, alias)

    @property
    def names(self) -> str:
        """Its columns, each once, though several fields may be read from it."""
        names = dict.fromkeys(column.name for column in self._columns.values())
        return ", ".join(f"{self._alias}.{ident(name)}" for name in names)

    def order(self, tie: str) -> str:
        """Order rows: the earliest first, then by a field."""
        created_at = self.get("createdAt")
        return (f"{created_at} nulls last, " if created_at else "") + self[tie].sortable

    def tie(self, instead: str) -> str:
        """Return the field that orders rows of one time: its id, or another without one."""
        return "id" if "id" in self._columns else instead

    def words(self, field: str) -> str:
        """Read a field as text."""
        if not (value := self.get(field)):
            return "null::text"
        if value.column.category == "A":
            return f"array_to_string({value}, ',')"
        if value.column.type in _JSON:
            return _json_words(str(value), value.column.type)
        return f"{value}::text"  # even of text: it may be of another type tomorrow

    def has_role(self, field: str, roles: Sequence[str]) -> str:
        """Tell whether a field has one of these roles: it may have several, between commas.

        Better Auth splits a member's roles at the commas, and leaves out the space around each.
        """
        return f"{self.roles(field)} && array[{', '.join(map(literal, roles))}]::text[]"

    def roles(self, field: str) -> str:
        """Read the roles that a field has."""
        return f"regexp_split_to_array({self.words(field)}, {_BETWEEN_ROLES})"

    @property
    def counts(self) -> str:
        """Return the condition that a row has not been deleted softly, to follow another one."""
        return f" and not {self.flag('deletedAt')}" if self.get("deletedAt") else ""

    def flag(self, field: str) -> str:
        """Read whether a field says yes: a boolean, the time since when, a number, or a word."""
        if not (value := self.get(field)):
            return "false"
        match value.column.category:
            case "B":
                return f"coalesce({value}, false)"
            case "D":
                return f"{value} is not null"
            case "N" if value.column.type in NUMBERS:
                return f"coalesce({value} <> 0, false)"
        return f"coalesce(lower({value}::text) not in {_NO}, false)"

    def javascript_time(self, field: str, timezone: str) -> str:
        """Read a timestamp as JavaScript writes it; one past the year 9999 is no end at all."""
        if not (value := self.get(field)):
            return "null::text"
        name = str(value)
        if value.column.type == "timestamptz":
            name = f"{name} at time zone 'UTC'"
        elif value.column.type != "timestamp":
            name = f"({value.instant(timezone)}) at time zone 'UTC'"
        elif timezone != "UTC":
            name = f"{name} at time zone {literal(timezone)} at time zone 'UTC'"
        return f"""case when {name} < {_END}
            then to_char(greatest({name}, {_FIRST}), \
'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') end"""


def _json_words(value: str, type_: str) -> str:
    """Read JSON as text: strings without their quotes, a list of them with commas between.

    A json that holds U+0000, as no text can, is read as null.
    """
    words = f"jsonb_array_elements_text({value}::jsonb) with ordinality as each(word, n)"
    written = f"""case jsonb_typeof({value}::jsonb)
            when 'array' then (select string_agg(each.word, ',' order by each.n) from {words})
            else {value}::jsonb #>> '{{}}' end"""
    if type_ == "jsonb":
        return written
    return f"case when strpos({value}::text, '\\u0000') = 0 then {written} end"


def _converted(value: str, column: Column, target: Column) -> str:
    """Return a value of a column as the type of another, to be looked up by that one's index."""
    if column.type == target.type or {column.type, target.type} <= INTEGERS:
        return value
    as_text = f"{value}::text"
    # Text that is no such value equals none, and must not make the whole lookup fail.
    if target.type == "uuid":
        return f"case when {as_text} ~* {literal(UUID_PATTERN)} then {as_text}::uuid end"
    if target.type in INTEGERS:
        fits = f"{as_text}::numeric between {INTEGER_RANGE[0]} and {INTEGER_RANGE[1]}"
        integer = f"case when {fits} then {as_text}::bigint end"
        return f"case when {as_text} ~ {literal(INTEGER_PATTERN)} then {integer} end"
    return Value("", target).cast(as_text)
