"""Cursors: where a page ended, as text that callers send back."""

# They are opaque to callers and no secret: a caller who may see a list may start anywhere in it.
# Each is bound to what it was given for, so that it is never taken for a place in another list.

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from hashlib import blake2s
from typing import Final, TypeVar

import msgspec

from responder.errors import InvalidRequestError
from responder.models import OrgList

BAD: Final = "cursor: not one that users.org_list gave"
BAD_MEMBERSHIPS: Final = "cursor: not one that users.memberships gave"


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The place of a membership in its organization's order."""

    organization_id: str
    created_at: str | None
    member_id: str


class RolePosition(msgspec.Struct, frozen=True, array_like=True, tag="roles"):
    """The place of a membership in its organization's order, on a walk to some roles."""

    organization_id: str
    roles: str
    created_at: str | None
    member_id: str


class MembershipPosition(msgspec.Struct, frozen=True, array_like=True, tag="user"):
    """The place of a membership among those of its user."""

    user_id: str
    created_at: str | None
    member_id: str


def encode_after(request: OrgList, created_at: str | None, member_id: str) -> str:
    """Write the cursor of the page that follows one, after a membership."""
    organization = request.organization_id
    if request.roles is None:
        return encode(Position(organization, created_at, member_id))
    roles = _digest(request.roles)
    return encode(RolePosition(organization, roles, created_at, member_id))


def _digest(roles: Iterable[str]) -> str:
    """Return what a cursor says of roles; their order and repetition mean nothing."""
    return blake2s(json.dumps(sorted(set(roles))).encode(), digest_size=8).hexdigest()


def encode(position: Position | RolePosition | MembershipPosition) -> str:
    """Write a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode(cursor: str, request: OrgList) -> Position | RolePosition:
    """Read the cursor of a request: of its organization and roles; raises InvalidRequestError."""
    position: Position | RolePosition
    if request.roles is None:
        position = _read(cursor, Position, BAD)
    else:
        position = _read(cursor, RolePosition, BAD)
        if position.roles != _digest(request.roles):
            raise InvalidRequestError("cursor: of other roles")
    if position.organization_id != request.organization_id:
        raise InvalidRequestError("cursor: of another organization")
    return position


def decode_memberships(cursor: str, user_id: str) -> MembershipPosition:
    """Read a cursor of that user; raises InvalidRequestError."""
    position = _read(cursor, MembershipPosition, BAD_MEMBERSHIPS)
    if position.user_id != user_id:
        raise InvalidRequestError("cursor: of another user")
    return position


_Place = TypeVar("_Place", Position, RolePosition, MembershipPosition)


def _read(cursor: str, form: type[_Place], refusal: str) -> _Place:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=form)
    except (
        UnicodeEncodeError,
        binascii.Error,
        msgspec.MsgspecError,
        UnicodeDecodeError,
        RecursionError,
    ):
        raise InvalidRequestError(refusal) from None
