"""The lookups themselves, whoever asks and however."""

# Rows become bytes here, once, and stay bytes until they are on the wire.
#
# Who asks on behalf of a user sees what that user may see (see `queries`). Their requests wait in lines of
# their own, so that those of services cost no more for it.
#
# Images may be data URLs of up to a megabyte. A batch brings along only small ones; a user with a
# larger one is asked for again alone, a page or a list of ids again as a whole when it is known how
# many of them fit into a message. So what a query can pull into memory is bounded by the size of one
# message, not of five hundred. The pages or lists that share a query share that, too.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from responder import wire
from responder.batching import ALONE, CROWD, Alone, Answer, Callback, Line
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
    UnavailableError,
)
from responder.models import MAX_PAGE, ByEmail, ById, ByIds, Myself, OrgList
from responder.postgres.connection import Connection, Record, ValueRefusedError
from responder.postgres.lookups import Lookups, Statements
from responder.postgres.pages import PageAsked, PageRow
from responder.postgres.pool import Pool
from responder.postgres.users import UserRow, Users
from responder.postgres.visibility import Caller

SMALL_IMAGE: Final = 8 * 1024  # bytes; what a batch brings along of each
FRAME: Final = 1024  # bytes; what surrounds the users of a list, cursor included
FEW: Final = 8  # pages, or lists, that may share a query
APART: Final = 10.0  # seconds for which they do not, after one was too slow: no index, perhaps

_NOT_FOUND: Final = NotFoundError("no such user")
_NO_ORGANIZATION: Final = NotFoundError("no such organization")
_FORBIDDEN: Final = ForbiddenError("the caller is banned, or exists no more")


class _Page(NamedTuple):
    request: OrgList
    position: wire.Position | None  # after which it starts, if it is not the first


# What is asked, and on whose behalf; the request is of the kind that the line is for.
_Asked: TypeAlias = tuple[Any, Caller | None]
# Of each distinct id what is looked up, where None matches nothing, and how it was spelled.
_Ids: TypeAlias = Sequence[tuple[str | None, str]]
_User: TypeAlias = Sequence[object]  # the values of its fields
_Fetch: TypeAlias = Callable[[Connection, Sequence[_Asked]], Awaitable[Sequence[Answer | Alone]]]
_Lines: TypeAlias = tuple[Line[_Asked, Connection], Line[_Asked, Connection]]


