"""The lookups themselves, whoever asks and however."""

# Rows become bytes here, once, and stay bytes until they are on the wire.
#
# Who asks on behalf of a user sees what that user may see (see `queries`). Their requests wait in lines of
# their own, so that those of services cost no more for it.
#
# Images may be data URLs of up to a megabyte. A batch brings along only small ones; a user with a
# larger one is asked for again alone, a page or a list of ids again as a whole when it is known how
# many of them fit into a message. So what a query can pull into memory is bounded by the size of one
# message, not of five hundred.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeAlias

from responder import wire
from responder.batching import ALONE, Alone, Answer, Done, Lookup
from responder.database import Database
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
    UnavailableError,
)
from responder.queries import (
    ALLOWED,
    CREATED_AT,
    IMAGE_SIZE,
    LISTED,
    MEMBER_ID,
    ORDINAL,
    USER,
    USER_ID,
    Lookups,
    Pages,
    Statements,
    text,
)
from responder.session import Record, Session, ValueRefusedError

SMALL_IMAGE: Final = 8 * 1024  # bytes; what a batch brings along
FRAME: Final = 1024  # bytes; what surrounds the users of a list, cursor included

_NOT_FOUND: Final = NotFoundError("no such user")


class Caller(NamedTuple):
    """On whose behalf somebody asks, and the organization that their token names."""

    user_id: str
    organization_id: str | None


# What is asked, and on whose behalf; the request is of the kind that the line is for.
_Asked: TypeAlias = tuple[Any, Caller | None]
_Fetch: TypeAlias = Callable[[Session, Sequence[_Asked]], Awaitable[Sequence[Answer | Alone]]]
_Lines: TypeAlias = tuple[Lookup[_Asked, Session], Lookup[_Asked, Session]]


