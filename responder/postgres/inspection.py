"""One connection through which an operator's command looks at a database and its catalog."""

# A service goes on trying until PostgreSQL answers. A command tries once, and says in words why
# there is no connection. PostgreSQL's and asyncpg's own words may hold a role, a row or a password,
# so only the operating system's are passed on.

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from responder.errors import UnavailableError
from responder.postgres.connection import Connection, connect, describe
from responder.postgres.dsn import Dsn

TIMEOUT: Final = 10.0  # seconds to connect; PostgreSQL gives a statement up after half of them

# By SQLSTATE (PostgreSQL's manual, Appendix A, "PostgreSQL Error Codes").
_REFUSALS: Final = {
    "28P01": "the password is wrong",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "53300": "there are too many connections",
}


@asynccontextmanager
async def connected(dsn: Dsn) -> AsyncIterator[Connection]:
    """Connect for as long as the context is open.

    Raises UnavailableError that says why there is no connection.
    """
    try:
        connection = await connect(dsn, timeout=TIMEOUT)
    except Exception as error:
        raise UnavailableError(f"cannot connect to PostgreSQL: {_why(error)}") from error
    try:
        yield connection
    finally:
        connection.terminate()


def _why(error: Exception) -> str:
    refusal = _REFUSALS.get(getattr(error, "sqlstate", ""))
    if refusal:
        return refusal
    if isinstance(error, TimeoutError):
        return "nobody answers"
    return str(error) if isinstance(error, OSError) else describe(error)
