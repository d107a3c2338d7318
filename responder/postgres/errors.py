"""How a query fails: asyncpg's errors become ours."""

# A failing query has lost its connection (LostError), has a lock in its way (BusyError), took too
# long (SlowError), may not read the tables (NotAllowedError), no longer fits them (ChangedError),
# or was given what is no value of a column (ValueRefusedError). Any other failure is the query's
# own, and `source` narrows it down to the key that makes it fail.

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from responder.errors import UnavailableError


class LostError(Exception):
    """The connection is gone, or PostgreSQL is about to end it."""


class BusyError(Exception):
    """A lock is in the way, or a standby gave the query up for its replay."""


class SlowError(Exception):
    """The query took longer than a statement may."""


class ChangedError(Exception):
    """The tables are no longer what the query was made for."""


class ValueRefusedError(Exception):
    """An argument is no value of the type it was cast to."""


class NotAllowedError(UnavailableError):
    """The role of the connection string may not read the tables."""

    def __init__(self) -> None:
        super().__init__("the role of DATABASE_URL may not read Better Auth's tables")


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    OSError,
)
# Of a server that a view or a foreign table reads: our own connection goes on.
_LOST_BEHIND = (
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.ConnectionFailureError,
    asyncpg.ClientCannotConnectError,
)
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError)
_CHANGED = (asyncpg.SyntaxOrAccessError, asyncpg.InvalidSchemaNameError)
_REFUSED = (
    asyncpg.InvalidDatetimeFormatError,
    asyncpg.DatetimeFieldOverflowError,
    asyncpg.InvalidTimeZoneDisplacementValueError,
    asyncpg.InvalidParameterValueError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.CharacterNotInRepertoireError,
)
_OURS: Final[Sequence[tuple[tuple[type[Exception], ...], type[Exception]]]] = (
    (_BUSY, BusyError),
    ((asyncpg.QueryCanceledError,), SlowError),
    ((asyncpg.InsufficientPrivilegeError,), NotAllowedError),
    (_CHANGED, ChangedError),
    (_REFUSED, ValueRefusedError),
)
# The statement is still right, but its result has other types than when it was prepared.
OUTDATED: Final = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


def as_ours(error: Exception, *, closed: bool) -> Exception | None:
    """Return the error of this module that an error of asyncpg is, None if it is the query's own.

    Args:
        error: of a query.
        closed: whether its connection is closed now.
    """
    if isinstance(error, _LOST):
        behind = isinstance(error, _LOST_BEHIND) and from_server(error)
        return None if behind else LostError()
    for theirs, ours in _OURS:
        if isinstance(error, theirs):
            return ours()
    return LostError() if closed and isinstance(error, asyncpg.InterfaceError) else None


def from_server(error: BaseException) -> bool:
    """Tell whether an error is one that PostgreSQL has sent, and goes on after it."""
    return getattr(error.__cause__ or error, "severity_en", None) == "ERROR"


def describe(error: BaseException) -> str:
    """Name an error and its cause without their words, which may hold values or a password.

    Those of our own errors hold none.
    """
    error = error.__cause__ or error
    if isinstance(error, LostError | ChangedError) and error.args:
        return str(error)
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} [{state}]" if state else type(error).__name__
