"""What is nearly a field of Better Auth's, and the setting that makes it one."""

# A name that is only near is never taken: `isEmailVerified` may be what Better Auth writes, or what
# the application keeps beside it. But an operator who does not know that something is missing does
# not look for a setting. So what is near is named, with a line to paste.

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from responder.postgres.catalog import CatalogColumn
from responder.postgres.columns import can_hold, holding
from responder.postgres.evidence import OTHERWISE, REQUIRED, Piece, Tables, Weighed
from responder.postgres.fields import MEMBER, Description, holds_secret, plain
from responder.postgres.names import words
from responder.postgres.nearest import some
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import shown
from responder.postgres.schema import Table, TableName

# How applications and other libraries call these fields, the likeliest first; as `plain` has them.
_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("userid", "uid", "uuid"),
    "email": ("mail", "emailaddress", "primaryemail", "useremail"),
    "emailVerified": (
        *("isemailverified", "emailverifiedat", "verified", "isverified", "verifiedemail"),
        *("emailconfirmed", "isemailconfirmed", "emailconfirmedat", "verifiedat", "confirmedat"),
    ),
    "name": ("displayname", "fullname", "username", "firstname"),
    "image": (
        *("avatar", "avatarurl", "imageurl", "picture", "pictureurl", "photo", "photourl"),
        *("profileimage", "profilepicture", "profileimageurl"),
    ),
    "isAnonymous": ("anonymous", "isguest", "guest"),
    "banned": ("isbanned",),
    "banReason": ("bannedreason",),
    "banExpires": ("banexpiresat", "bannedexpires", "banneduntil"),
    "deletedAt": (
        *("deleted", "isdeleted", "deletedon", "softdeletedat", "removedat", "isremoved"),
        *("leftat", "revokedat"),
    ),
    "createdAt": ("joinedat", "created", "createdon", "insertedat", "registeredat"),
    "organizationId": (
        *("orgid", "organisationid", "tenantid", "workspaceid", "companyid", "teamid"),
        *("accountid", "groupid", "businessid", "clubid", "storeid", "agencyid"),
    ),
    "userId": ("user", "memberid", "profileid", "authuserid"),
}
# Whose columns these are is said by the word before them: `platformRole`, `orgRole`.
_LAST_WORD: Final = {"role": ("role", "roles")}
_ALIKE: Final = 0.85  # how alike two names are, one of which may be a misspelling of the other
_ACTIVE: Final = "active"  # Better Auth's sessions have an `activeOrganizationId`
# Fields that decide what callers may do or see.
_SERIOUS: Final = ("emailVerified", "isAnonymous", "role", "banned", "banExpires", "deletedAt")


@dataclass(frozen=True, slots=True)
class Hint:
    """What the operator may want to set.

    `serious` is whether lookups answer what the application does not mean, if it is not set.
    `field` is what it is about, where that is one field.
    """

    message: str
    setting: str
    serious: bool
    field: str = ""

    def __str__(self) -> str:
        return f"{self.message}; set {self.setting}"


def near(
    field: str,
    columns: Iterable[CatalogColumn],
    description: Description,
    *,
    first: Sequence[str] = (),
) -> list[str]:
    """Return the names that are near a field's, the nearest first.

    Args:
        field: the field, which no column holds.
        columns: of the table.
        description: of the table that is looked for.
        first: names that are the nearest of all, as `plain` has them.
    """
    names = (*first, *_OTHER_NAMES.get(field, ()))
    taken = {plain(each) for each in description.fields}
    ranked = []
    for column in columns:
        name = plain(column.name)
        if name in taken or not can_hold(description.fields[field], column):
            continue
        if holds_secret(column.name):  # a setting that names it would be refused
            continue
        if name in names:
            rank = float(names.index(name))
        elif words(column.name)[-1:] and words(column.name)[-1] in _LAST_WORD.get(field, ()):
            rank = len(names)
        elif difflib.SequenceMatcher(None, name, plain(field)).ratio() >= _ALIKE:
            rank = len(names) + 1
        else:
            continue
        ranked.append((rank, column.name))
    return [name for _, name in sorted(ranked)]


def setting(
    overrides: Overrides,
    description: Description,
    *,
    table: TableName | None = None,
    columns: Mapping[str, str] | None = None,
) -> str:
    """Return settings as a line to paste; RESPONDER_COLUMNS with what it has already.

    Args:
        overrides: what the operator has said so far.
        description: of the table that is looked for.
        table: the table to take.
        columns: what its columns are called, by field; "" for a field that has none.
    """
    said = []
    if table:
        said.append(f"{description.setting}={shlex.quote(shown(*table))}")
    if columns:
        every = {name: dict(each) for name, each in overrides.columns.items()}
        every.setdefault(description.name, {}).update(columns)
        value = ",".join(
            f"{name}.{field}={shown(column) if column else ''}"
            for name, each in every.items()
            for field, column in each.items()
        )
        said.append(f"RESPONDER_COLUMNS={shlex.quote(value)}")
    return " ".join(said)


