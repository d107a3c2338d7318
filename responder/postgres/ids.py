"""What can be an id of a column, in the form in which equal ids are equal."""

# PostgreSQL reads more than it writes: ` 7` and `0x7` are integers to it, and a uuid may stand in
# braces. Compared so, an id would find a user whose id it does not equal; and text that cannot be a
# value at all would fail the whole batch that it is asked for in. So every id passes through here
# first: what cannot be one becomes None, which equals no row.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

# Returns the canonical form of an id, None for what cannot be one.
Canonical: TypeAlias = Callable[[str], str | None]

# For the same test inside SQL, where a column of one type refers to one of another.
UUID_PATTERN: Final = "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"
INTEGER_PATTERN: Final = "^(0|-?[1-9][0-9]{0,18})$"
INTEGERS: Final = {"int2", "int4", "int8"}
INTEGER_RANGE: Final = (-(2**63), 2**63 - 1)

_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)


def canonical(type_: str) -> Canonical:
    """Return what brings ids into the form of a column.

    >>> canonical("int4")("7"), canonical("int4")("07"), canonical("int4")("3000000000")
    ('7', None, None)
    """
    return _FORMS.get(type_, text)


def text(id_: str) -> str | None:
    r"""Return the id for a text column, which holds any UTF-8 but NUL.

    >>> text("Zoë"), text("a\0b"), text("\ud800")
    ('Zoë', None, None)
    """
    if "\0" in id_:
        return None
    if id_.isascii():
        return id_
    try:
        id_.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return id_


def _uuid(id_: str) -> str | None:
    return id_.lower() if _UUID.fullmatch(id_) else None


def _padded(id_: str) -> str | None:
    return None if id_.endswith(" ") else text(id_)  # char(n) knows no spaces at the end


def _integer(bits: int) -> Canonical:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return lambda id_: id_ if _INTEGER.fullmatch(id_) and low <= int(id_) <= high else None


_FORMS: Final[dict[str, Canonical]] = {
    "uuid": _uuid,
    "bpchar": _padded,
    "int2": _integer(16),
    "int4": _integer(32),
    "int8": _integer(64),
}
