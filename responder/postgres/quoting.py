"""Names and constants, quoted for SQL and for people."""

# A name in PostgreSQL may hold any character but NUL. Where SQL or a message is read by a person, a
# line break in a name would begin a line that we never wrote, and a character without a width of
# its own would change what is read. So what cannot be printed is always escaped, in a form that is
# SQL as well: the table `member`, LINE FEED, `x` is U&"member\000ax", and in psql and in settings
# that is its name. (PostgreSQL's manual, 4.1.1 and 4.1.2.3, "Identifiers and Key Words" and "String
# Constants with Unicode Escapes".)

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE: Final = re.compile(r"\\(?:(\\)|([0-9A-Fa-f]{4})|\+([0-9A-Fa-f]{6}))|\\")
_BASIC_PLANE: Final = 0xFFFF
_MAX_CODE: Final = 0x10FFFF


def ident(name: str) -> str:
    r"""Quote a name.

    >>> ident('we"ird name')
    '"we""ird name"'
    >>> print(ident("two\nlines"))
    U&"two\000alines"
    """
    quoted = name.replace('"', '""')
    if name.isprintable():
        return f'"{quoted}"'
    escaped = "".join(map(_escaped, quoted))
    return f'U&"{escaped}"'


def qualified(schema: str, name: str) -> str:
    """Quote the name of a table, with its schema.

    >>> qualified("auth", "user")
    '"auth"."user"'
    """
    return f"{ident(schema)}.{ident(name)}"


def shown(*names: str) -> str:
    """Return a name for a message: with its schema or table, and quoted where it is not a word.

    >>> shown("auth", "user")
    'auth.user'
    >>> shown("auth", "user; drop")
    'auth."user; drop"'
    """
    return ".".join(name if _WORD.fullmatch(name) else ident(name) for name in names)


def unquoted(text: str) -> str:
    r"""Return the name that a quoted or plain text is, the inverse of `ident` and of `shown`.

    Raises ValueError for escapes that are none.

    >>> unquoted(r'U&"two\000alines"') == "two\nlines"
    True
    """
    unicode = text[:2] in ("U&", "u&")
    quoted = text[2:] if unicode else text
    if len(quoted) < len('""') or not quoted[0] == quoted[-1] == '"':
        return text
    name = quoted[1:-1].replace('""', '"')
    return _ESCAPE.sub(_unescaped, name) if unicode else name


def split(text: str, separator: str) -> list[str]:
    """Split where it is not quoted; raises ValueError for a quote that is not closed.

    >>> split('auth."app.user"', ".")
    ['auth', '"app.user"']
    """
    if text.count('"') % 2:
        raise ValueError("a double quote is not closed")
    return re.split(rf'{re.escape(separator)}(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def literal(text: str) -> str:
    r"""Quote a constant, whatever `standard_conforming_strings` is.

    >>> literal("O'Hara")
    "'O''Hara'"
    >>> print(literal("two\nlines"))
    E'two\u000alines'
    """
    quoted = text.replace("'", "''")
    if text.isprintable() and "\\" not in text:
        return f"'{quoted}'"
    return "E'" + "".join(map(_escaped_in_constant, quoted)) + "'"


def regclass(schema: str, name: str) -> str:
    """Return the constant that is a table, as PostgreSQL looks it up by its name."""
    # What is cast is no SQL: in it a name has quotes and no escapes.
    names = (each.replace('"', '""') for each in (schema, name))
    return literal(".".join(f'"{each}"' for each in names)) + "::regclass"


def _escaped(char: str) -> str:
    if char.isprintable():
        return char.replace("\\", "\\\\")
    code = ord(char)
    return f"\\{code:04x}" if code <= _BASIC_PLANE else f"\\+{code:06x}"


def _escaped_in_constant(char: str) -> str:
    if char.isprintable():
        return char.replace("\\", "\\\\")
    code = ord(char)
    return f"\\u{code:04x}" if code <= _BASIC_PLANE else f"\\U{code:08x}"


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        return "\\"
    code = int(escape[2] or escape[3] or "0", 16)
    if not 0 < code <= _MAX_CODE:
        raise ValueError(r"after U& a backslash begins \XXXX or \+XXXXXX, or is written twice")
    return chr(code)
