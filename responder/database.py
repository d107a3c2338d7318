"""Connections, discovery, fetches; asyncpg's errors become ours."""

# Strategy: a few connections are held for the life of the process, each by a task of its own that
# takes a batch, answers it, and takes the next (see `batching`). There is no pool: acquiring and
# releasing would cost more than the lookup, and resetting a session that never changes would cost a
# round trip. A task without a connection takes no batch, so what arrives during an outage waits for
# the connection that comes back first, or for its deadline. Once an outage has outlasted one timeout
# nobody is left waiting in vain: lookups are refused until a connection succeeds.
#
# PostgreSQL says by itself that the schema has changed, by refusing a query. Then the catalog is read
# again, once for all who were refused, and they are asked again with the new SQL.
#
# A failing query has lost its connection (LostError), has someone in its way (BusyError), no longer fits
# the tables (ChangedError), or was given what is no value of a column (ValueRefusedError). Any other
# failure is the query's own, and `batching` narrows it down to the key that makes it fail.

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from responder import queries, schema
from responder.batching import Answer, Batch, Batching, Done, Lookup
from responder.errors import (
    InternalError,
    RequestTimeoutError,
    ResponderError,
    SchemaError,
    SettingsError,
    UnavailableError,
)

log = logging.getLogger(__name__)

Record = asyncpg.Record

# How long a query may outlive the last of its callers before its connection is given up (seconds).
# PostgreSQL's own statement_timeout ends it much earlier, unless the network has swallowed it.
GRACE: Final = 0.25
MAX_BACKOFF: Final = 1.0  # between attempts to connect (seconds)
REDISCOVERY_INTERVAL: Final = 1.0  # while tables are missing (seconds)


class LostError(Exception):
    """The connection is gone, or PostgreSQL is about to end it."""


class BusyError(Exception):
    """Someone holds a lock in the way, or a standby gave the query up for its replay."""


class ChangedError(Exception):
    """PostgreSQL no longer knows a name or a type that the query was made for."""


class ValueRefusedError(Exception):
    """An argument is no value of the type it was cast to."""


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    OSError,
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
# The statement is still right, but its result has other types than when it was prepared.
_OUTDATED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


