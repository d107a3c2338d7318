"""Better Auth's tables as they are now, found again when they change."""

# The tables are worked out from the catalog once (see `decision`), and again when a query or a look
# at the catalog says that they have changed. The result is a value that is replaced whole, so that
# each query is made of one schema.
#
# What was found last is remembered while it is gone, with the name under which each table was found
# first: a migration may rename a table and create another under that name, in one transaction or in
# steps. Between two steps there may be no table that is meant; then lookups wait.
#
# A table that is gone for long is gone for good. Of users there is no reply without them. Without
# members there is: then the database is one without organizations.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, Protocol

from responder.errors import OperatorError, SchemaError, UnavailableError
from responder.postgres import catalog, decision
from responder.postgres.catalog import Catalog, CatalogColumn, CatalogKey, CatalogReference
from responder.postgres.fields import plain
from responder.postgres.lookups import Statements, statements
from responder.postgres.near import Hint
from responder.postgres.nearest import SHOWN
from responder.postgres.overrides import NO_OVERRIDES, Overrides
from responder.postgres.schema import Schema
from responder.postgres.search_path import schemas
from responder.postgres.visibility import DEFAULT_RULES, Rules
from responder.throttling import ThrottledLog

log: Final = logging.getLogger(__name__)
repeated: Final = ThrottledLog(__name__)

# How soon the catalog is read again (seconds): while there are no tables, and unasked; less often
# where it is so large that reading it would take more than this share of a connection's time. It is
# read sooner where it has been written, but an application that makes temporary tables writes it
# all the time.
MISSING_INTERVAL, MISSING_SHARE = 0.1, 0.1
WATCH_INTERVAL, UNASKED_SHARE, WRITTEN_SHARE = 1.0, 0.002, 0.02
FOR_GOOD = 30.0  # seconds after which members that are gone are taken to have been dropped


class Reader(Protocol):
    """What the catalog is read from: a connection to PostgreSQL."""

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """Run a query."""


class Source(Reader, Protocol):
    """What the tables are looked for in."""

    async def accepts(self, sql: str, *arguments: object) -> bool:
        """Tell whether the arguments of a query are values of their types."""


async def fetch_catalog(reader: Reader, overrides: Overrides = NO_OVERRIDES) -> Catalog:
    """Return what the catalog says of all tables that can matter, as `decision.find` takes it."""
    tables = [table[-1] for table in (overrides.users, overrides.members) if table]
    by_hand = [
        (name, plain(field))
        for columns in overrides.columns.values()
        for field, name in columns.items()
        if name is not None
    ]
    names, fields = ([each[at] for each in by_hand] for at in range(2))
    return await _fetch_of(reader, await reader.fetch(catalog.RELEVANT, tables, names, fields))


async def _fetch_followed(reader: Reader, found: Schema) -> Catalog:
    """Return what the catalog says of tables that were found, and of those that bear their names.

    What a lookup waits for is read in a moment, however many tables there are.
    """
    homes = [table.home or table for table in found.read]
    oids = [int(table.relation) for table in found.read]
    schemas, names = [home.schema for home in homes], [home.name for home in homes]
    return await _fetch_of(reader, await reader.fetch(catalog.FOLLOWED, oids, schemas, names))


async def _fetch_of(reader: Reader, tables: Sequence[Sequence[Any]]) -> Catalog:
    oids = [oid for (oid,) in tables]
    return Catalog(
        [CatalogColumn(*row) for row in await reader.fetch(catalog.COLUMNS, oids)],
        [CatalogReference(*row) for row in await reader.fetch(catalog.REFERENCES, oids)],
        [CatalogKey(*row) for row in await reader.fetch(catalog.KEYS, oids)],
        tuple(
            name
            for setting, role in await reader.fetch(catalog.SEARCH_PATH)
            for name in schemas(setting, role=role)
        ),
    )