class Directory:
    """Answers lookups from the database.

    Args:
        max_reply: returns the largest reply that can be sent now, in bytes.
        max_batch: how many keys may share a query.
    """

    def __init__(self, database: Database, *, max_reply: Callable[[], int], max_batch: int) -> None:
        self.images_omitted = 0
        self._database = database
        self._max_reply = max_reply
        self._users = self._lines(self._fetch_users, max_batch=max_batch)
        self._emails = self._lines(self._fetch_emails, max_batch=max_batch)
        self._pages = self._lines(self._fetch_page, max_batch=1)
        self._lists = self._lines(self._fetch_list, max_batch=1)

    def load_user(
        self, key: wire.ById | wire.WhoAmI, caller: Caller | None, *, deadline: float, done: Done
    ) -> None:
        """Load a user by id, or the caller: a User, or NotFoundError."""
        self._load(self._users, key, caller, deadline, done)

    def load_email(
        self, key: wire.ByEmail, caller: Caller | None, *, deadline: float, done: Done
    ) -> None:
        """Load a user by email: a User, or NotFoundError."""
        self._load(self._emails, key, caller, deadline, done)

    def load_page(
        self, key: wire.OrgList, caller: Caller | None, *, deadline: float, done: Done
    ) -> None:
        """Load members of an organization: a UserPage; raises InvalidRequestError for a cursor."""
        if key.cursor is not None:
            wire.decode_cursor(key.cursor, key.organization_id)
        self._load(self._pages, key, caller, deadline, done)

    def load_list(
        self, key: wire.ByIds, caller: Caller | None, *, deadline: float, done: Done
    ) -> None:
        """Load users by their ids: a UserBatch, or PayloadTooLargeError."""
        self._load(self._lists, key, caller, deadline, done)

    def _lines(self, fetch: _Fetch, *, max_batch: int) -> _Lines:
        lines = (
            Lookup[_Asked, Session](fetch, max_batch=max_batch),
            Lookup[_Asked, Session](fetch, max_batch=max_batch),
        )
        for line in lines:
            self._database.batching.add(line)
        return lines

    def _load(
        self, lines: _Lines, key: Any, caller: Caller | None, deadline: float, done: Done
    ) -> None:
        line = lines[caller is not None]
        self._database.load(line, (key, caller), deadline=deadline, done=done)

    async def _fetch_users(
        self, session: Session, keys: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        statements = self._database.statements
        lookups = _lookups(statements, keys)
        ids = [
            statements.user_id(
                caller.user_id if caller and isinstance(key, wire.WhoAmI) else key.id
            )
            for key, caller in keys
        ]
        return await self._fetch(session, lookups.by_id, lookups.by_ids, ids, keys)

    async def _fetch_emails(
        self, session: Session, keys: Sequence[_Asked]
    ) -> Sequence[Answer | Alone]:
        lookups = _lookups(self._database.statements, keys)
        emails = [text(key.email.lower()) for key, _ in keys]
        return await self._fetch(session, lookups.by_email, lookups.by_emails, emails, keys)

    async def _fetch(
        self,
        session: Session,
        by_one: str,
        by_many: str,
        keys: Sequence[str | None],
        asked: Sequence[_Asked],
    ) -> Sequence[Answer | Alone]:
        """Look keys up, a lone one by a statement of its own. A key that is None matches nothing."""
        statements = self._database.statements
        limit = self._max_reply()
        organizations = [key.organization_id for key, _ in asked]
        named = [each is not None for each in organizations]
        possible = self._possible(organizations)
        callers = [caller for _, caller in asked if caller]
        if len(keys) == 1:
            cap = limit
            who = [each for caller in callers for each in self._caller(caller)]
            rows = await session.look_up(
                statements, by_one, keys[0], possible[0], cap, named[0], *who
            )
        else:
            cap = SMALL_IMAGE
            if not any(named):  # unnest fills the shorter arrays up with nulls
                possible, named = [], []
            rows = await session.look_up(
                statements, by_many, keys, possible, cap, named, *self._callers(callers)
            )
        answers: list[Answer | Alone] = [_NOT_FOUND] * len(keys)
        for row in rows:
            at = row[ORDINAL] - 1
            size = row[IMAGE_SIZE]
            if callers and not row[ALLOWED] and not isinstance(asked[at][0], wire.WhoAmI):
                answers[at] = _forbidden()
            elif row[USER_ID] is None:
                continue
            elif size is not None and size > cap and len(keys) > 1:
                answers[at] = ALONE
            else:
                answers[at] = self._write(row, limit)
        return answers

    def _caller(self, caller: Caller) -> tuple[str | None, str | None]:
        """A caller as the arguments of a lookup; None for what cannot be an id."""
        statements = self._database.statements
        organization_id = caller.organization_id
        home = None if organization_id is None else statements.organization_id(organization_id)
        return statements.user_id(caller.user_id), home

    def _callers(self, callers: Sequence[Caller]) -> Sequence[Sequence[object]]:
        """The callers of a batch as its last arguments: each once, and which one is whose."""
        if not callers:
            return ()
        numbers: dict[Caller, int] = {}
        of_each = [numbers.setdefault(caller, len(numbers) + 1) for caller in callers]
        users, homes = zip(*map(self._caller, numbers), strict=True)
        return users, homes, of_each

    async def _fetch_page(self, session: Session, keys: Sequence[_Asked]) -> Sequence[Answer]:
        ((request, caller),) = keys
        statements = self._database.statements
        pages = _lookups(statements, keys).pages
        if pages is None:
            raise UnavailableError("there is no member table in this database")
        organization = statements.organization_id(request.organization_id)
        if organization is None and caller is None:
            return [wire.encode_page(wire.join_users(()), None)]
        sql, start = _start(pages, request)
        if caller is not None:
            start = [self._caller(caller)[0], *start]

        async def look_up(limit: int, cap: int) -> list[Record]:
            rows = await session.look_up(statements, sql, organization, limit, cap, *start)
            return rows if caller is None else _permitted(rows)

        limit = self._max_reply()
        wanted = request.limit
        try:
            rows = await look_up(wanted + 1, SMALL_IMAGE)
        except ValueRefusedError:
            if request.cursor is None:
                raise
            raise InvalidRequestError(wire.BAD_CURSOR) from None
        sizes = [_image_size(row, limit) for row in rows]
        if max(sizes, default=0) > SMALL_IMAGE:
            wanted = max(1, min(wanted, sum(total <= limit for total in accumulate(sizes))))
            rows = await look_up(wanted + 1, limit)
        return [self._write_page(request.organization_id, rows, wanted, limit)]

    async def _fetch_list(self, session: Session, keys: Sequence[_Asked]) -> Sequence[Answer]:
        ((request, caller),) = keys
        statements = self._database.statements
        limit = self._max_reply()
        asked: dict[str, tuple[str | None, str]] = {}  # what is looked up, and how it was spelled
        for each in request.ids:
            canonical = statements.user_id(each)
            asked.setdefault(canonical or each, (canonical, each))
        ids = [canonical for canonical, _ in asked.values()]
        organization = self._possible([request.organization_id]) * len(ids)
        named = [request.organization_id is not None] * len(ids)
        sql = _lookups(statements, keys).by_ids
        who = self._callers([caller] * len(ids) if caller else ())
        rows = await session.look_up(statements, sql, ids, organization, SMALL_IMAGE, named, *who)
        sizes = [_image_size(row, limit - FRAME) for row in rows]
        if sum(sizes) > limit:
            raise PayloadTooLargeError(wire.TOO_MANY_IDS)
        if max(sizes, default=0) > SMALL_IMAGE:
            rows = await session.look_up(statements, sql, ids, organization, limit, named, *who)
        if caller and not rows[0][ALLOWED]:
            raise _forbidden()
        users = {row[ORDINAL]: row for row in rows if row[USER_ID] is not None}
        found = [users[at] for at in sorted(users)]
        body = self._write_users(found, limit - FRAME)
        if body is None:
            body = wire.join_users(_value(self._write(row, limit - FRAME)) for row in found)
        spellings = enumerate((each for _, each in asked.values()), start=1)
        missing = [each for at, each in spellings if at not in users]
        return [wire.encode_batch(body, missing, limit=limit)]

    def _possible(self, organizations: Sequence[str | None]) -> list[str | None]:
        canonical = self._database.statements.organization_id
        return [each if each is None else canonical(each) for each in organizations]

    def _write(self, row: Record, limit: int) -> Answer:
        body = wire.encode_user(row[USER])
        if len(body) <= limit:
            size = row[IMAGE_SIZE]
            if size is not None and size > limit:  # the query has left it out
                self.images_omitted += 1
            return body
        body = wire.encode_user_without_image(row[USER])
        if len(body) > limit:
            return PayloadTooLargeError("the record does not fit into one message")
        self.images_omitted += 1
        return body

    def _write_users(self, rows: Sequence[Record], limit: int) -> bytes | None:
        """Write a list of users at once; None where something may have to be left out."""
        if any((row[IMAGE_SIZE] or 0) > SMALL_IMAGE for row in rows):
            return None
        body = wire.encode_users(row[USER] for row in rows)
        return body if len(body) <= limit else None

    def _write_page(
        self, organization_id: str, rows: Sequence[Record], wanted: int, limit: int
    ) -> Answer:
        """Write as many of the users wanted as fit, and where the next page starts."""
        places = _first_of_each(rows[:wanted])
        end = len(places)
        body = self._write_users([row for row in places if row], limit - FRAME)
        if body is None:
            written = self._write_what_fits(places, limit - FRAME)
            if isinstance(written, ResponderError):
                return written
            end = len(written)
            body = wire.join_users(filter(None, written))
        cursor = None
        if end < len(rows):
            last = rows[end - 1]
            position = wire.Position(organization_id, last[CREATED_AT], last[MEMBER_ID])
            cursor = wire.encode_cursor(position)
        page = wire.encode_page(body, cursor)
        if len(page) > limit:  # for a cursor of ids that are longer than a frame has room for
            return PayloadTooLargeError("the page does not fit into one message")
        return page

    def _write_what_fits(
        self, places: Sequence[Record | None], limit: int
    ) -> list[bytes] | ResponderError:
        """Write users one by one, as many as fit but at least one; nothing for a place that is empty."""
        users: list[bytes] = []
        for row in places:
            answer = self._write(row, limit) if row else b""
            if isinstance(answer, ResponderError):
                if not users:
                    return answer
                break
            users.append(answer)
        size = sum(map(len, users)) + len(users)
        while size > limit and len(users) > 1:
            size -= len(users.pop()) + 1
        return users


def _value(answer: Answer) -> bytes:
    if isinstance(answer, ResponderError):
        raise answer
    return answer


def _first_of_each(rows: Sequence[Record]) -> list[Record | None]:
    """The memberships, but None for one that has lost its user, and for another of the same user."""
    listed: set[str | None] = {None}
    places: list[Record | None] = []
    for row in rows:
        user = row[USER_ID]
        places.append(None if user in listed else row)
        listed.add(user)
    return places


def _lookups(statements: Statements, keys: Sequence[_Asked]) -> Lookups:
    """The SQL for those in a batch, who are all services or all callers."""
    return statements.services if keys[0][1] is None else statements.callers


def _permitted(rows: list[Record]) -> list[Record]:
    """The memberships among the rows of a caller; raises what they are told if they may not see them."""
    if not rows[0][ALLOWED]:
        raise _forbidden()
    if not rows[0][LISTED]:
        raise NotFoundError("no such organization")
    return [row for row in rows if row[MEMBER_ID] is not None]


def _forbidden() -> ForbiddenError:
    return ForbiddenError("the caller is banned, or exists no more")


def _start(pages: Pages, request: wire.OrgList) -> tuple[str, list[str | None]]:
    """The SQL of a page and its last parameters; raises InvalidRequestError for a bad cursor."""
    if request.cursor is None:
        return pages.first, []
    position = wire.decode_cursor(request.cursor, request.organization_id)
    if position.created_at is None:
        return pages.after_null, [position.member_id]
    if pages.after is None:  # these tables have no such position
        raise InvalidRequestError(wire.BAD_CURSOR)
    return pages.after, [position.member_id, position.created_at]


def _image_size(row: Record, limit: int) -> int:
    """What the image of a row will add to a reply: nothing where it is over the limit."""
    size: int = row[IMAGE_SIZE] or 0
    return size if size <= limit else 0
