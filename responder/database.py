"""Connections and fetches; asyncpg's errors become ours."""

# Strategy: a few connections are held for the life of the process, each by a task of its own that
# takes a batch, answers it, and takes the next (see `batching`). There is no pool: acquiring and
# releasing would cost more than the lookup, and resetting a session that never changes would cost a
# round trip. A task without a connection takes no batch, so what arrives during an outage waits for
# the connection that comes back first, or for its deadline. Once an outage has outlasted one timeout
# nobody is left waiting in vain: lookups are refused until a connection succeeds.
#
# PostgreSQL says by itself that the tables have changed, by refusing a query or by having analysed it anew
# (see `queries`). Then the catalog is read again (see `discovery`), once for all who were concerned, and
# they are asked again with the new SQL. A table that has come is found by reading the catalog about once
# a second.
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
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from responder import schema
from responder.batching import Answer, Batch, Batching, Done, Key, Lookup
from responder.discovery import Discovery
from responder.errors import (
    InternalError,
    RequestTimeoutError,
    ResponderError,
    SchemaError,
    UnavailableError,
)
from responder.queries import ANALYSED, ORDINAL, Statements

log = logging.getLogger(__name__)

Record = asyncpg.Record

# How much later than PostgreSQL's own statement_timeout an answer may arrive (seconds). One that does
# not has been swallowed by the network, with its connection.
GRACE: Final = 0.25
MIN_BACKOFF: Final = 0.05  # between attempts to connect (seconds)
MAX_BACKOFF: Final = 1.0
PAUSE: Final = 0.01  # before asking again where somebody is in the way (seconds)


class LostError(Exception):
    """The connection is gone, or PostgreSQL is about to end it."""


class BusyError(Exception):
    """Someone holds a lock in the way, or a standby gave the query up for its replay."""


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
    OSError,  # a timeout is one
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