class Directory:
    """Answers lookups from the database.

    Args:
        max_reply: returns the largest reply that can be sent now, in bytes.
        max_batch: how many keys may share a query.
    """

    def __init__(self, pool: Pool, *, max_reply: Callable[[], int], max_batch: int) -> None:
        self.images_omitted = 0
        self._pool = pool
        self._max_reply = max_reply
        self._users = self._lines(self._fetch_users, max_batch=max_batch)
        self._emails = self._lines(self._fetch_emails, max_batch=max_batch)
        few = min(FEW, max_batch)
        self._first_pages, self._pages, self._last_pages = (
            self._lines(self._fetch_pages, max_batch=few, crowd=1, apart=APART) for _ in range(3)
        )
        self._lists = self._lines(self._fetch_lists, max_batch=few, crowd=1, apart=APART)

    def get(self, key: ById, caller: Caller | None, *, deadline: float, callback: Callback) -> None:
        """Load a user by id: a User, or NotFoundError."""
        self._load(self._users, key, caller, deadline, callback)

    def whoami(
        self, key: Myself, caller: Caller | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load the caller: a User, or NotFoundError."""
        self._load(self._users, key, caller, deadline, callback)

    def by_email(
        self, key: ByEmail, caller: Caller | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load a user by email: a User, or NotFoundError."""
        self._load(self._emails, key, caller, deadline, callback)

    def org_list(
        self, key: OrgList, caller: Caller | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load members of an organization: a UserPage; raises InvalidRequestError for a cursor."""
        lines, position = self._first_pages, None
        if key.cursor is not None:
            position = wire.decode_cursor(key.cursor, key.organization_id)
            lines = self._last_pages if position.created_at is None else self._pages
        self._load(lines, _Page(key, position), caller, deadline, callback)

    def get_many(
        self, key: ByIds, caller: Caller | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load users by their ids: a UserBatch, or PayloadTooLargeError."""
        self._load(self._lists, key, caller, deadline, callback)

    def _lines(
        self, fetch: _Fetch, *, max_batch: int, crowd: int = CROWD, apart: float = 0.0
    ) -> _Lines:
        lines = (
            Line[_Asked, Connection](fetch, max_batch=max_batch, crowd=crowd, apart=apart),
            Line[_Asked, Connection](fetch, max_batch=max_batch, crowd=crowd, apart=apart),
        )
        for line in lines:
            self._pool.batching.add(line)
        return lines

    def _load(
        self, lines: _Lines, key: Any, caller: Caller | None, deadline: float, callback: Callback
    ) -> None:
        line = lines[caller is not None]
        self._pool.load(line, (key, caller), deadline=deadline, callback=callback)

    async def _fetch_users(
        self, connection: Connection, asked: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        by_id = _lookups(self._pool.statements, asked).by_id
        keys = [
            by_id.key(caller.user_id if caller and isinstance(request, Myself) else request.id)
            for request, caller in asked
        ]
        return await self._fetch(connection, by_id, keys, asked)

    async def _fetch_emails(
        self, connection: Connection, asked: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        by_email = _lookups(self._pool.statements, asked).by_email
        keys = [by_email.key(request.email) for request, _ in asked]
        return await self._fetch(connection, by_email, keys, asked)

    async def _fetch(
        self,
        connection: Connection,
        lookup: Users,
        keys: Sequence[str | None],
        asked: Sequence[_Asked],
    ) -> Sequence[Answer | Alone]:
        """Look keys up. A key that is None matches nothing."""
        limit = self._max_reply()
        alone = len(keys) == 1
        cap = limit if alone else SMALL_IMAGE
        rows = await self._look_up(connection, lookup, keys, asked, cap)
        answers: list[Answer | Alone] = [_NOT_FOUND] * len(keys)
        for row in rows:
            at = row[UserRow.ORDINAL] - 1
            request, caller = asked[at]
            if caller and not row[UserRow.ALLOWED] and not isinstance(request, Myself):
                answers[at] = _FORBIDDEN
            elif row[UserRow.USER_ID] is None:
                continue
            elif row[UserRow.IMAGE_SIZE] is not None and not alone:
                answers[at] = ALONE
            else:
                self.images_omitted += row[UserRow.IMAGE_SIZE] is not None
                answers[at] = self._write(row[UserRow.USER], limit)
        return answers

    async def _look_up(
        self,
        connection: Connection,
        lookup: Users,
        keys: Sequence[str | None],
        asked: Sequence[_Asked],
        cap: int,
    ) -> list[Record]:
        """Look up a key for each request."""
        organizations = [request.organization_id for request, _ in asked]
        callers = [caller for _, caller in asked if caller]
        sql, arguments = lookup.asked(keys, organizations, callers, cap=cap)
        return await connection.fetch_checked(self._pool.statements, sql, *arguments)

    async def _fetch_pages(
        self, connection: Connection, asked: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        limit = self._max_reply()
        wanted = [page.request.limit for page, _ in asked]
        rows = await self._look_up_pages(connection, asked, wanted, _cap(sum(wanted)))
        answers = [
            self._write_page(row, one, most, limit)
            for row, one, most in zip(rows, asked, wanted, strict=True)
        ]
        if len(asked) > 1:
            return [ALONE if isinstance(each, int) else each for each in answers]
        (answer,) = answers
        while isinstance(answer, int):
            (row,) = await self._look_up_pages(connection, asked, [answer], limit)
            answer = self._write_page(row, asked[0], answer, limit)
        return [answer]

    async def _look_up_pages(
        self,
        connection: Connection,
        asked: Sequence[_Asked],
        wanted: Sequence[int],
        cap: int,
    ) -> list[Record]:
        """Look pages up, in the order asked for."""
        statements = self._pool.statements
        pages = _lookups(statements, asked).pages
        if pages is None:
            raise UnavailableError("there is no member table in this database")
        query = pages.asked(
            [
                PageAsked(
                    request.organization_id,
                    most,
                    caller,
                    position and position.created_at,
                    position and position.member_id,
                )
                for ((request, position), caller), most in zip(asked, wanted, strict=True)
            ],
            cap=cap,
        )
        if query is None:  # these tables have no such position
            raise InvalidRequestError(wire.BAD_CURSOR)
        sql, arguments = query
        try:
            rows = await connection.fetch_checked(statements, sql, *arguments)
        except ValueRefusedError:
            if len(asked) > 1 or asked[0][0].position is None:
                raise
            raise InvalidRequestError(wire.BAD_CURSOR) from None
        return sorted(rows, key=itemgetter(PageRow.ORDINAL))

    def _write_page(self, row: Record, asked: _Asked, wanted: int, limit: int) -> Answer | int:
        """Write a page; or return how many users to ask for instead, so that they fit with their images."""
        (request, _), caller = asked
        if caller and not (row[UserRow.ALLOWED] and row[PageRow.LISTED]):
            return _NO_ORGANIZATION if row[UserRow.ALLOWED] else _FORBIDDEN
        left_out = row[UserRow.IMAGE_SIZE] or ()
        if any(sizes := _fitting(left_out, limit)):
            return max(1, min(wanted, sum(total <= limit for total in accumulate(sizes))))
        every = _first_of_each(row)
        places = every[:wanted]
        omitted = sum(bool(size) for size, user in zip(left_out, places, strict=False) if user)
        body = wire.encode_users(user for user in places if user)
        if len(body) > limit - FRAME:
            written = self._write_what_fits(places, limit - FRAME)
            if isinstance(written, ResponderError):
                return written
            if len(written) < len(places):
                return len(written)
            body = wire.join_users(filter(None, written))
        self.images_omitted += omitted
        cursor = None
        if len(every) > wanted:
            position = wire.Position(
                request.organization_id, row[PageRow.CREATED_AT], row[PageRow.MEMBER_ID]
            )
            cursor = wire.encode_cursor(position)
        page = wire.encode_page(body, cursor)
        if len(page) > limit:  # for a cursor of ids that are longer than a frame has room for
            return PayloadTooLargeError("the page does not fit into one message")
        return page

    async def _fetch_lists(
        self, connection: Connection, asked: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        limit = self._max_reply()
        lists = [self._distinct(request.ids) for request, _ in asked]
        cap = _cap(sum(map(len, lists)))
        rows = await self._look_up_lists(connection, asked, lists, cap)
        answers = self._write_lists(rows, asked, lists, limit)
        if answers == [ALONE]:
            if sum(_fitting((row[UserRow.IMAGE_SIZE] for row in rows), limit - FRAME)) > limit:
                return [PayloadTooLargeError(wire.TOO_MANY_IDS)]
            rows = await self._look_up_lists(connection, asked, lists, limit)
            answers = self._write_lists(rows, asked, lists, limit)
        return answers

    def _distinct(self, ids: Sequence[str]) -> _Ids:
        canonical = self._pool.statements.services.by_id.key
        keys: dict[str, tuple[str | None, str]] = {}
        for each in ids:
            key = canonical(each)
            keys.setdefault(key or each, (key, each))
        return list(keys.values())

    async def _look_up_lists(
        self, connection: Connection, asked: Sequence[_Asked], lists: Sequence[_Ids], cap: int
    ) -> list[Record]:
        of_each = [one for one, ids in zip(asked, lists, strict=True) for _ in ids]
        keys = [key for ids in lists for key, _ in ids]
        by_id = _lookups(self._pool.statements, asked).by_id
        return await self._look_up(connection, by_id, keys, of_each, cap)

    def _write_lists(
        self, rows: Sequence[Record], asked: Sequence[_Asked], lists: Sequence[_Ids], limit: int
    ) -> list[Answer | Alone]:
        found = {row[UserRow.ORDINAL]: row for row in rows if row[UserRow.USER_ID] is not None}
        forbidden = {
            row[UserRow.ORDINAL] for row in rows if asked[0][1] and not row[UserRow.ALLOWED]
        }
        answers: list[Answer | Alone] = []
        first = 1
        for ids in lists:
            numbers = range(first, first + len(ids))
            first = numbers.stop
            if numbers.start in forbidden:
                answers.append(_FORBIDDEN)
                continue
            missing = [id_ for n, (_, id_) in zip(numbers, ids, strict=True) if n not in found]
            answers.append(
                self._write_list([found[n] for n in numbers if n in found], missing, limit)
            )
        return answers

    def _write_list(
        self, rows: Sequence[Record], missing: Sequence[str], limit: int
    ) -> Answer | Alone:
        """Write a list; ALONE where images have been left out that may fit."""
        left_out = [row[UserRow.IMAGE_SIZE] for row in rows]
        if any(_fitting(left_out, limit - FRAME)):
            return ALONE
        self.images_omitted += sum(map(bool, left_out))
        users = [row[UserRow.USER] for row in rows]
        body = wire.encode_users(users)
        try:
            if len(body) > limit - FRAME:
                body = wire.join_users(_value(self._write(user, limit - FRAME)) for user in users)
            return wire.encode_batch(body, missing, limit=limit)
        except PayloadTooLargeError as error:
            return error

    def _write(self, user: _User, limit: int) -> Answer:
        body = wire.encode_user(user)
        if len(body) <= limit:
            return body
        body = wire.encode_user_without_image(user)
        if len(body) > limit:
            return PayloadTooLargeError("the record does not fit into one message")
        self.images_omitted += 1
        return body

    def _write_what_fits(
        self, places: Sequence[_User | None], limit: int
    ) -> list[bytes] | ResponderError:
        """Write users one by one, as many as fit but at least one; nothing for a place that is empty."""
        users: list[bytes] = []
        size = 0
        omitted_before = self.images_omitted
        for user in places:
            answer = self._write(user, limit) if user else b""
            size += limit if isinstance(answer, ResponderError) else len(answer) + 1
            if users and size > limit:
                self.images_omitted = omitted_before  # all of this will be written anew
                break
            if isinstance(answer, ResponderError):
                return answer
            users.append(answer)
        return users


def _value(answer: Answer) -> bytes:
    if isinstance(answer, ResponderError):
        raise answer
    return answer


def _first_of_each(row: Record) -> list[_User | None]:
    """The users of a page, but None for one that is gone, and for another membership of the same."""
    if row[UserRow.USER_ID] is None:
        return []
    listed: set[object] = {None}
    places: list[_User | None] = []
    for user in zip(*row[UserRow.USER], strict=True):
        places.append(None if user[0] in listed else user)
        listed.add(user[0])
    return places


def _lookups(statements: Statements, keys: Sequence[_Asked]) -> Lookups:
    """The SQL for those in a batch, who are all services or all callers."""
    return statements.services if keys[0][1] is None else statements.callers


def _cap(users: int) -> int:
    """How large an image may be, in bytes, of so many users that share a query."""
    return min(SMALL_IMAGE, SMALL_IMAGE * MAX_PAGE // max(1, users))


def _fitting(left_out: Iterable[int | None], limit: int) -> list[int]:
    """What images that were left out add to a reply: nothing where they are over its limit."""
    return [size if size and size <= limit else 0 for size in left_out]