class Discovery:
    """Knows the tables, and the statements made for them.

    Args:
        overrides: what the operator has said about the tables.
        timezone: of timestamps without zone.
        rules: what callers may see.
    """

    def __init__(
        self, *, overrides: Overrides, timezone: str, rules: Rules = DEFAULT_RULES
    ) -> None:
        self.schema: Schema | None = None
        self.settled: asyncio.Event = asyncio.Event()
        """Set once the catalog has been read, with a good result or a bad one."""
        self._overrides = overrides
        self._timezone = timezone
        self._rules = rules
        self._before: Schema | None = None  # what was found last, even if it is gone now
        self._missing_since: float | None = None
        self.found: Statements | None = None
        self._problem: SchemaError | None = None
        self._hinted: set[str] = set()
        self._discovering = asyncio.Lock()
        self._missed_at = float("-inf")
        self._duration = 0.0  # of reading all of the catalog, in seconds
        self._read_at = float("-inf")
        self._written: int | None = None  # see `catalog.WRITTEN`, before all of it was read

    @property
    def statements(self) -> Statements:
        """The SQL for the tables as they are; raises SchemaError while they are not found."""
        if self.found is None:
            raise self._raised(self._problem)
        return self.found

    @staticmethod
    def _raised(problem: SchemaError | None) -> SchemaError:
        """Return the problem to be raised once more.

        Raised again as it is, it would keep the frames of each time, and all that they hold.
        """
        if problem is None:
            return SchemaError("the tables have not been looked for yet")
        return problem.with_traceback(None)

    def lost_within(self, seconds: float) -> SchemaError | None:
        """Return why the tables that were there are missing, if they have been for less than that.

        Then a migration may be between two steps, and its next bring them back.
        """
        since = self._missing_since
        if self._before is None or since is None or perf_counter() - since >= seconds:
            return None
        return self._problem

    async def watch(self, source: Source) -> None:
        """Look whether tables have changed or come of which no query tells.

        Raises SchemaError if the tables are not found.
        """
        ((written,),) = await source.fetch(catalog.WRITTEN)
        share = UNASKED_SHARE if written == self._written else WRITTEN_SHARE
        if self.schema is None or perf_counter() - self._read_at >= self._duration / share:
            await self.discover(source, instead_of=self.schema, unasked=True)
            self._written = written

    async def discover(
        self, source: Source, *, instead_of: Schema | None, unasked: bool = False
    ) -> bool:
        """Read the catalog, unless another task just has; tell whether the tables are others now.

        Args:
            source: what it is read from.
            instead_of: the schema that did not fit any more. If it is not the present one, the
                catalog has been read since.
            unasked: whether all of it is to be read, because no query has said what has changed.

        Raises SchemaError if the tables are not found.
        """
        async with self._discovering:
            if self.schema is not instead_of:
                return True
            if self._problem and perf_counter() - self._missed_at < MISSING_INTERVAL:
                raise self._raised(self._problem)
            try:
                found = None if unasked else await self._follow(source)
                found = found or await self._find(source)
            except SchemaError as problem:
                self._miss(problem)
                raise
            except UnavailableError as problem:  # the catalog cannot be read
                if self.schema is None:
                    self._miss(SchemaError(problem.message))
                else:
                    repeated.error("%s", problem, kind=problem.message)
                raise
            changed = found != self.schema
            if changed:
                self._adopt(found)
            self.settled.set()
            return changed

    async def _follow(self, source: Source) -> Schema | None:
        """Return the tables that were found as they are now, None if all have to be looked at."""
        if self._before is None:
            return None
        catalog_ = await _fetch_followed(source, self._before)
        return decision.follow(catalog_, self._overrides, self._before)

    async def _find(self, source: Source) -> Schema:
        start = perf_counter()
        if self._problem and start - self._read_at < self._duration / MISSING_SHARE:
            raise self._raised(self._problem)
        try:
            catalog_ = await fetch_catalog(source, self._overrides)
        finally:
            self._read_at = perf_counter()
            self._duration = self._read_at - start
        before = self._before
        decided = decision.decide(catalog_, self._overrides, before=before)
        if decided.problem and before and self._missing_since and not self.lost_within(FOR_GOOD):
            without = replace(before, members=None)
            decided = decision.decide(catalog_, self._overrides, before=without)
        found = decided.schema
        if not await source.accepts(catalog.TIMEZONE, self._timezone):
            raise OperatorError("RESPONDER_TIMEZONE: PostgreSQL does not know this time zone")
        self._hint(decided.hints)
        return found

    def _adopt(self, found: Schema) -> None:
        self._log(found)
        self.found = statements(found, timezone=self._timezone, rules=self._rules)
        self.schema, self._problem, self._missing_since = found, None, None
        self._before = found

    def _log(self, found: Schema) -> None:
        if self.schema and self.schema.shape == found.shape:
            return
        if self._before and self._before.members and not found.members:
            log.warning("%s is gone for good: there are no members", self._before.members)
        log.info("users are in %s, members in %s", found.users, found.members or "no table")
        if found.formers:
            log.info("following a renamed table costs each lookup a round trip, until a restart")
        for field in found.lost:
            log.warning("%s answers null: its column is gone", field)
        for table in found.tables:
            if table.row_security:
                log.warning("row-level security decides which rows of %s are seen", table)

    def _hint(self, hints: Iterable[Hint]) -> None:
        """Log what the operator may want to set, once."""
        serious = [str(each) for each in hints if each.serious]
        for each in serious[:SHOWN]:
            if each not in self._hinted:
                log.warning("%s", each)
        self._hinted.update(serious)

    def _miss(self, problem: SchemaError) -> None:
        if self._problem is None or self._problem.message != problem.message:
            log.error("%s", problem)
        self.schema, self.found, self._problem = None, None, problem
        self._missed_at = perf_counter()
        if self._missing_since is None:
            self._missing_since = self._missed_at
        self.settled.set()
