"""Rows become replies that fit into a message."""

# Rows become bytes here, and stay bytes until they are on the wire.
#
# Images may be data URLs of up to a megabyte. A query that is shared brings along only small ones,
# and the row has the size of one that was left out. A user with a larger image is asked for again
# alone, a page for so many users as fit with their images, a list as a whole if all of its images
# fit: in place of the reply its writer then says what to ask for. So what a query can pull into
# memory is bounded by the size of one message, not of five hundred. An image that does not even fit
# alone is omitted, and counted: beside each reply stands how many images it lacks.
#
# The same holds of additional fields, which may be documents of any size: of a user, they are left
# out, asked for again and omitted as one. Where a record is too large the image is omitted first.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import add
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from responder import cursors, wire
from responder.errors import PayloadTooLargeError
from responder.models import ADDITIONAL, MAX_PAGE, Identity, OrgList
from responder.postgres.memberships import MembershipRow
from responder.postgres.pages import PageRow
from responder.postgres.users import FIELDS, UserRow

SMALL_IMAGE: Final = 8 * 1024  # bytes; what a shared query brings along of each
FRAME: Final = 1024  # bytes; what surrounds the users of a list, cursor included

# A reply, how many images it lacks, and of how many users the additional fields.
Written: TypeAlias = tuple[bytes, int, int]
Fields: TypeAlias = Sequence[object]  # of a User, in their order
Place = TypeVar("Place", Fields, Fields | None)  # None where there is no user

_IMAGE: Final = FIELDS.index("image")


class Row(Protocol):
    """A row of the database."""

    def __getitem__(self, at: Any, /) -> Any: ...


class Fewer(NamedTuple):
    """In place of a page: so many of what it lists fit into a message, with their images."""

    most: int


class WithAll(NamedTuple):
    """In place of a list: something has been left out that may fit, of so many bytes."""

    size: int
    alone: bool  # whether it is a list of one user, of whom not all has to fit


class Omitted:
    """Counts what replies lack.

    Attributes:
        images: how many.
        additional: of how many users the additional fields.
    """

    def __init__(self) -> None:
        self.images: int = 0
        self.additional: int = 0

    def count(self, reply: bytes, images: int, additional: int) -> bytes:
        """Return a reply, what it lacks counted."""
        self.images += images
        self.additional += additional
        return reply


