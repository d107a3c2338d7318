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

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from operator import attrgetter
from typing import Any, Final, TypeAlias

from responder import cursors, replies, wire
from responder.batching import Again, Answer, Callback, Line
from responder.errors import (
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    ResponderError,
)
from responder.limits import Limits
from responder.models import ByEmail, ById, ByIds, Identity, MembershipsOf, Myself, OrgList
from responder.paging import (
    FORBIDDEN,
    NOT_FOUND,
    Asked,
    MembershipPages,
    MembershipsFrom,
    PageOf,
    UserLookup,
    UserPages,
    lookups_for,
)
from responder.postgres.connection import Record
from responder.postgres.lookups import Lookups, Statements
from responder.postgres.pool import Pool
from responder.postgres.source import Answers, How, Lookup, Question
from responder.postgres.users import Query, UserRow, Users
from responder.postgres.visibility import Caller
from responder.replies import Omitted, WithAll

FEW: Final = 8  # pages of users, or lists, that may share a query
SOME: Final = 32  # pages of memberships, likewise: nearly every user has a handful
PATIENT: Final = 0.075  # share of the timeout, for which they may wait: each takes longer
APART: Final = 10.0  # seconds for which each goes alone after one was too slow, as without an index

# Of each distinct id the key that is looked up, and how it was spelled.
_Ids: TypeAlias = Sequence[tuple[str | None, str]]
_Lines: TypeAlias = tuple[Line[Asked, How], Line[Asked, How]]


class Directory:
    """Answers lookups from the database.

    Args:
        pool: of connections to the database.
        limits: of a reply.
        max_batch: how many keys may share a query.

    Attributes:
        omitted: counts what replies lack.
    """

    def __init__(self, pool: Pool, *, limits: Limits, max_batch: int) -> None:
        self.omitted: Omitted = Omitted()
        self._pool = pool
        self._limits = limits
        of_replies = limits, self.omitted
        by_id = _Users(attrgetter("by_id"), attrgetter("id"), *of_replies)
        by_email = _Users(attrgetter("by_email"), attrgetter("email"), *of_replies)
        self._users = self._lines(by_id, max_batch=max_batch)
        self._emails = self._lines(by_email, max_batch=max_batch)
        pages, memberships = UserPages(*of_replies), MembershipPages(limits)
        few = min(FEW, max_batch)
        self._pages = {
            kind: self._lines_of_much(pages, max_batch=few)
            for kind in product((False, True), ("first", "after", "after a null"))
        }
        self._memberships = self._lines_of_much(memberships, max_batch=min(SOME, max_batch))
        self._lists = self._lines_of_much(_Lists(*of_replies), max_batch=few)

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
            callback(self.omitted.count(*replies.whoami(identity, written, self._limits.message)))

        itself = _Itself(identity.user_id, request.organization_id)
        self._load(self._users, itself, identity, deadline, introduce)

    def _lines_of_much(self, lookup: Lookup[Asked], *, max_batch: int) -> _Lines:
        return self._lines(lookup, max_batch=max_batch, crowd=1, apart=APART, patience=PATIENT)

    def _lines(self, lookup: Lookup[Asked], **bounds: Any) -> _Lines:
        services, callers = (Line[Asked, How](lookup, **bounds) for _ in range(2))
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


class _Itself(ById, frozen=True):
    """A request of callers for themselves, who may be banned."""


class _InFull(ByIds, frozen=True):
    """A request of a list of which everything is brought along, because it may fit."""


