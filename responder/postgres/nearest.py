"""Which names a message lists: those near the one that was wanted, else the first."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Final

from responder.postgres.fields import plain
from responder.postgres.quoting import shown

SHOWN: Final = 5  # how many names a message has: a schema for each tenant makes thousands


def nearest(wanted: str, names: Collection[str]) -> str:
    """Say which names are near a name, or else which there are.

    >>> nearest("phoneNumber", ["id", "phone_no", "phone_number"])
    'near it: phone_no, phone_number'
    """
    plainly = {plain(name): name for name in names}
    near = difflib.get_close_matches(plain(wanted), plainly, n=SHOWN)
    listed = [plainly[each] for each in near] or names
    return f"{'near it' if near else 'it has'}: {some(map(shown, listed))}"


def some(names: Iterable[str]) -> str:
    """Return the first of the names, and how many more there are.

    >>> some("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
