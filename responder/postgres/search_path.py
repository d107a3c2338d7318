r"""The schemas in which an application looks for its tables."""

# PostgreSQL looks for a table that is named without its schema in one schema after another. Each
# application says in its own way which these are: in `options` or in a parameter of its connection
# string, or as a setting of its role or database. The value is a list of names, as SQL has them.

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s,"]+))\s*(?:,|$)')
_ROLE: Final = "$user"  # stands for the name of the role
_DEFAULT: Final = ["$user", "public"]  # PostgreSQL's own, which says nothing, written or not


def schemas(setting: str, *, role: str | None = None) -> tuple[str, ...]:
    """Return the names in a value of `search_path`, but for PostgreSQL's own default.

    What is not a list of names has none.

    Args:
        setting: the value, as `set search_path = …` has it.
        role: the role whose connection it is; without it, `$user` is left out.

    >>> schemas('"$user", Auth, "Auth"', role="app")
    ('app', 'auth', 'Auth')
    """
    names: list[str] = []
    at = 0
    while at < len(setting):
        found = _NAME.match(setting, at)
        if not found:
            return ()
        names.append(found[2].lower() if found[1] is None else found[1].replace('""', '"'))
        at = found.end()
    if names == _DEFAULT:
        return ()
    return tuple(filter(None, [role if name == _ROLE else name for name in names]))
