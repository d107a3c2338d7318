"""Pages: of an organization's users, and of a user's memberships."""

# A page that is too large for a message is asked for again, alone, for so much as fits. A position
# that PostgreSQL refuses was no cursor of ours; in a query that is shared it fails the others too,
# so that each is asked for alone before one is blamed.

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from responder import cursors, replies
from responder.batching import Alone, Answer
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
    UnavailableError,
)
from responder.models import OrgList
from responder.postgres import ids
from responder.postgres.connection import Connection, Record
from responder.postgres.errors import ValueRefusedError, describe
from responder.postgres.lookups import Lookups, Statements
from responder.postgres.memberships import MembershipRow, MembershipsWanted
from responder.postgres.pages import PageRow, Pages, PageWanted
from responder.postgres.pool import Pool
from responder.postgres.unreadable import may_be_of_values, without_unreadable
from responder.postgres.users import Query
from responder.postgres.visibility import Caller
from responder.replies import Fewer, Written
from responder.throttling import ThrottledLog

repeated: Final = ThrottledLog(__name__)

NOT_FOUND: Final = NotFoundError("no such user")
NO_ORGANIZATION: Final = NotFoundError("no such organization")
FORBIDDEN: Final = ForbiddenError("the caller is banned, or exists no more")
NO_MEMBERS: Final = "there is no member table in this database"


# A request, of the kind that its line is for, and the caller on whose behalf it is made. A plain
# tuple: to make a NamedTuple of each request would be a fiftieth of its cost.
Asked: TypeAlias = tuple[Any, Caller | None]
_ordinal: Final = itemgetter(PageRow.ORDINAL)
_Page: TypeAlias = Written | Fewer | ResponderError
_FetchPages: TypeAlias = Callable[[Sequence[int], int], Awaitable[Sequence[_Page]]]


class PageOf(NamedTuple):
    """The request of a page of users, and the membership after which it starts."""

    request: OrgList
    after: cursors.Position | cursors.RolePosition | None  # None for the first page

    @property
    def roles(self) -> str | None:
        """The roles of which one is to be held, as JSON; those that no text can hold are none."""
        if self.request.roles is None:
            return None
        return json.dumps([each for each in self.request.roles if ids.text(each) is not None])


class MembershipsFrom(NamedTuple):
    """The request of a page of memberships: whose, how many, and after which it starts."""

    user_id: str
    limit: int
    after: cursors.MembershipPosition | None


def lookups_for(statements: Statements, asked: Sequence[Asked]) -> Lookups:
    """Return the lookups for those in a batch, who are all services or all callers."""
    return statements.services if asked[0][1] is None else statements.callers


