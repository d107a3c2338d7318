"""Pages: of an organization's users, and of a user's memberships."""

# A page that is too large for a message is asked for again, alone, for so much as fits. A position
# that PostgreSQL refuses was no cursor of ours; in a query that is shared it fails the others too,
# so that each is asked for alone before one is blamed.

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from responder import cursors, replies
from responder.batching import Again, Answer
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UnavailableError,
)
from responder.limits import Limits
from responder.models import OrgList
from responder.postgres import ids
from responder.postgres.connection import Connection, Record
from responder.postgres.errors import ValueRefusedError, describe
from responder.postgres.lookups import Lookups, Statements
from responder.postgres.memberships import MembershipRow, Memberships, MembershipsWanted
from responder.postgres.pages import PageRow, Pages, PageWanted
from responder.postgres.source import Answers, Lookup, Question
from responder.postgres.unreadable import may_be_of_values, without_unreadable
from responder.postgres.visibility import Caller
from responder.replies import Fewer, Omitted
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


class PageOf(NamedTuple):
    """The request of a page of users, and the membership after which it starts."""

    request: OrgList
    after: cursors.Position | cursors.RolePosition | None  # None for the first page
    most: int | None = None  # users that may fit into a message, if not all that are asked for

    @property
    def wanted(self) -> int:
        """How many users it has at most."""
        return self.most or self.request.limit

    @property
    def roles(self) -> str | None:
        """The roles of which one is to be held, as JSON; those that no text can hold are none."""
        if self.request.roles is None:
            return None
        return json.dumps([each for each in self.request.roles if ids.text(each) is not None])


class MembershipsFrom(NamedTuple):
    """The request of a page of memberships: whose, how many, and after which it starts."""

    user_id: str
    wanted: int
    after: cursors.MembershipPosition | None


def lookups_for(statements: Statements, asked: Sequence[Asked]) -> Lookups:
    """Return the lookups for those in a batch, who are all services or all callers."""
    return statements.services if asked[0][1] is None else statements.callers


class UserLookup(Lookup[Asked]):
    """How users are looked up.

    Args:
        limits: of a reply.
        omitted: what replies lack is counted there.
    """

    def __init__(self, limits: Limits, omitted: Omitted) -> None:
        self._limits = limits
        self._omitted = omitted

    async def mend(
        self,
        connection: Connection,
        statements: Statements,
        asked: Sequence[Asked],
        error: Exception,
    ) -> Answers:
        """Look a lone key up once more, without the additional fields that cannot be read."""
        if len(asked) > 1:
            raise error
        return await without_unreadable(
            connection, statements, error, lambda others: self.query(others, asked)
        )


class UserPages(UserLookup):
    """Looks up pages of users that all start alike (see `Pages.query`), all of roles or none."""

    def query(self, statements: Statements, asked: Sequence[Asked]) -> Question:
        """Return the query for pages; one of which it is known what fits is alone."""
        wanted = [page.wanted for page, _ in asked]
        fits = asked[0][0].most is not None
        cap = self._limits.message if fits else replies.largest_image(sum(wanted))
        places = [
            PageWanted(page.request.organization_id, most, caller, *_place(page.after), page.roles)
            for (page, caller), most in zip(asked, wanted, strict=True)
        ]
        query = _pages(statements, asked).query(places, cap=cap)
        if query is None:  # these tables have no such position
            raise InvalidRequestError(cursors.BAD)
        additional = bool(statements.schema.additional)
        return *query, partial(self._read, asked, additional=additional)

    def _read(self, asked: Sequence[Asked], rows: list[Record], *, additional: bool) -> Answers:
        limit = self._limits.message
        ordered = sorted(rows, key=_ordinal)
        return [
            self._answer(row, one, limit, additional=additional)
            for row, one in zip(ordered, asked, strict=True)
        ]

    def _answer(
        self, row: Record, asked: Asked, limit: int, *, additional: bool
    ) -> Answer | Again[Asked]:
        page, caller = asked
        if caller and not row[PageRow.ALLOWED]:
            return FORBIDDEN
        if caller and not row[PageRow.LISTED]:
            return NO_ORGANIZATION
        try:
            written = replies.page(row, page.request, page.wanted, limit, additional=additional)
        except PayloadTooLargeError as error:
            return error
        if isinstance(written, Fewer):
            return Again((page._replace(most=written.most), caller))
        return self._omitted.count(*written)

    async def mend(
        self,
        connection: Connection,
        statements: Statements,
        asked: Sequence[Asked],
        error: Exception,
    ) -> Answers:
        """Look a lone page up without what cannot be read, or say that its cursor is none."""
        position = _pages(statements, asked).position
        await _refuse_cursor(connection, position, asked, error, cursors.BAD)
        return await super().mend(connection, statements, asked, error)