def hints_of_fields(
    description: Description,
    table: Table,
    columns: Sequence[CatalogColumn],
    overrides: Overrides,
) -> Iterator[Hint]:
    """Yield what a table that was found has nearly, and what it has twice."""
    by_hand = overrides.columns.get(description.name, {})
    for field, kind in description.fields.items():
        for unread in holding(columns, field, by_hand):
            if not can_hold(kind, unread):
                yield Hint(
                    f"{table}.{shown(unread.name)} is of type {shown(unread.type)}, which cannot "
                    f"be read as {field}: it counts as missing; if it is to",
                    setting(overrides, description, columns={field: ""}),
                    serious=field in _SERIOUS,
                )
        if field in by_hand:
            continue
        if field not in table.columns:
            names = near(field, columns, description)
            if names:
                without = f"{table} has banned, but no role" if _is_odd(field, table) else ""
                yield Hint(
                    f"{without or f'{table} has no {field}'}; near it: {some(map(shown, names))}",
                    setting(overrides, description, columns={field: names[0]}),
                    serious=field in _SERIOUS,
                    field=field,
                )
            continue
        own = table.columns[field].name
        for other in holding(columns, field, by_hand):
            if other.name != own:
                yield Hint(
                    f"{table} has {shown(own)}, which is read, and {shown(other.name)}; "
                    "if the other is meant",
                    setting(overrides, description, columns={field: other.name}),
                    serious=True,
                    field=field,
                )


def _is_odd(field: str, table: Table) -> bool:
    """Tell whether Better Auth's admin plugin seems to have made one column and not the other."""
    return field == "role" and "banned" in table.columns


def hints_of_members(
    weighed: Iterable[Weighed], tables: Tables, users: Table, overrides: Overrides
) -> list[Hint]:
    """Return what could be the members of users that seem to have none, the likeliest first."""
    active = _active(tables, TableName(users.schema, users.name))
    hints = []
    for each in weighed:
        hint = (
            _missing(each, tables.columns[each.table], active, overrides)
            if each.missing
            else Hint(
                f"{each.table} has the columns of members, but {each.against[0]}; if it is meant",
                setting(overrides, MEMBER, table=each.table),
                serious=True,
            )
        )
        hints += [hint] if hint else []
    return sorted(hints, key=lambda hint: not hint.serious)


def _missing(
    weighed: Weighed,
    columns: Sequence[CatalogColumn],
    active: Mapping[str, str],
    overrides: Overrides,
) -> Hint | None:
    """Return the hint for a table that lacks a field, and is called as members are.

    One that is called otherwise is an invoice or a comment, unless a user is there once for each
    organization.
    """
    if not {Piece.NAME, Piece.REFERS} & weighed.speaks.keys():
        return None
    what = "is called as members are"
    if OTHERWISE in weighed.against:
        if Piece.UNIQUE not in weighed.speaks:
            return None
        what = "has each user once in an organization"
    found = {
        field: names[0]
        for field in weighed.missing
        if (names := near(field, columns, MEMBER, first=tuple(active)))
    }
    if set(MEMBER.needs) & set(weighed.missing) - found.keys():
        return None
    said = ", ".join(map(shown, found.values()))
    proof = [active[plain(name)] for name in found.values() if plain(name) in active]
    # A column that is named is evidence; what else is against the table takes its own name.
    named = len(found) < len(weighed.missing) or not REQUIRED.issuperset(weighed.against)
    return Hint(
        f"{weighed.table} {what}, but has no {', '.join(weighed.missing)}"
        + (f"; near it: {said}" if said else "")
        + (f" (sessions have {proof[0]})" if proof else ""),
        setting(overrides, MEMBER, table=weighed.table if named else None, columns=found),
        serious=bool(proof),
    )


def _active(tables: Tables, users: TableName) -> dict[str, str]:
    """Return what the sessions of these users call the active organization, by its plain name.

    `activeTenantId` says that what Better Auth calls an organization is a tenant here.
    """
    return {
        "".join(words(column.name)[1:]): shown(column.name)
        for piece, source, user in tables.sessions()
        if piece is Piece.SESSIONS and users in tables.targets(source, user)
        for column in tables.columns[source]
        if words(column.name)[:1] == (_ACTIVE,)
    }
