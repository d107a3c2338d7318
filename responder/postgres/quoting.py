"""Names and constants, quoted for SQL."""

from __future__ import annotations


def ident(name: str) -> str:
    """Quote a name.

    >>> ident('we"ird name')
    '"we""ird name"'
    """
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """Quote the name of a table, with its schema.

    >>> qualified("auth", "user")
    '"auth"."user"'
    """
    return f"{ident(schema)}.{ident(name)}"


def literal(text: str) -> str:
    """Quote a constant.

    >>> literal("O'Hara")
    "'O''Hara'"
    """
    return "'" + text.replace("'", "''") + "'"