class MembershipPages(Lookup[Asked]):
    """Looks up pages of memberships.

    Args:
        limits: of a reply.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def query(self, statements: Statements, asked: Sequence[Asked]) -> Question:
        """Return the query for pages."""
        return self._query(statements, asked, names=True)

    def _query(self, statements: Statements, asked: Sequence[Asked], *, names: bool) -> Question:
        pages = [
            MembershipsWanted(page.user_id, page.wanted, caller, *_place(page.after))
            for page, caller in asked
        ]
        query = _memberships(statements, asked).query(pages, names=names)
        return *query, partial(self._read, asked)

    def _read(self, asked: Sequence[Asked], rows: list[Record]) -> Answers:
        limit = self._limits.message
        pages = [list(page) for _, page in groupby(sorted(rows, key=_ordinal), _ordinal)]
        return [_answer(page, one, limit) for page, one in zip(pages, asked, strict=True)]

    async def mend(
        self,
        connection: Connection,
        statements: Statements,
        asked: Sequence[Asked],
        error: Exception,
    ) -> Answers:
        """Look pages up without the names of organizations, if it is these that fail."""
        position = _memberships(statements, asked).position
        await _refuse_cursor(connection, position, asked, error, cursors.BAD_MEMBERSHIPS)
        if statements.schema.organizations is None:
            raise error
        if not await may_be_of_values(connection, statements, error):
            raise error
        sql, arguments, read = self._query(statements, asked, names=False)
        try:
            rows = await connection.fetch_checked(statements, sql, *arguments)
        except ValueRefusedError as other:
            await _refuse_cursor(connection, position, asked, other, cursors.BAD_MEMBERSHIPS)
            raise
        cause = describe(error)
        repeated.warning("organizations have no names now: %s", cause, kind=cause)
        return read(rows)


async def _refuse_cursor(
    connection: Connection, position: str, asked: Sequence[Asked], error: Exception, bad: str
) -> None:
    """Raise InvalidRequestError if it is the cursor of a lone page that PostgreSQL refuses."""
    (page, _), *others = asked
    if others or page.after is None or not isinstance(error, ValueRefusedError):
        return
    # A view may refuse a value of its own, which is not the caller's fault.
    if not await connection.accepts(position, page.after.member_id, page.after.created_at):
        raise InvalidRequestError(bad)


def _answer(rows: Sequence[Record], asked: Asked, limit: int) -> Answer | Again[Asked]:
    page, caller = asked
    first = rows[0]
    if caller and not first[MembershipRow.ALLOWED]:
        return FORBIDDEN
    if first[MembershipRow.USER_ID] is None:
        return NOT_FOUND
    try:
        written = replies.membership_page(rows, page.user_id, page.wanted, limit)
    except PayloadTooLargeError as error:
        return error
    if isinstance(written, Fewer):
        return Again((page._replace(wanted=written.most), caller))
    return written[0]


def _pages(statements: Statements, asked: Sequence[Asked]) -> Pages:
    lookups = lookups_for(statements, asked)
    of_roles = asked[0][0].request.roles is not None
    pages = lookups.pages_of_roles if of_roles else lookups.pages
    if pages is None:
        raise UnavailableError(NO_MEMBERS)
    return pages


def _memberships(statements: Statements, asked: Sequence[Asked]) -> Memberships:
    memberships = lookups_for(statements, asked).memberships
    if memberships is None:
        raise UnavailableError(NO_MEMBERS)
    return memberships


def _place(
    after: cursors.Position | cursors.RolePosition | cursors.MembershipPosition | None,
) -> tuple[str | None, str | None]:
    return (after.created_at, after.member_id) if after else (None, None)
