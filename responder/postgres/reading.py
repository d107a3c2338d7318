"""The catalog read through a connection, with a timeout of its own."""

# A lookup that takes longer than its caller waits is of no use, and a catalog read late is: without
# the tables there are no lookups at all. What keeps the catalog from being read becomes an error
# that says so, in words, because it is the operator's to mend, and every lookup is told.

from __future__ import annotations

from typing import Any, Final

from responder.errors import UnavailableError
from responder.postgres.connection import Connection
from responder.postgres.errors import BusyError, LostError, SlowError, describe

TIMEOUT: Final = 30.0  # seconds that a query of the catalog may take


class CatalogReader:
    """Reads the catalog through a connection.

    Its methods raise UnavailableError with the cause in words, or LostError or BusyError.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """Run a query."""
        try:
            return await self._connection.fetch(sql, *arguments, within=TIMEOUT)
        except (LostError, BusyError):
            raise
        except SlowError:
            raise _unreadable(f"a query took longer than {TIMEOUT:g} s") from None
        except Exception as error:
            raise _unreadable(describe(error)) from error

    async def accepts(self, sql: str, *arguments: object) -> bool:
        """Tell whether the arguments of a query are values of their types."""
        return await self._connection.accepts(sql, *arguments)


def _unreadable(why: str) -> UnavailableError:
    return UnavailableError(f"PostgreSQL's catalog cannot be read: {why}")
