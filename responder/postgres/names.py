"""What the names of tables and columns say: their words, and whether what bears one is meant."""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(
    r"[A-Z]+(?![^\WA-Z\d_])|[A-Z]?[^\WA-Z\d_]+|\d+"  # an acronym, a word, a number
)
# Migrations and operators leave tables behind under such names, with all the columns of the table
# that is meant, and rows that were true once.
_COPIES: Final = {
    *("archive", "archived", "backup", "backups", "bak", "bkp", "copy", "deprecated", "legacy"),
    *("new", "obsolete", "old", "orig", "prev", "previous", "snapshot", "temp", "tmp"),
}
# `pending_members` are no members yet, and `former_members` no longer.
_NOT_NOW: Final = {
    *("banned", "blocked", "declined", "deleted", "expired", "former", "inactive", "invited"),
    *("kicked", "pending", "rejected", "removed", "requested", "revoked", "suspended"),
    *("unconfirmed", "unverified", "waiting", "waitlist", "waitlisted"),
}
_DATE: Final = re.compile(r"\d{6,}")  # `users_20240131`


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, however they are put together.

    >>> words("workspaceMembers"), words("org_member")
    (('workspace', 'members'), ('org', 'member'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


def says_copy(name: str) -> bool:
    """Tell whether a name says that what bears it is a copy of something else, or is becoming it.

    >>> says_copy("users_old"), says_copy("newUsers"), says_copy("news_users")
    (True, True, False)
    """
    return any(word in _COPIES or _DATE.fullmatch(word) for word in words(name))


def says_not_now(name: str) -> bool:
    """Tell whether a name says that what is there is not yet what its last word says, or no longer.

    >>> says_not_now("pending_members"), says_not_now("formerMember"), says_not_now("member")
    (True, True, False)
    """
    return not _NOT_NOW.isdisjoint(words(name))
