"""What is looked for in Better Auth's tables: their fields, and of which types these may be."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from responder.postgres.instants import NUMBERS, TEXTS, TIMES


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column is for, and so of which types it may be: of these, or of these categories."""

    types: frozenset[str] = frozenset()
    categories: str = ""  # of pg_type.typcategory


_KEY: Final = Kind(types=TEXTS | {"uuid", "int2", "int4", "int8"})
_EMAIL: Final = Kind(types=TEXTS)
_FLAG: Final = Kind(categories="BDNS")
_INSTANT: Final = Kind(types=TIMES | TEXTS | NUMBERS)
_ORDER: Final = Kind(types=frozenset({"uuid"}), categories="BDENST")
_WORDS: Final = Kind(categories=string.ascii_uppercase)
ANY: Final = Kind(categories=string.printable)

USER_FIELDS: Final[Mapping[str, Kind]] = {
    "id": _KEY,
    "email": _EMAIL,
    "emailVerified": _FLAG,
    "name": _WORDS,
    "image": _WORDS,
    "isAnonymous": _FLAG,
    "role": _WORDS,
    "banned": _FLAG,
    "banReason": _WORDS,
    "banExpires": _INSTANT,
    "createdAt": _ORDER,
}
MEMBER_FIELDS: Final[Mapping[str, Kind]] = {
    "id": _KEY,
    "organizationId": _KEY,
    "userId": _KEY,
    "role": _WORDS,
    "managerId": _WORDS,
    "departmentId": _WORDS,
    "createdAt": _ORDER,
    "deletedAt": _FLAG,  # of applications that delete softly; see `Row.counts`
}


# What a table must have to be taken for one of Better Auth's. A user, a token and its end alone are
# any application's table of password resets.
SESSION: Final = ("userId", "token", "expiresAt", "ipAddress", "userAgent")
ACCOUNT: Final = ("userId", "accountId", "providerId")


@dataclass(frozen=True, slots=True)
class Description:
    """A table that is looked for: what it is called in settings, and what it must have."""

    name: str
    setting: str
    fields: Mapping[str, Kind]
    answered: tuple[str, ...]  # fields that the User has
    known_by: tuple[str, ...]
    called: frozenset[tuple[str, ...]]  # its name, or the last word of it
    needs: tuple[str, ...]  # fields without which not even a table named by hand will do


USER: Final = Description(
    "user",
    "RESPONDER_USERS_TABLE",
    USER_FIELDS,
    tuple(field for field in USER_FIELDS if field != "createdAt"),
    ("id", "email", "emailVerified"),
    frozenset({("user",), ("users",)}),
    ("id", "email"),
)
MEMBER: Final = Description(
    "member",
    "RESPONDER_MEMBERS_TABLE",
    MEMBER_FIELDS,
    ("organizationId", "role", "managerId", "departmentId"),
    ("userId", "organizationId", "role"),
    frozenset({("member",), ("members",), ("membership",), ("memberships",)}),
    ("userId", "organizationId"),
)
ORGANIZATION: Final = Description(
    "organization",
    "",  # the members' table says which one it is
    {"id": _KEY, "name": _WORDS, "slug": _WORDS},
    (),
    ("id", "name"),
    frozenset({("organization",), ("organizations",)}),
    ("id",),
)


# In the names of columns that are probably secrets. These are never read, not even if the operator
# asks for them.
_SECRET: Final = (
    *("password", "passwd", "pwd", "secret", "token", "hash", "salt", "otp", "recovery"),
    *("backupcode", "credential", "privatekey", "apikey"),
)


def refuse_secret(column: str) -> None:
    """Raise ValueError for a field or column that seems to hold a secret."""
    for word in _SECRET:
        if word in plain(column):
            raise ValueError(
                f"{column[:64]!r} seems to hold a secret, having {word} in its name, and is never "
                "read; if it holds none, a view may call it otherwise"
            )


def holds_secret(column: str) -> bool:
    """Tell whether a column seems to hold a secret."""
    return any(word in plain(column) for word in _SECRET)


def plain(name: str) -> str:
    """Return a name as names are compared: without case and underscores."""
    return name.replace("_", "").lower()
