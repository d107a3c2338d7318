"""One connection through which an operator's command looks at a database and its catalog."""

# A service goes on trying until PostgreSQL answers. A command tries once, and says in words why
# there is no connection.

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from responder.errors import UnavailableError
from responder.postgres.connection import Connection, connect
from responder.postgres.dsn import Dsn
from responder.postgres.refusals import why

TIMEOUT: Final = 10.0  # seconds to connect; PostgreSQL gives a statement up after half of them


@asynccontextmanager
async def connected(dsn: Dsn) -> AsyncIterator[Connection]:
    """Connect for as long as the context is open.

    Raises UnavailableError that says why there is no connection.
    """
    try:
        connection = await connect(dsn, timeout=TIMEOUT)
    except Exception as error:
        raise UnavailableError(f"cannot connect to PostgreSQL: {why(error)}") from error
    try:
        yield connection
    finally:
        connection.terminate()