class _Users(UserLookup):
    """How users are looked up, one for each request.

    Args:
        of: returns the lookup by keys of one kind.
        spelled: returns the key of a request, as it was spelled.
        limits: of a reply.
        omitted: what replies lack is counted there.
    """

    def __init__(
        self,
        of: Callable[[Lookups], Users],
        spelled: Callable[[Any], str],
        limits: Limits,
        omitted: Omitted,
    ) -> None:
        super().__init__(limits, omitted)
        self._of = of
        self._spelled = spelled

    def query(self, statements: Statements, asked: Sequence[Asked]) -> Question:
        """Return the query for users; of a lone one it brings along whatever fits."""
        users = self._of(lookups_for(statements, asked))
        if len(asked) == 1:
            request, caller = asked[0]
            key, cap = users.key(self._spelled(request)), self._limits.message
            sql, arguments = users.lone(key, request.organization_id, caller, cap=cap)
        else:
            keys = [users.key(self._spelled(request)) for request, _ in asked]
            sql, arguments = _query(users, keys, asked, cap=replies.SMALL_IMAGE)
        return sql, arguments, partial(self._read, asked, bool(statements.schema.additional))

    def _read(
        self,
        asked: Sequence[Asked],
        additional: bool,  # noqa: FBT001 - whether there are additional fields
        rows: list[Record],
    ) -> Answers:
        alone, limit = len(asked) == 1, self._limits.message
        answers: list[Answer | Again[Asked]] = [NOT_FOUND] * len(asked)
        images = fields = 0
        for row in rows:
            at = row[UserRow.ORDINAL] - 1
            request, caller = asked[at]
            if caller and not row[UserRow.ALLOWED] and not isinstance(request, _Itself):
                answers[at] = FORBIDDEN
            elif row[UserRow.USER_ID] is None:
                continue
            elif not alone and replies.lacks(row, additional=additional):
                answers[at] = Again(asked[at])
            else:
                try:
                    answers[at], image, more = replies.user(row, limit, additional=additional)
                    images, fields = images + image, fields + more
                except PayloadTooLargeError as error:
                    answers[at] = error
        # At once: a call for each user would show in the benchmark.
        self._omitted.images += images
        self._omitted.additional += fields
        return answers


class _Lists(UserLookup):
    """How lists of users are looked up, by the ids of all of them at once."""

    def query(self, statements: Statements, asked: Sequence[Asked]) -> Question:
        """Return the query for lists."""
        by_id = lookups_for(statements, asked).by_id
        lists = [_distinct(request.ids, by_id) for request, _ in asked]
        of_each = [one for one, ids in zip(asked, lists, strict=True) for _ in ids]
        keys = [key for ids in lists for key, _ in ids]
        in_full = isinstance(asked[0][0], _InFull)
        cap = self._limits.message if in_full else replies.largest_image(len(keys))
        sql, arguments = _query(by_id, keys, of_each, cap=cap)
        read = partial(self._read, asked, lists, additional=bool(statements.schema.additional))
        return sql, arguments, read

    def _read(
        self,
        asked: Sequence[Asked],
        lists: Sequence[_Ids],
        rows: list[Record],
        *,
        additional: bool,
    ) -> Answers:
        limit = self._limits.message
        found = {row[UserRow.ORDINAL]: row for row in rows}
        answers = [
            self._answer(one, ids, [found.get(n) for n in numbers], limit, additional=additional)
            for one, ids, numbers in zip(asked, lists, _numbers(lists), strict=True)
        ]
        if len(answers) == 1 and isinstance(answers[0], WithAll):
            return [_in_full(asked[0], answers[0], limit)]
        return [
            Again(one) if isinstance(answer, WithAll) else answer
            for one, answer in zip(asked, answers, strict=True)
        ]

    def _answer(
        self,
        asked: Asked,
        ids: _Ids,
        rows: Sequence[Record | None],
        limit: int,
        *,
        additional: bool,
    ) -> Answer | WithAll:
        """Answer with the batch of a list, from the row of each of its ids, None if there is none.

        Args:
            asked: the list, and the caller.
            ids: of it.
            rows: of them.
            limit: of a reply, in bytes.
            additional: whether there are additional fields.
        """
        _, caller = asked
        if caller and rows[0] and not rows[0][UserRow.ALLOWED]:
            return FORBIDDEN
        there = [row for row in rows if row and row[UserRow.USER_ID] is not None]
        missing = [
            spelled
            for (_, spelled), row in zip(ids, rows, strict=True)
            if not row or row[UserRow.USER_ID] is None
        ]
        try:
            written = replies.batch(there, missing, limit, additional=additional)
        except PayloadTooLargeError as error:
            return error
        return written if isinstance(written, WithAll) else self._omitted.count(*written)


def _in_full(asked: Asked, left_out: WithAll, limit: int) -> Answer | Again[Asked]:
    """Return what comes in place of a lone list, of which something has been left out."""
    if left_out.size > limit and not left_out.alone:
        return PayloadTooLargeError(wire.TOO_MANY_IDS)
    request, caller = asked
    return Again((_InFull(request.ids, request.organization_id), caller))


def _distinct(ids: Sequence[str], by_id: Users) -> _Ids:
    keys: dict[str, tuple[str | None, str]] = {}
    for each in ids:
        key = by_id.key(each)
        keys.setdefault(key or each, (key, each))
    return list(keys.values())


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
