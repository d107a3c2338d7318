"""Better Auth's tables as they are now, found again when they change."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from responder import queries, schema
from responder.errors import OperatorError, SchemaError

log = logging.getLogger(__name__)

# How soon the catalog is read again after it has not helped (seconds): while there are no tables, and
# when a query was refused though nothing had changed.
MISSING_INTERVAL: Final = 1.0
UNCHANGED_INTERVAL: Final = 0.1
# Unasked it is read once in this time, or less often where it is so large that reading it would take
# more than this share of a connection's time.
MIN_INTERVAL: Final = 1.0
MAX_SHARE: Final = 0.02


class Source(Protocol):
    """What the catalog is read from."""

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """Run a query."""

    async def accepts(self, sql: str, *arguments: object) -> bool:
        """Tell whether the arguments of a query are values of their types."""


class Discovery:
    """Knows the tables, and the statements made for them.

    Args:
        users, members: tables that overrule the search, see `schema.read`.
        timezone: of timestamps without zone.
    """

    def __init__(self, *, users: str | None, members: str | None, timezone: str) -> None:
        self.schema: schema.Schema | None = None
        self.settled = asyncio.Event()
        """Set once the catalog has been read, with a good result or a bad one."""
        self.interval = MIN_INTERVAL
        """Seconds until it is worth while to read the catalog again, unasked."""
        self._tables = {"users": users, "members": members}
        self._timezone = timezone
        self._statements: queries.Statements | None = None
        self._problem: SchemaError | None = None
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._helped = True  # whether reading the catalog last changed anything

    @property
    def statements(self) -> queries.Statements:
        """The SQL for the tables as they are; raises SchemaError while they are not found."""
        if self._statements is None:
            raise self._problem or SchemaError("the tables have not been looked for yet")
        return self._statements

    async def read(self, source: Source, *, instead_of: schema.Schema | None) -> bool:
        """Read the catalog, unless somebody has since; tell whether the tables are others now.

        Raises SchemaError if they are not found.
        """
        async with self._reading:
            if self.schema is not instead_of:
                return True
            ago = asyncio.get_running_loop().time() - self._read_at
            if self._problem is not None and ago < MISSING_INTERVAL:
                raise self._problem
            if not self._helped and ago < UNCHANGED_INTERVAL:
                return False
            start = asyncio.get_running_loop().time()
            try:
                found = await self._find(source)
            except SchemaError as problem:
                self._miss(problem)
                raise
            self._helped = found != self.schema
            if self._helped:
                self._take(found)
            self._read_at = asyncio.get_running_loop().time()
            self.interval = max(MIN_INTERVAL, (self._read_at - start) / MAX_SHARE)
            self.settled.set()
            return self._helped

    async def _find(self, source: Source) -> schema.Schema:
        columns = await source.fetch(queries.CATALOG_COLUMNS)
        references = await source.fetch(queries.CATALOG_REFERENCES)
        found = schema.read(
            [schema.CatalogColumn(*row) for row in columns],
            [schema.CatalogReference(*row) for row in references],
            **self._tables,
        )
        if not await source.accepts(queries.TIMEZONE, self._timezone):
            raise OperatorError("RESPONDER_TIMEZONE: PostgreSQL does not know this time zone")
        return found

    def _take(self, found: schema.Schema) -> None:
        self.schema, self._problem = found, None
        self._statements = queries.statements(found, timezone=self._timezone)
        log.info("users are in %s, members in %s", found.users, found.members or "no table")

    def _miss(self, problem: SchemaError) -> None:
        if self._problem is None or self._problem.message != problem.message:
            log.error("%s", problem)
        self.schema, self._statements, self._problem = None, None, problem
        self._read_at = asyncio.get_running_loop().time()
        self.settled.set()
