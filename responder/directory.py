"""The lookups themselves: what each request means, for services and for callers."""

# Each kind of question has a line for services and one for callers (see `batching`), because those
# of services cost less: nothing has to be decided about what they may see (see
# `postgres.visibility`).
#
# A page, or a list of ids, is work enough for a query of its own, so only a few share one, and they
# share its bound on images, too. Pages wait in three kinds of lines, with roles or without: one
# statement starts at the beginning of an organization, another after a membership with createdAt, a
# third after one without.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import product
from typing import Any, Final, TypeAlias

from responder import cursors, replies, wire
from responder.batching import ALONE, Alone, Answer, Callback, Line
from responder.errors import (
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
)
from responder.models import ByEmail, ById, ByIds, Identity, MembershipsOf, Myself, OrgList
from responder.paging import (
    FORBIDDEN,
    NOT_FOUND,
    Asked,
    MembershipsFrom,
    PageOf,
    Paging,
    lookups_for,
)
from responder.postgres.connection import Connection, Record
from responder.postgres.lookups import Statements
from responder.postgres.pool import Pool
from responder.postgres.unreadable import without_unreadable
from responder.postgres.users import Query, UserRow, Users
from responder.postgres.visibility import Caller
from responder.replies import Fewer, WithAll, Written
from responder.room import CROWD, PATIENCE

FEW: Final = 8  # pages of users, or lists, that may share a query
SOME: Final = 32  # pages of memberships, likewise: nearly every user has a handful
PATIENT: Final = 0.075  # share of the timeout, for which they may wait: each takes longer
APART: Final = 10.0  # seconds for which each goes alone after one was too slow, as without an index

# Of each distinct id the key that is looked up, and how it was spelled.
_Ids: TypeAlias = Sequence[tuple[str | None, str]]
_Lookup: TypeAlias = Callable[[Statements, Sequence[Asked]], Users]
_Fetch: TypeAlias = Callable[[Connection, Sequence[Asked]], Awaitable[Sequence[Answer | Alone]]]
_Lines: TypeAlias = tuple[Line[Asked, Connection], Line[Asked, Connection]]


