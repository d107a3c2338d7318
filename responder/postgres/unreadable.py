"""What a lookup may do without, where PostgreSQL fails to compute it."""

# Additional fields have types of the application's own, whose conversion to JSON may run functions
# of its own. One that fails takes the whole lookup with it, however good the rest is. Then each
# field is tried alone, on the same keys, and those that fail are null. That takes several queries,
# each time anew: the next row may be a good one.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from responder.postgres.additional import AdditionalField
from responder.postgres.connection import Connection, Record
from responder.postgres.errors import (
    BusyError,
    LostError,
    NotAllowedError,
    SlowError,
    describe,
    from_server,
)
from responder.postgres.lookups import Statements
from responder.throttling import ThrottledLog

repeated: Final = ThrottledLog(__name__)

Answers = TypeVar("Answers")


async def may_be_of_values(
    connection: Connection, statements: Statements, error: Exception
) -> bool:
    """Tell whether an error may be one of computing what is read.

    Raises ChangedError if the tables are not what they were.
    """
    if not from_server(error) or isinstance(error, BusyError | LostError | SlowError):
        return False
    await connection.check_version(statements)
    return True


async def without_unreadable(
    connection: Connection,
    statements: Statements,
    error: Exception,
    query: Callable[[Statements], tuple[str, Sequence[object], Callable[[list[Record]], Answers]]],
) -> Answers:
    """Run a lookup once more, without the additional fields that have made it fail.

    Args:
        connection: on which it has failed.
        statements: for the tables as they are.
        error: as `Connection.fetch_checked` has raised it.
        query: returns the lookup, of these statements or of others like them: SQL, its arguments,
            and what reads its rows.

    Raises the same error if that may be of no additional field, and what `fetch_checked` raises.
    """
    fields = statements.schema.additional
    if (
        not fields
        or isinstance(error, NotAllowedError)
        or not await may_be_of_values(connection, statements, error)
    ):
        raise error

    async def rows(unreadable: Iterable[AdditionalField]) -> list[Record]:
        variant = statements.without(unreadable)
        sql, arguments, _ = query(variant)
        return await connection.fetch_checked(variant, sql, *arguments)

    await rows(fields)
    unreadable = []
    for each in fields:
        try:
            await rows(other for other in fields if other != each)
        except Exception as problem:
            if not await may_be_of_values(connection, statements, problem):
                raise
            unreadable.append(each)
            cause = describe(problem)
            repeated.warning("%s cannot be read, and is null: %s", each, cause, kind=(each, cause))
    _, _, read = query(statements)
    return read(await rows(unreadable))
