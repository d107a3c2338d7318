"""The lookups themselves, whoever asks and however."""

# Rows become bytes here, once, and stay bytes until they are on the wire.
#
# Images may be data URLs of up to a megabyte. A batch brings along only small ones; a user with a
# larger one is asked for again alone, a page or a list of ids again as a whole when it is known how
# many of them fit into a message. So what a query can pull into memory is bounded by the size of one
# message, not of five hundred.

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from responder import wire
from responder.batching import ALONE, Alone, Answer, Done, Lookup
from responder.database import Database
from responder.errors import (
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
    UnavailableError,
)
from responder.queries import (
    CREATED_AT,
    IMAGE_SIZE,
    MEMBER_ID,
    ORDINAL,
    USER,
    Pages,
    text,
)
from responder.session import Record, Session, ValueRefusedError

SMALL_IMAGE: Final = 8 * 1024  # bytes; what a batch brings along
FRAME: Final = 1024  # bytes; what surrounds the users of a list, cursor included

_NOT_FOUND: Final = NotFoundError("no such user")


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
        self._users = Lookup[wire.ById, Session](self._fetch_users, max_batch=max_batch)
        self._emails = Lookup[wire.ByEmail, Session](self._fetch_emails, max_batch=max_batch)
        self._pages = Lookup[_Page, Session](self._fetch_page, max_batch=1)
        self._lists = Lookup[wire.ByIds, Session](self._fetch_list, max_batch=1)
        for lookup in (self._users, self._emails, self._pages, self._lists):
            database.batching.add(lookup)

    def load_user(self, key: wire.ById, *, deadline: float, done: Done) -> None:
        """Load a user by id: a User, or NotFoundError."""
        self._database.load(self._users, key, deadline=deadline, done=done)

    def load_email(self, key: wire.ByEmail, *, deadline: float, done: Done) -> None:
        """Load a user by email: a User, or NotFoundError."""
        self._database.load(self._emails, key, deadline=deadline, done=done)

    def load_page(self, key: wire.OrgList, *, deadline: float, done: Done) -> None:
        """Load members of an organization: a UserPage; raises InvalidRequestError for a cursor."""
        position = None
        if key.cursor is not None:
            position = wire.decode_cursor(key.cursor, key.organization_id)
        self._database.load(self._pages, (key, position), deadline=deadline, done=done)

    def load_list(self, key: wire.ByIds, *, deadline: float, done: Done) -> None:
        """Load users by their ids: a UserBatch, or PayloadTooLargeError."""
        self._database.load(self._lists, key, deadline=deadline, done=done)

    async def _fetch_users(
        self, session: Session, keys: Sequence[wire.ById]
    ) -> Sequence[Answer | Alone]:
        statements = self._database.statements
        ids = [statements.user_id(key.id) for key in keys]
        organizations = [key.organization_id for key in keys]
        return await self._fetch(session, statements.by_id, statements.by_ids, ids, organizations)

    async def _fetch_emails(
        self, session: Session, keys: Sequence[wire.ByEmail]
    ) -> Sequence[Answer | Alone]:
        statements = self._database.statements
        emails = [text(key.email.lower()) for key in keys]
        organizations = [key.organization_id for key in keys]
        return await self._fetch(
            session, statements.by_email, statements.by_emails, emails, organizations
        )

    async def _fetch(
        self,
        session: Session,
        by_one: str,
        by_many: str,
        keys: Sequence[str | None],
        organizations: Sequence[str | None],
    ) -> Sequence[Answer | Alone]:
        """Look keys up, a lone one by a statement of its own. A key that is None matches nothing."""
        statements = self._database.statements
        limit = self._max_reply()
        named = [each is not None for each in organizations]
        possible = self._possible(organizations)
        if len(keys) == 1:
            cap = limit
            rows = await session.look_up(statements, by_one, keys[0], possible[0], cap, named[0])
        else:
            cap = SMALL_IMAGE
            if not any(named):  # unnest fills the shorter arrays up with nulls
                possible, named = [], []
            rows = await session.look_up(statements, by_many, keys, possible, cap, named)
        answers: list[Answer | Alone] = [_NOT_FOUND] * len(keys)
        for row in rows:
            size = row[IMAGE_SIZE]
            if size is not None and size > cap and len(keys) > 1:
                answers[row[ORDINAL] - 1] = ALONE
            else:
                answers[row[ORDINAL] - 1] = self._write(row, limit)
        return answers

    async def _fetch_page(self, session: Session, keys: Sequence[_Page]) -> Sequence[Answer]:
        ((request, position),) = keys
        statements = self._database.statements
        if statements.pages is None:
            return [UnavailableError("there is no member table in this database")]
        organization = statements.organization_id(request.organization_id)
        if organization is None:
            return [wire.encode_page((), None)]
        sql, start = _start(statements.pages, position)
        if sql is None:
            return [InvalidRequestError(wire.BAD_CURSOR)]
        limit = self._max_reply()
        wanted = request.limit
        try:
            rows = await session.look_up(
                statements, sql, organization, wanted + 1, SMALL_IMAGE, *start
            )
        except ValueRefusedError:
            if position is None:
                raise
            return [InvalidRequestError(wire.BAD_CURSOR)]
        sizes = [_image_size(row, limit) for row in rows]
        if max(sizes, default=0) > SMALL_IMAGE:
            wanted = max(1, min(wanted, sum(total <= limit for total in accumulate(sizes))))
            rows = await session.look_up(statements, sql, organization, wanted + 1, limit, *start)
        return [self._write_page(request.organization_id, rows, wanted, limit)]

    async def _fetch_list(self, session: Session, keys: Sequence[wire.ByIds]) -> Sequence[Answer]:
        (request,) = keys
        statements = self._database.statements
        limit = self._max_reply()
        asked: dict[str, tuple[str | None, str]] = {}  # what is looked up, and how it was spelled
        for each in request.ids:
            canonical = statements.user_id(each)
            asked.setdefault(canonical or each, (canonical, each))
        ids = [canonical for canonical, _ in asked.values()]
        organization = self._possible([request.organization_id]) * len(ids)
        named = [request.organization_id is not None] * len(ids)
        sql = statements.by_ids
        rows = await session.look_up(statements, sql, ids, organization, SMALL_IMAGE, named)
        sizes = [_image_size(row, limit - FRAME) for row in rows]
        if sum(sizes) > limit:
            return [PayloadTooLargeError(wire.TOO_MANY_IDS)]
        if max(sizes, default=0) > SMALL_IMAGE:
            rows = await session.look_up(statements, sql, ids, organization, limit, named)
        users: dict[int, bytes] = {}
        for row in rows:
            answer = self._write(row, limit - FRAME)
            if isinstance(answer, ResponderError):
                return [answer]
            users[row[ORDINAL]] = answer
        found = [user for _, user in sorted(users.items())]
        spellings = enumerate((each for _, each in asked.values()), start=1)
        missing = [each for at, each in spellings if at not in users]
        try:
            return [wire.encode_batch(found, missing, limit=limit)]
        except PayloadTooLargeError as error:
            return [error]

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

    def _write_page(
        self, organization_id: str, rows: Sequence[Record], wanted: int, limit: int
    ) -> Answer:
        """Write as many of the users wanted as fit, and where the next page starts."""
        users: list[bytes] = []
        before = None
        for row in rows[:wanted]:
            # A membership without its user is passed over, and so is one that nothing, not even an
            # id, tells from the one before.
            answer: Answer = b""
            its_own = (row[CREATED_AT], row[MEMBER_ID])
            if row[USER][0] is not None and its_own != before:
                answer = self._write(row, limit - FRAME)
            before = its_own
            if isinstance(answer, ResponderError):
                if not users:
                    return answer
                break
            users.append(answer)
        size = FRAME + sum(map(len, users)) + len(users)
        while size > limit and len(users) > 1:
            size -= len(users.pop()) + 1
        cursor = None
        if len(users) < len(rows):
            last = rows[len(users) - 1]
            position = wire.Position(organization_id, last[CREATED_AT], last[MEMBER_ID])
            cursor = wire.encode_cursor(position)
        page = wire.encode_page(filter(None, users), cursor)
        if len(page) > limit:  # for a cursor of ids that are longer than a frame has room for
            return PayloadTooLargeError("the page does not fit into one message")
        return page


_Page = tuple[wire.OrgList, wire.Position | None]


def _start(pages: Pages, position: wire.Position | None) -> tuple[str | None, list[str]]:
    """The SQL of a page and its last parameters; None for a position that these tables lack."""
    if position is None:
        return pages.first, []
    if position.created_at is None:
        return pages.after_null, [position.member_id]
    return pages.after, [position.member_id, position.created_at]


def _image_size(row: Record, limit: int) -> int:
    """What the image of a row will add to a reply: nothing where it is over the limit."""
    size: int = row[IMAGE_SIZE] or 0
    return size if size <= limit else 0