class Session:
    """A connection that never changes its session, with the statements prepared on it.

    Args:
        connection: held by nobody else.
        patience: seconds after which a query without an answer has lost its connection.
    """

    def __init__(self, connection: asyncpg.Connection[Record], *, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._statements: dict[str, asyncpg.prepared_stmt.PreparedStatement[Record]] = {}
        self._analysed: dict[str, int] = {}  # when, by SQL; see `queries`
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
            raise LostError from error
        except _BUSY as error:
            raise BusyError from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise NotAllowedError from error
        except _CHANGED as error:
            raise ChangedError from error
        except _REFUSED as error:
            raise ValueRefusedError from error
        except asyncpg.InterfaceError as error:
            if self._connection.is_closed():
                raise LostError from error
            raise

    async def look_up(self, statements: Statements, sql: str, *arguments: object) -> list[Record]:
        """Run a lookup; raises ChangedError too if the tables are not what it was made for."""
        rows = await self.fetch(sql, *arguments)
        analysed = rows[0][ANALYSED]
        if self._analysed.get(sql) != analysed:
            await self._check_version(statements)
            self._analysed[sql] = analysed
        return [] if rows[0][ORDINAL] is None else rows

    async def _check_version(self, statements: Statements) -> None:
        (row,) = await self.fetch(statements.version)
        if row["version"] != statements.schema.version:
            raise ChangedError

    async def accepts(self, sql: str, *arguments: object) -> bool:
        """Tell whether PostgreSQL takes the arguments of a query for values of their types."""
        try:
            await self.fetch(sql, *arguments)
        except ValueRefusedError:
            return False
        return True

    def terminate(self) -> None:
        """Close at once, without a word to the server."""
        self._connection.terminate()

    async def _fetch(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        async with asyncio.timeout(self._patience):
            statement = self._statements.get(sql)
            if statement is None:
                # Without a name asyncpg would have it parsed and planned for each execution.
                name = f"responder_{next(self._names)}"
                statement = await self._connection.prepare(sql, name=name)
                self._statements[sql] = statement
            return await statement.fetch(*arguments)


class Database:
    """Better Auth's tables, open for lookups while its context is.

    Args:
        url: the connection string.
        discovery: finds the tables.
        connections: how many to hold.
        timeout: seconds after which an outage is no longer waited out. A statement may run for half
            of it, so that there is time to ask again.
        max_pending: how many lookups may wait or be under way.
    """

    def __init__(
        self,
        url: str,
        discovery: Discovery,
        *,
        connections: int,
        timeout: float,
        max_pending: int,
    ) -> None:
        self._url = url
        self._discovery = discovery
        self._connections = connections
        self._timeout = timeout
        self._connected = 0
        self._down_since: float | None = None
        self._probe = Lookup[None, Session](self._fetch_probe, max_batch=max_pending)
        self.batching = Batching[Session](max_pending=max_pending, late=self._late)
        self.batching.add(self._probe)
        self._reread = Lookup[schema.Schema | None, Session](self._fetch_catalog, max_batch=1)
        self.batching.add(self._reread)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Database]:
        """Hold the connections; leaving gives up whatever is still being answered."""
        self._down_since = asyncio.get_running_loop().time()
        keepers = [
            asyncio.create_task(self._keep(), name=f"postgres-{n}")
            for n in range(self._connections)
        ]
        keepers.append(asyncio.create_task(self._watch(), name="postgres-watch"))
        try:
            yield self
        finally:
            self.batching.fail(UnavailableError("shutting down"))
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    @property
    def statements(self) -> Statements:
        """The SQL for the tables as they are; raises SchemaError while they are not found."""
        return self._discovery.statements

    def load(self, lookup: Lookup[Any, Session], key: Any, *, deadline: float, done: Done) -> None:
        """Ask for a key (see `Batching.load`).

        Raises UnavailableError if too much is waiting, or PostgreSQL has been out of reach for
        longer than the timeout.
        """
        self._check_up()
        self.batching.load(lookup, key, deadline=deadline, done=done)

    async def check(self) -> None:
        """Return once PostgreSQL has let us read the tables; raises the ResponderError that kept it.

        However much is waiting: that is no reason to be taken for dead.
        """
        answer = await self._ask(self._probe, None)
        if isinstance(answer, ResponderError):
            raise answer

    async def _ask(self, lookup: Lookup[Key, Session], key: Key) -> Answer:
        """Ask on our own behalf; raises UnavailableError while PostgreSQL is out of reach."""
        self._check_up()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def done(answer: Answer) -> None:
            if not answered.cancelled():
                answered.set_result(answer)

        deadline = loop.time() + self._timeout
        self.batching.load(lookup, key, deadline=deadline, done=done, urgent=True)
        return await answered

    def _check_up(self) -> None:
        down = self._down_since
        if down is not None and asyncio.get_running_loop().time() - down > self._timeout:
            raise UnavailableError("PostgreSQL is out of reach")

    def _late(self) -> ResponderError:
        if self._connected == 0:
            return UnavailableError("PostgreSQL is out of reach")
        return RequestTimeoutError()

    async def _fetch_probe(self, session: Session, keys: Sequence[None]) -> Sequence[Answer]:
        statements = self.statements
        await session.look_up(statements, statements.by_id, None, None, 0, False)
        return [b""] * len(keys)

    async def _fetch_catalog(
        self, session: Session, keys: Sequence[schema.Schema | None]
    ) -> Sequence[Answer]:
        await self._discovery.read(session, instead_of=keys[0])
        return [b""]

    async def _watch(self) -> None:
        """Read the catalog from time to time, for the tables that no query asks for yet."""
        while True:
            await asyncio.sleep(self._discovery.interval)
            with suppress(UnavailableError):
                await self._ask(self._reread, self._discovery.schema)

    async def _keep(self) -> None:
        backoff = MIN_BACKOFF
        while True:
            try:
                session = await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever keeps us from connecting may pass
                log.log(
                    logging.WARNING if backoff == MIN_BACKOFF else logging.DEBUG,
                    "cannot connect to PostgreSQL: %s",
                    describe(error),
                )
                await asyncio.sleep(backoff * random.random())  # noqa: S311 - jitter is no secret
                backoff = min(2 * backoff, MAX_BACKOFF)
                continue
            backoff = MIN_BACKOFF
            self._count(1)
            try:
                await self._serve(session)
            except LostError as error:
                log.warning("lost a connection to PostgreSQL: %s", describe(error))
            except Exception:
                log.exception("a connection to PostgreSQL failed")
            finally:
                session.terminate()
            self._count(-1)

    def _count(self, change: int) -> None:
        self._connected += change
        if self._connected == 0:
            log.warning("PostgreSQL is out of reach")
            self._down_since = asyncio.get_running_loop().time()
        elif self._down_since is not None:
            log.info("connected to PostgreSQL")
            self._down_since = None

    async def _connect(self) -> Session:
        milliseconds = round(self._timeout * 500)
        connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout,
            statement_cache_size=0,  # statements are held in Session
            server_settings={
                "application_name": "responder",
                "default_transaction_read_only": "on",
                "statement_timeout": str(milliseconds),
                # Just before the other, to know that waiting is all that is wrong.
                "lock_timeout": str(round(milliseconds * 0.9)),
                "jit": "off",
                "TimeZone": "UTC",
                "DateStyle": "ISO",  # cursors hold times as PostgreSQL writes them
                # One plan for all values, by an index wherever there is one, and not by what the
                # tables held when a statement was first used: planning a lone lookup each time
                # costs more than executing it.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
            },
        )
        session = Session(connection, patience=milliseconds / 1000 + GRACE)
        try:
            # Somebody in between may accept a connection that leads nowhere.
            await session.fetch("select 1")
        except BaseException:
            session.terminate()
            raise
        return session

    async def _serve(self, session: Session) -> None:
        if not self._discovery.settled.is_set():
            with suppress(SchemaError, BusyError):  # whoever asks is told
                await self._discovery.read(session, instead_of=None)
        while True:
            batch = await self.batching.take()
            try:
                await self._answer(session, batch)
            except LostError:
                batch.put_back_once()
                raise
            except asyncio.CancelledError:
                batch.fail(UnavailableError("shutting down"))
                raise

    async def _answer(self, session: Session, batch: Batch[Any, Session]) -> None:
        """End a batch, one way or another; raises LostError if that takes another connection."""
        try:
            made_for = self._discovery.schema
            if made_for is None:
                await self._discovery.read(session, instead_of=None)
            try:
                batch.settle(await batch.lookup.fetch(session, batch.keys))
            except (ChangedError, NotAllowedError):
                changed = await self._discovery.read(session, instead_of=made_for)
                if not changed and batch.again:
                    raise
                # Unchanged, it may be that a name was away for a moment.
                batch.put_back_once()
        except LostError:
            raise
        except BusyError:
            await asyncio.sleep(PAUSE)
            batch.put_back(together=len(batch.waiters))
        except ResponderError as error:
            batch.fail(error)
        except asyncpg.QueryCanceledError as error:
            # One slow key must not cost the others their deadline too: no time for halves.
            self._narrow(batch, error, together=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker lives on
            self._narrow(batch, error, together=len(batch.waiters) // 2)

    def _narrow(self, batch: Batch[Any, Session], error: Exception, *, together: int) -> None:
        """Ask again in smaller parts, until the key that fails is alone."""
        if len(batch.waiters) > 1:
            batch.put_back(together=together)
        elif isinstance(error, asyncpg.QueryCanceledError):
            batch.fail(RequestTimeoutError())
        else:
            log.error("a lookup failed: %s", describe(error))
            batch.fail(InternalError())


def describe(error: BaseException) -> str:
    """Name an error and its cause without their words, which may hold values or a password."""
    error = error.__cause__ or error
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} [{state}]" if state else type(error).__name__