class Paging:
    """Fetches pages.

    Args:
        pool: of connections to the database.
        max_reply: returns the largest reply that can be sent now, in bytes.
        counted: counts what a reply lacks, and returns the answer.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        max_reply: Callable[[], int],
        counted: Callable[[_Page], Answer | Alone],
    ) -> None:
        self._pool = pool
        self._max_reply = max_reply
        self._counted = counted

    async def fetch_pages(
        self, connection: Connection, asked: Sequence[Asked]
    ) -> Sequence[Answer | Alone]:
        """Fetch pages of users that all start alike (see `Pages.query`), all of roles or none."""
        limit = self._max_reply()

        async def fetch(wanted: Sequence[int], cap: int) -> Sequence[_Page]:
            additional = bool(self._pool.statements.schema.additional)
            rows = await self._page_rows(connection, asked, wanted, cap=cap)
            return [
                _page(row, one, most, limit, additional=additional)
                for row, one, most in zip(rows, asked, wanted, strict=True)
            ]

        wanted = [page.request.limit for page, _ in asked]
        return await self._fitting(fetch, wanted, cap=replies.largest_image(sum(wanted)))

    async def fetch_memberships(
        self, connection: Connection, asked: Sequence[Asked]
    ) -> Sequence[Answer | Alone]:
        """Fetch pages of memberships."""
        limit = self._max_reply()

        async def fetch(wanted: Sequence[int], _: int) -> Sequence[_Page]:
            rows = await self._membership_rows(connection, asked, wanted)
            pages = [list(of_page) for _, of_page in groupby(rows, _ordinal)]
            return [
                _memberships(page, one, most, limit)
                for page, one, most in zip(pages, asked, wanted, strict=True)
            ]

        return await self._fitting(fetch, [page.limit for page, _ in asked], cap=0)

    async def _fitting(
        self, fetch: _FetchPages, wanted: Sequence[int], *, cap: int
    ) -> Sequence[Answer | Alone]:
        """Fetch pages; a lone one again for less, until it fits into a message."""
        pages = await fetch(wanted, cap)
        while len(pages) == 1 and isinstance(pages[0], Fewer):
            pages = await fetch([pages[0].most], self._max_reply())
        return [self._counted(each) for each in pages]

    async def _page_rows(
        self, connection: Connection, asked: Sequence[Asked], wanted: Sequence[int], *, cap: int
    ) -> list[Record]:
        statements = self._pool.statements
        pages = _pages(statements, asked)
        places = [
            PageWanted(page.request.organization_id, most, caller, *_place(page.after), page.roles)
            for (page, caller), most in zip(asked, wanted, strict=True)
        ]

        def query(statements: Statements) -> Query:
            found = _pages(statements, asked).query(places, cap=cap)
            if found is None:  # these tables have no such position
                raise InvalidRequestError(cursors.BAD)
            return found

        try:
            return await self._rows(
                connection, query(statements), asked, pages.position, cursors.BAD
            )
        except Exception as error:
            if len(asked) > 1:
                raise
            return await without_unreadable(connection, statements, error, query)

    async def _membership_rows(
        self, connection: Connection, asked: Sequence[Asked], wanted: Sequence[int]
    ) -> list[Record]:
        memberships = lookups_for(self._pool.statements, asked).memberships
        if memberships is None:
            raise UnavailableError(NO_MEMBERS)
        pages = [
            MembershipsWanted(page.user_id, most, caller, *_place(page.after))
            for (page, caller), most in zip(asked, wanted, strict=True)
        ]

        async def fetch(*, names: bool) -> list[Record]:
            query = memberships.query(pages, names=names)
            refusal = cursors.BAD_MEMBERSHIPS
            return await self._rows(connection, query, asked, memberships.position, refusal)

        try:
            return await fetch(names=True)
        except Exception as error:
            statements = self._pool.statements
            if statements.schema.organizations is None:
                raise
            if not await may_be_of_values(connection, statements, error):
                raise
            rows = await fetch(names=False)
            cause = describe(error)
            repeated.warning("organizations have no names now: %s", cause, kind=cause)
            return rows

    async def _rows(
        self,
        connection: Connection,
        query: Query,
        asked: Sequence[Asked],
        position: str,
        refusal: str,
    ) -> list[Record]:
        """Return the rows of each page, in the order asked for."""
        sql, arguments = query
        try:
            rows = await connection.fetch_checked(self._pool.statements, sql, *arguments)
        except ValueRefusedError:
            after = asked[0][0].after
            if len(asked) > 1 or after is None:
                raise
            # A view may refuse a value of its own, which is not the caller's fault.
            if await connection.accepts(position, after.member_id, after.created_at):
                raise
            raise InvalidRequestError(refusal) from None
        return sorted(rows, key=_ordinal)


def _pages(statements: Statements, asked: Sequence[Asked]) -> Pages:
    lookups = lookups_for(statements, asked)
    of_roles = asked[0][0].request.roles is not None
    pages = lookups.pages_of_roles if of_roles else lookups.pages
    if pages is None:
        raise UnavailableError(NO_MEMBERS)
    return pages


def _place(
    after: cursors.Position | cursors.RolePosition | cursors.MembershipPosition | None,
) -> tuple[str | None, str | None]:
    return (after.created_at, after.member_id) if after else (None, None)


def _page(row: Record, asked: Asked, wanted: int, limit: int, *, additional: bool) -> _Page:
    (request, _), caller = asked
    if caller and not row[PageRow.ALLOWED]:
        return FORBIDDEN
    if caller and not row[PageRow.LISTED]:
        return NO_ORGANIZATION
    try:
        return replies.page(row, request, wanted, limit, additional=additional)
    except PayloadTooLargeError as error:
        return error


def _memberships(rows: Sequence[Record], asked: Asked, wanted: int, limit: int) -> _Page:
    page, caller = asked
    first = rows[0]
    if caller and not first[MembershipRow.ALLOWED]:
        return FORBIDDEN
    if first[MembershipRow.USER_ID] is None:
        return NOT_FOUND
    try:
        return replies.membership_page(rows, page.user_id, wanted, limit)
    except PayloadTooLargeError as error:
        return error
