"""Rows become replies that fit into a message."""

# Rows become bytes here, and stay bytes until they are on the wire.
#
# Images may be data URLs of up to a megabyte. A query that is shared brings along only small ones,
# and the row has the size of one that was left out. A user with a larger image is asked for again
# alone, a page for so many users as fit with their images, a list as a whole if all of its images
# fit: in place of the reply its writer then says what to ask for. So what a query can pull into
# memory is bounded by the size of one message, not of five hundred. An image that does not even fit
# alone is omitted, and counted: beside each reply stands how many images it lacks.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from responder import wire
from responder.errors import PayloadTooLargeError
from responder.models import MAX_PAGE, Identity
from responder.postgres.pages import PageRow
from responder.postgres.users import UserRow

SMALL_IMAGE: Final = 8 * 1024  # bytes; what a shared query brings along of each
FRAME: Final = 1024  # bytes; what surrounds the users of a list, cursor included

# A reply, and how many images it lacks.
Written: TypeAlias = tuple[bytes, int]
Fields: TypeAlias = Sequence[object]  # of a User, in their order


class Row(Protocol):
    """A row of the database."""

    def __getitem__(self, at: Any, /) -> Any: ...


class Fewer(NamedTuple):
    """In place of a page: so many users fit into a message with their images."""

    users: int


class WithImages(NamedTuple):
    """In place of a list: images have been left out that may fit; so many bytes are theirs."""

    size: int


def largest_image(users: int) -> int:
    """Return how large an image may be, in bytes, of so many users that share a query."""
    return min(SMALL_IMAGE, SMALL_IMAGE * MAX_PAGE // max(1, users))


def user(row: Row, limit: int) -> Written:
    """Write a User of at most `limit` bytes; raises PayloadTooLargeError."""
    fields, left_out = row[UserRow.USER], row[UserRow.IMAGE_SIZE]
    body = wire.encode_user(fields)
    if len(body) <= limit:
        return body, left_out is not None
    return _without_image(fields, limit)


def whoami(identity: Identity, written: bytes | None, limit: int) -> Written:
    """Write a WhoAmI of at most `limit` bytes, if leaving the image out suffices for that."""
    body = wire.encode_whoami(identity, written)
    if written is None or len(body) <= limit:
        return body, 0
    return wire.encode_whoami(identity, wire.without_image(written)), 1


def page(row: Row, organization_id: str, wanted: int, limit: int) -> Written | Fewer:
    """Write a UserPage of at most `limit` bytes; raises PayloadTooLargeError.

    Args:
        row: of a lookup for `wanted` users of the organization.
        organization_id: to which the cursor is bound.
        wanted: how many users it has at most.
        limit: of its size.
    """
    left_out = row[PageRow.IMAGE_SIZE] or ()
    if any(sizes := _that_may_fit(left_out, limit)):
        fitting = sum(total <= limit for total in accumulate(sizes))
        return Fewer(max(1, min(wanted, fitting)))
    found = _first_of_each(row)
    places = found[:wanted]
    omitted = sum(bool(size) for size, each in zip(left_out, places, strict=False) if each)
    body = wire.encode_users(each for each in places if each)
    if len(body) > limit - FRAME:
        written, more = _as_many_as_fit(places, limit - FRAME)
        if len(written) < len(places):
            return Fewer(len(written))
        body, omitted = wire.join_users(filter(None, written)), omitted + more
    cursor = None
    if len(found) > wanted:
        position = wire.Position(organization_id, row[PageRow.CREATED_AT], row[PageRow.MEMBER_ID])
        cursor = wire.encode_cursor(position)
    reply = wire.encode_page(body, cursor)
    if len(reply) > limit:  # for a cursor of ids that are longer than a frame has room for
        raise PayloadTooLargeError("the page does not fit into one message")
    return reply, omitted


def batch(rows: Sequence[Row], missing: Sequence[str], limit: int) -> Written | WithImages:
    """Write a UserBatch of at most `limit` bytes; raises PayloadTooLargeError."""
    left_out = [row[UserRow.IMAGE_SIZE] for row in rows]
    if size := sum(_that_may_fit(left_out, limit - FRAME)):
        return WithImages(size)
    users = [row[UserRow.USER] for row in rows]
    body, omitted = wire.encode_users(users), sum(map(bool, left_out))
    if len(body) > limit - FRAME:
        written = [_user(each, limit - FRAME) for each in users]
        body = wire.join_users(each for each, _ in written)
        omitted += sum(more for _, more in written)
    return wire.encode_batch(body, missing, limit=limit), omitted


def _user(fields: Fields, limit: int) -> Written:
    body = wire.encode_user(fields)
    return (body, 0) if len(body) <= limit else _without_image(fields, limit)


def _without_image(fields: Fields, limit: int) -> Written:
    body = wire.encode_user_without_image(fields)
    if len(body) > limit:
        raise PayloadTooLargeError("the record does not fit into one message")
    return body, 1


def _as_many_as_fit(places: Sequence[Fields | None], limit: int) -> tuple[list[bytes], int]:
    """Write users one by one, as many as fit but at least one; b"" for a place that is empty."""
    users: list[bytes] = []
    size = omitted = 0
    for fields in places:
        try:
            body, more = _user(fields, limit) if fields else (b"", 0)
        except PayloadTooLargeError:
            if users:
                break
            raise
        size += len(body) + 1
        if users and size > limit:
            break
        users.append(body)
        omitted += more
    return users, omitted


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


def _that_may_fit(left_out: Iterable[int | None], limit: int) -> list[int]:
    """Return the sizes of images that were left out; 0 for those that fit into no message."""
    return [size if size and size <= limit else 0 for size in left_out]