class Connection:
    """A connection that never changes its session, with the statements prepared on it."""

    def __init__(self, connection: asyncpg.Connection[Record]) -> None:
        self._connection = connection
        self._statements: dict[str, asyncpg.prepared_stmt.PreparedStatement[Record]] = {}
        self._names = itertools.count()

    async def fetch(self, sql: str, *arguments: object) -> list[Record]:
        """Run a query; raises one of this module's errors, or the query's own failure."""
        try:
            try:
                return await self._fetch(sql, arguments)
            except _OUTDATED:
                del self._statements[sql]
                return await self._fetch(sql, arguments)
        except _LOST as error:
            raise LostError(describe(error)) from error
        except _BUSY as error:
            raise BusyError(describe(error)) from error
        except _CHANGED as error:
            raise ChangedError(describe(error)) from error
        except _REFUSED as error:
            raise ValueRefusedError(describe(error)) from error
        except asyncpg.InterfaceError as error:
            if self._connection.is_closed():
                raise LostError(describe(error)) from error
            raise

    async def _fetch(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        statement = self._statements.get(sql)
        if statement is None:
            # Without a name asyncpg would have it parsed and planned for each execution.
            name = f"responder_{next(self._names)}"
            statement = await self._connection.prepare(sql, name=name)
            self._statements[sql] = statement
        return await statement.fetch(*arguments)

    def terminate(self) -> None:
        """Close at once, without a word to the server."""
        self._connection.terminate()


class Database:
    """Better Auth's tables, open for lookups while its context is.

    Args:
        url: the connection string.
        connections: how many to hold.
        timeout: seconds after which an outage is no longer waited out. A statement may run for half
            of it, so that there is time to ask again.
        max_pending: how many lookups may wait or be under way.
        users, members: tables that overrule discovery, see `schema.read`.
        timezone: of timestamps without zone.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout: float,
        max_pending: int,
        users: str | None = None,
        members: str | None = None,
        timezone: str = "UTC",
    ) -> None:
        self._url = url
        self._connections = connections
        self._timeout = timeout
        self._tables = {"users": users, "members": members}
        self._timezone = timezone
        self._schema: schema.Schema | None = None
        self._lookups: queries.Lookups | None = None
        self._problem: SchemaError | None = None
        self._discovering = asyncio.Lock()
        self._discovered_at = float("-inf")
        self._connected = 0
        self._down_since: float | None = None
        self._settled = asyncio.Event()  # once discovery has come to a result, good or bad
        self._probe = Lookup[None, Connection](_probe, max_batch=max_pending)
        self.batching = Batching[Connection](max_pending=max_pending, late=self._late)
        self.batching.add(self._probe)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Database]:
        """Hold the connections; leaving gives up whatever is still being answered."""
        self._down_since = asyncio.get_running_loop().time()
        keepers = [
            asyncio.create_task(self._keep(), name=f"postgres-{n}")
            for n in range(self._connections)
        ]
        try:
            yield self
        finally:
            self.batching.fail(UnavailableError("shutting down"))
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    @property
    def lookups(self) -> queries.Lookups:
        """The SQL for the tables as they are; raises SchemaError while they are not found."""
        if self._lookups is None:
            raise self._problem or SchemaError("the tables have not been looked for yet")
        return self._lookups

    def load(
        self, lookup: Lookup[Any, Connection], key: Any, *, deadline: float, done: Done
    ) -> None:
        """Ask for a key (see `Batching.load`).

        Raises UnavailableError if too much is waiting, or PostgreSQL has been out of reach for
        longer than the timeout.
        """
        down = self._down_since
        if down is not None and asyncio.get_running_loop().time() - down > self._timeout:
            raise UnavailableError("PostgreSQL is out of reach")
        self.batching.load(lookup, key, deadline=deadline, done=done)

    async def check(self) -> None:
        """Return once PostgreSQL answers and the tables are known; else raise UnavailableError."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def done(answer: Answer) -> None:
            if not answered.cancelled():
                answered.set_result(answer)

        self.load(self._probe, None, deadline=loop.time() + self._timeout, done=done)
        answer = await answered
        if isinstance(answer, ResponderError):
            raise answer

    async def settled(self) -> None:
        """Wait for the first discovery; raises SchemaError if it failed."""
        await self._settled.wait()
        _ = self.lookups

    def _late(self) -> ResponderError:
        if self._connected == 0:
            return UnavailableError("PostgreSQL is out of reach")
        return RequestTimeoutError()

    async def _keep(self) -> None:
        backoff = 0.0
        while True:
            await asyncio.sleep(backoff * random.random())  # noqa: S311 - jitter is no secret
            try:
                connection = await self._connect()
            except LostError as error:
                if backoff == 0:
                    log.warning("cannot connect to PostgreSQL: %s", error)
                backoff = min(max(2 * backoff, 0.05), MAX_BACKOFF)
                continue
            backoff = 0.05
            self._connected += 1
            self._down_since = None
            try:
                await self._serve(connection)
            except LostError as error:
                log.warning("lost a connection to PostgreSQL: %s", error)
            except Exception:
                log.exception("a connection to PostgreSQL failed")
            finally:
                connection.terminate()
                self._connected -= 1
                if self._connected == 0:
                    self._down_since = asyncio.get_running_loop().time()

    async def _connect(self) -> Connection:
        milliseconds = round(self._timeout * 500)
        try:
            connection = await asyncpg.connect(
                self._url,
                timeout=self._timeout,
                statement_cache_size=0,  # statements are held in Connection
                server_settings={
                    "application_name": "responder",
                    "default_transaction_read_only": "on",
                    "statement_timeout": str(milliseconds),
                    # Just before the other, to know that waiting is all that is wrong.
                    "lock_timeout": str(round(milliseconds * 0.9)),
                    "jit": "off",
                    "DateStyle": "ISO",  # cursors hold times as PostgreSQL writes them
                    # One plan for all values, by an index wherever there is one, and not by what
                    # the tables held when a statement was first used: planning a lone lookup each
                    # time costs more than executing it.
                    "plan_cache_mode": "force_generic_plan",
                    "enable_seqscan": "off",
                },
            )
        except (*_LOST, asyncpg.InterfaceError, asyncpg.PostgresError, ValueError) as error:
            # Whatever keeps us from connecting (a password being rotated, a database being
            # restored) may pass.
            raise LostError(describe(error)) from error
        return Connection(connection)

    async def _serve(self, connection: Connection) -> None:
        if self._lookups is None:
            await self._discover_first(connection)
        while True:
            batch = await self.batching.take()
            try:
                async with asyncio.timeout_at(batch.deadline + GRACE):
                    await self._answer(connection, batch)
            except TimeoutError:
                batch.fail(RequestTimeoutError())
                raise LostError("a query outlived its deadline") from None
            except LostError:
                batch.put_back(together=len(batch.waiters))
                raise
            except asyncio.CancelledError:
                batch.fail(UnavailableError("shutting down"))
                raise

    async def _answer(self, connection: Connection, batch: Batch[Any, Connection]) -> None:
        made_for = self._schema
        try:
            if self._lookups is None:
                await self._discover(connection, instead_of=None)
            batch.settle(await batch.lookup.fetch(connection, batch.keys))
        except LostError:
            raise
        except BusyError:
            batch.put_back(together=len(batch.waiters))
        except ChangedError as error:
            try:
                changed = await self._discover(connection, instead_of=made_for)
            except SchemaError as problem:
                batch.fail(problem)
                return
            if changed:
                batch.put_back(together=len(batch.waiters))
            else:
                self._narrow(batch, error)
        except SchemaError as problem:
            batch.fail(problem)
        except asyncpg.QueryCanceledError as error:
            # One slow key must not cost the others their deadline too: no time for halves.
            self._narrow(batch, error, together=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker lives on
            self._narrow(batch, error)

    def _narrow(
        self, batch: Batch[Any, Connection], error: Exception, *, together: int | None = None
    ) -> None:
        if len(batch.waiters) > 1:
            batch.put_back(together=together or len(batch.waiters) // 2)
        elif isinstance(error, asyncpg.QueryCanceledError):
            batch.fail(RequestTimeoutError())
        else:
            log.error("a lookup failed: %s", describe(error.__cause__ or error))
            batch.fail(InternalError())

    async def _discover_first(self, connection: Connection) -> None:
        try:
            await self._discover(connection, instead_of=None)
        except SchemaError as problem:
            log.error("%s", problem)  # noqa: TRY400 - the message is all there is to say

    async def _discover(self, connection: Connection, *, instead_of: schema.Schema | None) -> bool:
        """Read the catalog, unless another has meanwhile; tell whether the tables are others now."""
        async with self._discovering:
            if self._schema is not instead_of:
                return True
            now = asyncio.get_running_loop().time()
            if self._problem and now - self._discovered_at < REDISCOVERY_INTERVAL:
                raise self._problem
            self._discovered_at = now
            try:
                found = await self._read_catalog(connection)
            except SchemaError as problem:
                self._schema, self._lookups, self._problem = None, None, problem
                self._settled.set()
                raise
            changed = found != self._schema
            if changed:
                self._schema, self._problem = found, None
                self._lookups = queries.lookups(found, timezone=self._timezone)
                log.info("users are in %s, members in %s", found.users, found.members or "no table")
            self._settled.set()
            return changed

    async def _read_catalog(self, connection: Connection) -> schema.Schema:
        columns = await connection.fetch(queries.CATALOG_COLUMNS)
        references = await connection.fetch(queries.CATALOG_REFERENCES)
        return schema.read(
            [schema.CatalogColumn(*row) for row in columns],
            [schema.CatalogReference(*row) for row in references],
            **self._tables,
        )


async def _probe(connection: Connection, keys: Sequence[None]) -> Sequence[Answer]:
    await connection.fetch("select 1")
    return [b""] * len(keys)


def describe(error: BaseException) -> str:
    """Name an error without its words, which may hold values of rows or a password."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} [{state}]" if state else type(error).__name__


def check_url(url: str) -> None:
    """Raise SettingsError for a connection string that cannot be read."""
    if not url.startswith(("postgres://", "postgresql://")):
        raise SettingsError("DATABASE_URL: expected a postgres:// or postgresql:// URI")