class Directory:
    """Answers lookups from the database.

    Args:
        pool: of connections to the database.
        max_reply: returns the largest reply that can be sent now, in bytes.
        max_batch: how many keys may share a query.
    """

    def __init__(self, pool: Pool, *, max_reply: Callable[[], int], max_batch: int) -> None:
        self.images_omitted: int = 0
        self.additional_omitted: int = 0  # of so many users
        self._pool = pool
        self._max_reply = max_reply
        self._users = self._lines(self._fetch_users, max_batch=max_batch)
        self._emails = self._lines(self._fetch_emails, max_batch=max_batch)
        few = min(FEW, max_batch)
        paging = Paging(pool, max_reply=max_reply, counted=self._counted)
        self._pages = {
            kind: self._lines(
                paging.fetch_pages, max_batch=few, crowd=1, apart=APART, patience=PATIENT
            )
            for kind in product((False, True), ("first", "after", "after a null"))
        }
        self._memberships = self._lines(
            paging.fetch_memberships,
            max_batch=min(SOME, max_batch),
            crowd=1,
            apart=APART,
            patience=PATIENT,
        )
        self._lists = self._lines(
            self._fetch_lists, max_batch=few, crowd=1, apart=APART, patience=PATIENT
        )

    # Each endpoint's method loads what its request asks for, on behalf of the user of a token or of
    # a service, which has no identity. The arguments are those of `Batching.load`; each may raise
    # UnavailableError as that does.

    def get(
        self, request: ById, identity: Identity | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load a user by id: a User, or NotFoundError."""
        self._load(self._users, request, identity, deadline, callback)

    def by_email(
        self, request: ByEmail, identity: Identity | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load a user by email: a User, or NotFoundError."""
        self._load(self._emails, request, identity, deadline, callback)

    def org_list(
        self, request: OrgList, identity: Identity | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load members of an organization: a UserPage; raises InvalidRequestError for a cursor."""
        after, start = None, "first"
        if request.cursor is not None:
            after = cursors.decode(request.cursor, request)
            start = "after a null" if after.created_at is None else "after"
        lines = self._pages[request.roles is not None, start]
        self._load(lines, PageOf(request, after), identity, deadline, callback)

    def get_many(
        self, request: ByIds, identity: Identity | None, *, deadline: float, callback: Callback
    ) -> None:
        """Load users by their ids: a UserBatch, or PayloadTooLargeError."""
        self._load(self._lists, request, identity, deadline, callback)

    def memberships(
        self,
        request: MembershipsOf,
        identity: Identity | None,
        *,
        deadline: float,
        callback: Callback,
    ) -> None:
        """Load memberships of a user, or of the caller: a MembershipPage, or NotFoundError.

        Raises InvalidRequestError for a cursor, and for a service that names no user.
        """
        user_id = request.id
        if user_id is None:
            if identity is None:
                raise InvalidRequestError("id: required, unless a token says who asks")
            user_id = identity.user_id
        after = None
        if request.cursor is not None:
            after = cursors.decode_memberships(request.cursor, user_id)
        asked = MembershipsFrom(user_id, request.limit, after)
        self._load(self._memberships, asked, identity, deadline, callback)

    def whoami(
        self, request: Myself, identity: Identity, *, deadline: float, callback: Callback
    ) -> None:
        """Load the caller: a WhoAmI, even of a caller who is banned or has no row any more."""

        def introduce(user: Answer) -> None:
            if isinstance(user, ResponderError) and not isinstance(user, NotFoundError):
                callback(user)
                return
            written = user if isinstance(user, bytes) else None
            callback(self._count(*replies.whoami(identity, written, self._max_reply())))

        self._load(self._users, request, identity, deadline, introduce)

    def _lines(
        self,
        fetch: _Fetch,
        *,
        max_batch: int,
        crowd: int = CROWD,
        apart: float = 0.0,
        patience: float = PATIENCE,
    ) -> _Lines:
        services, callers = (
            Line[Asked, Connection](
                fetch, max_batch=max_batch, crowd=crowd, apart=apart, patience=patience
            )
            for _ in range(2)
        )
        self._pool.batching.add(services)
        self._pool.batching.add(callers)
        return services, callers

    def _load(
        self,
        lines: _Lines,
        request: Any,
        identity: Identity | None,
        deadline: float,
        callback: Callback,
    ) -> None:
        services, callers = lines
        if identity is None:
            line, caller = services, None
        else:
            line, caller = callers, Caller(identity.user_id, identity.organization_id)
        self._pool.load(line, (request, caller), deadline=deadline, callback=callback)

    # Users

    def _fetch_users(
        self, connection: Connection, asked: Sequence[Asked]
    ) -> Awaitable[Sequence[Answer | Alone]]:
        statements = self._pool.statements
        by_id = _by_id(statements, asked)
        keys = [
            by_id.key(caller.user_id if caller and isinstance(request, Myself) else request.id)
            for request, caller in asked
        ]
        return self._fetch(connection, statements, _by_id, keys, asked)

    def _fetch_emails(
        self, connection: Connection, asked: Sequence[Asked]
    ) -> Awaitable[Sequence[Answer | Alone]]:
        statements = self._pool.statements
        by_email = _by_email(statements, asked)
        keys = [by_email.key(request.email) for request, _ in asked]
        return self._fetch(connection, statements, _by_email, keys, asked)

    async def _fetch(
        self,
        connection: Connection,
        statements: Statements,
        lookup: _Lookup,
        keys: Sequence[str | None],
        asked: Sequence[Asked],
    ) -> Sequence[Answer | Alone]:
        """Look a key up for each request; one that is None matches nothing."""
        limit, additional = self._max_reply(), bool(statements.schema.additional)
        alone = len(keys) == 1
        users = lookup(statements, asked)
        if alone:
            request, caller = asked[0]
            sql, arguments = users.lone(keys[0], request.organization_id, caller, cap=limit)
        else:
            sql, arguments = _query(users, keys, asked, cap=replies.SMALL_IMAGE)
        try:
            rows = await connection.fetch_checked(statements, sql, *arguments)
        except Exception as error:
            if not alone:
                raise

            def query(other: Statements) -> Query:
                return _query(lookup(other, asked), keys, asked, cap=limit)

            rows = await without_unreadable(connection, statements, error, query)
        answers: list[Answer | Alone] = [NOT_FOUND] * len(keys)
        images = fields = 0
        for row in rows:
            at = row[UserRow.ORDINAL] - 1
            request, caller = asked[at]
            if caller and not row[UserRow.ALLOWED] and not isinstance(request, Myself):
                answers[at] = FORBIDDEN
            elif row[UserRow.USER_ID] is None:
                continue
            elif not alone and replies.lacks(row, additional=additional):
                answers[at] = ALONE
            else:
                try:
                    answers[at], image, more = replies.user(row, limit, additional=additional)
                    images, fields = images + image, fields + more
                except PayloadTooLargeError as error:
                    answers[at] = error
        # At once: a call for each user would show in the benchmark.
        self.images_omitted += images
        self.additional_omitted += fields
        return answers

    # Lists

    async def _fetch_lists(
        self, connection: Connection, asked: Sequence[Asked]
    ) -> Sequence[Answer | Alone]:
        limit = self._max_reply()
        lists = [self._distinct(request.ids) for request, _ in asked]
        cap = replies.largest_image(sum(map(len, lists)))
        batches = await self._batches_of(connection, asked, lists, limit, cap=cap)
        if len(batches) == 1 and isinstance(batches[0], WithAll):
            if batches[0].size > limit and not batches[0].alone:
                return [PayloadTooLargeError(wire.TOO_MANY_IDS)]
            batches = await self._batches_of(connection, asked, lists, limit, cap=limit)
        return [self._counted(each) for each in batches]

    def _distinct(self, ids: Sequence[str]) -> _Ids:
        key_of = self._pool.statements.services.by_id.key
        keys: dict[str, tuple[str | None, str]] = {}
        for each in ids:
            key = key_of(each)
            keys.setdefault(key or each, (key, each))
        return list(keys.values())

    async def _batches_of(
        self,
        connection: Connection,
        asked: Sequence[Asked],
        lists: Sequence[_Ids],
        limit: int,
        *,
        cap: int,
    ) -> Sequence[Written | WithAll | ResponderError]:
        """Look the ids of all lists up by one query, and write a batch of each."""
        statements = self._pool.statements
        additional = bool(statements.schema.additional)
        of_each = [one for one, ids in zip(asked, lists, strict=True) for _ in ids]
        keys = [key for ids in lists for key, _ in ids]

        def query(statements: Statements) -> Query:
            return _query(_by_id(statements, asked), keys, of_each, cap=cap)

        sql, arguments = query(statements)
        try:
            rows = await connection.fetch_checked(statements, sql, *arguments)
        except Exception as error:
            if len(asked) > 1:
                raise
            rows = await without_unreadable(connection, statements, error, query)
        found = {row[UserRow.ORDINAL]: row for row in rows}
        return [
            _batch(ids, [found.get(n) for n in numbers], one, limit, additional=additional)
            for one, ids, numbers in zip(asked, lists, _numbers(lists), strict=True)
        ]

    def _counted(self, written: Written | Fewer | WithAll | ResponderError) -> Answer | Alone:
        """Return a reply, its images counted; what has to be asked for again goes alone."""
        if isinstance(written, ResponderError):
            return written
        if isinstance(written, Fewer | WithAll):
            return ALONE
        return self._count(*written)

    def _count(self, reply: bytes, images: int, additional: int) -> bytes:
        self.images_omitted += images
        self.additional_omitted += additional
        return reply


def _by_id(statements: Statements, asked: Sequence[Asked]) -> Users:
    return lookups_for(statements, asked).by_id


def _by_email(statements: Statements, asked: Sequence[Asked]) -> Users:
    return lookups_for(statements, asked).by_email


def _query(lookup: Users, keys: Sequence[str | None], asked: Sequence[Asked], *, cap: int) -> Query:
    organizations = [request.organization_id for request, _ in asked]
    # A batch is one of services, or one of callers.
    callers = [caller for _, caller in asked if caller] if asked[0][1] else ()
    return lookup.query(keys, organizations, callers, cap=cap)


def _numbers(lists: Sequence[_Ids]) -> Iterator[range]:
    """The ordinals of each list, of all that are looked up by one query."""
    start = 1
    for ids in lists:
        yield range(start, start + len(ids))
        start += len(ids)


def _batch(
    ids: _Ids, rows: Sequence[Record | None], asked: Asked, limit: int, *, additional: bool
) -> Written | WithAll | ResponderError:
    """Write the batch of a list from the row of each of its ids, None where there is none."""
    _, caller = asked
    if caller and rows[0] and not rows[0][UserRow.ALLOWED]:
        return FORBIDDEN
    found = [row for row in rows if row and row[UserRow.USER_ID] is not None]
    missing = [
        spelled
        for (_, spelled), row in zip(ids, rows, strict=True)
        if not row or row[UserRow.USER_ID] is None
    ]
    try:
        return replies.batch(found, missing, limit, additional=additional)
    except PayloadTooLargeError as error:
        return error