def largest_image(users: int) -> int:
    """Return how large an image may be, in bytes, of so many users that share a query."""
    return min(SMALL_IMAGE, SMALL_IMAGE * MAX_PAGE // max(1, users))


def user(row: Row, limit: int, *, additional: bool) -> Written:
    """Write a User of at most `limit` bytes; raises PayloadTooLargeError.

    Args:
        row: of the lookup.
        limit: of its size.
        additional: whether the row has additional fields.
    """
    fields: Fields = row[UserRow.USER]
    image = more = 0
    if additional:
        fields, image, more = _with_additional(fields, row[UserRow.ADDITIONAL])
    if row[UserRow.IMAGE_SIZE] is not None:
        image = 1
    body = wire.encode_user(fields)
    if len(body) <= limit:
        return body, image, more
    body, image_lost, more_lost = _reduced(fields, limit)
    return body, image + image_lost, more + more_lost


def whoami(identity: Identity, written: bytes | None, limit: int) -> Written:
    """Write a WhoAmI of at most `limit` bytes, if leaving out what may be suffices for that."""
    body = wire.encode_whoami(identity, written)
    if written is None or len(body) <= limit:
        return body, 0, 0
    bare = wire.without_image(written)
    body = wire.encode_whoami(identity, bare)
    images = len(bare) < len(written)
    if len(body) <= limit:
        return body, images, 0
    barest = wire.without_additional(bare)
    return wire.encode_whoami(identity, barest), images, barest != bare


def page(
    row: Row, request: OrgList, wanted: int, limit: int, *, additional: bool
) -> Written | Fewer:
    """Write a UserPage of at most `limit` bytes; raises PayloadTooLargeError.

    Args:
        row: of a lookup for `wanted` users of the organization.
        request: to whose organization and roles the cursor is bound.
        wanted: how many users it has at most.
        limit: of its size.
        additional: whether the row has additional fields.
    """
    texts = row[PageRow.ADDITIONAL] or () if additional else ()
    left_out = row[PageRow.IMAGE_SIZE] or ()
    if any(sizes := _that_may_fit(left_out, texts, limit)):
        fitting = sum(total <= limit for total in accumulate(sizes))
        return Fewer(max(1, min(wanted, fitting)))
    found = _first_of_each(row)
    places = found[:wanted]
    images = sum(bool(size) for size, each in zip(left_out, places, strict=False) if each)
    more = 0
    if additional:
        places, lost, more = _all_with_additional(places, texts)
        images += lost
    body = wire.encode_users(each for each in places if each)
    if len(body) > limit - FRAME:
        written = _as_many_as_fit(places, limit - FRAME)
        if len(written) < len(places):
            return Fewer(len(written))
        body = wire.join_users(user for user, *_ in written if user)
        images += sum(lost for _, lost, _ in written)
        more += sum(lost for *_, lost in written)
    cursor = None
    created_at, member_id = row[PageRow.CREATED_AT], row[PageRow.MEMBER_ID]
    if len(found) > wanted or (request.roles is not None and member_id is not None):
        cursor = cursors.encode_after(request, created_at, member_id)
    reply = wire.encode_page(body, cursor)
    if len(reply) > limit:  # for a cursor of ids that are longer than a frame has room for
        raise PayloadTooLargeError("the page does not fit into one message")
    return reply, images, more


def membership_page(rows: Sequence[Row], user_id: str, wanted: int, limit: int) -> Written | Fewer:
    """Write a MembershipPage of at most `limit` bytes; raises PayloadTooLargeError.

    Args:
        rows: of a lookup for `wanted` memberships of the user.
        user_id: to which the cursor is bound.
        wanted: how many memberships it has at most.
        limit: of its size.
    """
    found = [row for row in rows if row[MembershipRow.ORGANIZATION_ID] is not None]
    written = wire.encode_memberships(row[MembershipRow.MEMBERSHIP] for row in found)
    fitting = sum(total <= limit - FRAME for total in accumulate(len(each) + 1 for each in written))
    if fitting < min(wanted, len(written)):
        if fitting == 0:
            raise PayloadTooLargeError("the membership does not fit into one message")
        return Fewer(fitting)
    cursor = None
    if len(written) > wanted:
        last = found[wanted - 1]
        place = last[MembershipRow.CREATED_AT], last[MembershipRow.MEMBER_ID]
        cursor = cursors.encode(cursors.MembershipPosition(user_id, *place))
    reply = wire.encode_membership_page(written[:wanted], cursor)
    if len(reply) > limit:  # as in `page`
        raise PayloadTooLargeError("the page does not fit into one message")
    return reply, 0, 0


def batch(
    rows: Sequence[Row], missing: Sequence[str], limit: int, *, additional: bool
) -> Written | WithAll:
    """Write a UserBatch of at most `limit` bytes; raises PayloadTooLargeError.

    Args:
        rows: of the users that are found.
        missing: the ids of the others.
        limit: of its size.
        additional: whether the rows have additional fields.
    """
    texts = [row[UserRow.ADDITIONAL] for row in rows] if additional else []
    left_out = [row[UserRow.IMAGE_SIZE] for row in rows]
    if size := sum(_that_may_fit(left_out, texts, limit - FRAME)):
        return WithAll(size, alone=len(rows) == 1)
    users: list[Fields] = [row[UserRow.USER] for row in rows]
    images, more = sum(map(bool, left_out)), 0
    if additional:
        users, lost, more = _all_with_additional(users, texts)
        images += lost
    body = wire.encode_users(users)
    if len(body) > limit - FRAME:
        written = [_user(each, limit - FRAME) for each in users]
        body = wire.join_users(user for user, *_ in written)
        images += sum(lost for _, lost, _ in written)
        more += sum(lost for *_, lost in written)
    return wire.encode_batch(body, missing, limit=limit), images, more


def lacks(row: Row, *, additional: bool) -> bool:
    """Tell whether something was left out of the row of a user, which has to be asked for alone."""
    if row[UserRow.IMAGE_SIZE] is not None:
        return True
    return additional and over_cap(row[UserRow.ADDITIONAL]) > 0


def over_cap(additional: str) -> int:
    """Return the size of additional fields that were left out, 0 if they are there."""
    return 0 if additional.startswith("{") else int(additional)


def _are_there(texts: Iterable[str]) -> bool:
    """Tell whether no additional fields were left out: of a page, more cheaply than one by one."""
    return all(text[0] == "{" for text in texts)


def _with_additional(fields: Fields, text: str) -> tuple[Fields, int, int]:
    """Return the fields of a user with the additional ones, and what is omitted.

    Where those do not even fit alone, the image is omitted as well: it goes first.
    """
    if not over_cap(text):
        return _joined(fields, text), 0, 0
    image = int(fields[_IMAGE] is not None)
    return (*fields[:_IMAGE], None, *fields[_IMAGE + 1 :], None), image, 1


def _joined(fields: Fields, text: str) -> Fields:
    return (*fields, wire.additional(text))


def _all_with_additional(
    users: Sequence[Place], texts: Sequence[str]
) -> tuple[list[Place], int, int]:
    """Return the same of several users, some of whom may be none."""
    if _are_there(texts):
        there = [
            _joined(fields, text) if fields else fields
            for fields, text in zip(users, texts, strict=False)
        ]
        return there, 0, 0
    whole = [
        _with_additional(fields, text) if fields else (fields, 0, 0)
        for fields, text in zip(users, texts, strict=False)
    ]
    images, more = sum(image for _, image, _ in whole), sum(each for *_, each in whole)
    return [fields for fields, *_ in whole], images, more


def _user(fields: Fields, limit: int) -> Written:
    body = wire.encode_user(fields)
    return (body, 0, 0) if len(body) <= limit else _reduced(fields, limit)


def _reduced(fields: Fields, limit: int) -> Written:
    """Write a user without what makes the record too large."""
    image = int(fields[_IMAGE] is not None)
    body = wire.encode_user_without(fields, "image")
    if len(body) <= limit:
        return body, image, 0
    if len(fields) > len(FIELDS):
        body = wire.encode_user_without(fields, "image", ADDITIONAL)
    if len(body) > limit:
        raise PayloadTooLargeError("the record does not fit into one message")
    return body, image, 1


def _as_many_as_fit(places: Sequence[Fields | None], limit: int) -> list[Written]:
    """Write users one by one, as many as fit but at least one; b"" for a place that is empty."""
    users: list[Written] = []
    size = 0
    for fields in places:
        try:
            written = _user(fields, limit) if fields else (b"", 0, 0)
        except PayloadTooLargeError:
            if users:
                break
            raise
        size += len(written[0]) + 1
        if users and size > limit:
            break
        users.append(written)
    return users


def _first_of_each(row: Row) -> list[Fields | None]:
    """Return the users of a page; None for one that is gone, or another membership of the same."""
    if row[PageRow.USER_ID] is None:
        return []
    seen: set[object] = {None}
    places: list[Fields | None] = []
    for fields in zip(*row[PageRow.USER], strict=True):
        places.append(None if fields[0] in seen else fields)
        seen.add(fields[0])
    return places


def _that_may_fit(images: Iterable[int | None], texts: Sequence[str], limit: int) -> list[int]:
    """Return of each user the size of what was left out, but for what fits into no message."""
    sizes = [size if size and size <= limit else 0 for size in images]
    if _are_there(texts):
        return sizes
    more = [size if size <= limit else 0 for size in map(over_cap, texts)]
    return list(map(add, sizes, more))
