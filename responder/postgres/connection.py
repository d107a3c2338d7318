"""Connections to PostgreSQL, and queries on them; asyncpg's errors become ours."""

# A failing query has lost its connection (LostError), has someone in its way (BusyError), no longer fits
# the tables (ChangedError), or was given what is no value of a column (ValueRefusedError). Any other
# failure is the query's own, and `batching` narrows it down to the key that makes it fail.
#
# Settings are sent at the start of a session. A pooler that shares servers between clients refuses them,
# or drops them silently: then each query brings them along.

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from responder.errors import UnavailableError
from responder.postgres.dsn import Dsn, Server
from responder.postgres.lookups import Statements
from responder.postgres.quoting import literal
from responder.postgres.users import UserRow

log = logging.getLogger(__name__)

# One plan for all values, by an index wherever there is one, and not by what the tables held when a
# statement was first used: planning a lone lookup each time costs more than executing it. Nor by way of a
# bitmap, which pays for thousands of rows.
PLANNING: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}
# Remembering rows by their key does not pay either, where each key comes once. Earlier versions know no
# such setting, and would refuse a connection that brings it along.
NO_MEMOIZE: Final = {"enable_memoize": "off"}
_HAS_MEMOIZE: Final = (14,)
_KEEPS_SETTINGS: Final = "select current_setting('plan_cache_mode') = 'force_generic_plan'"

Record = asyncpg.Record

# How much later than PostgreSQL's own statement_timeout an answer may arrive (seconds). One that does
# not has been swallowed by the network, with its connection.
GRACE: Final = 0.25


class LostError(Exception):
    """The connection is gone, or PostgreSQL is about to end it."""


class BusyError(Exception):
    """Someone holds a lock in the way, or a standby gave the query up for its replay."""


class SlowError(Exception):
    """It took longer than a statement may."""


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
        self.connection = connection
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._since = inf  # when the query under way began, in the loop's time
        # One alarm for all queries: one for each would cost a lone lookup a tenth of our time.
        self._alarm = self._loop.call_later(patience, self._check)
        self._statements: dict[str, asyncpg.prepared_stmt.PreparedStatement[Record]] = {}
        self._analysed: dict[str, int] = {}  # when, by SQL; see `versions`
        self._names = itertools.count()

    async def fetch(self, sql: str, *arguments: object) -> list[Record]:
        """Run a query; raises one of this module's errors, or the query's own failure."""
        try:
            try:
                return await self._run(sql, arguments)
            except _OUTDATED:
                self._statements.pop(sql, None)
                return await self._run(sql, arguments)
        except _LOST as error:
            raise LostError from error
        except _BUSY as error:
            raise BusyError from error
        except asyncpg.QueryCanceledError as error:
            raise SlowError from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise NotAllowedError from error
        except _CHANGED as error:
            raise ChangedError from error
        except _REFUSED as error:
            raise ValueRefusedError from error
        except asyncpg.InterfaceError as error:
            if self.connection.is_closed():
                raise LostError from error
            raise

    async def look_up(self, statements: Statements, sql: str, *arguments: object) -> list[Record]:
        """Run a lookup; raises ChangedError too if the tables are not what it was made for."""
        rows = await self.fetch(sql, *arguments)
        analysed = rows[0][UserRow.ANALYSED]
        # What comes under a former name changes nothing of what has been renamed, so ask each time.
        if statements.schema.formers or self._analysed.get(sql) != analysed:
            await self._check_version(statements)
            self._analysed[sql] = analysed
        return [] if rows[0][UserRow.ORDINAL] is None else rows

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
        self._alarm.cancel()
        self.connection.terminate()

    def _check(self) -> None:
        """Give the connection up if a query has been under way for too long; that ends the query."""
        now = self._loop.time()
        late = min(self._since, now) + self._patience
        if late <= now:
            log.warning("PostgreSQL has not answered within %.2f s", self._patience)
            self.terminate()
        else:
            self._alarm = self._loop.call_at(late, self._check)

    async def _run(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        self._since = self._loop.time()
        try:
            return await self._execute(sql, arguments)
        finally:
            self._since = inf

    async def _execute(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        statement = self._statements.get(sql)
        if statement is None:
            # Without a name asyncpg would have it parsed and planned for each execution.
            name = f"responder_{next(self._names)}"
            statement = await self.connection.prepare(sql, name=name)
            self._statements[sql] = statement
        return await statement.fetch(*arguments)


class PooledSession(Session):
    """A connection to a pooler, which may hand each transaction to another server.

    Neither settings nor statements outlast a transaction there: each query has one of its own, which
    begins with the settings.
    """

    def __init__(
        self,
        connection: asyncpg.Connection[Record],
        *,
        patience: float,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(connection, patience=patience)
        local = [f"set local {name} = {literal(value)}" for name, value in settings.items()]
        self._begin = "; ".join(["begin read only", *local])

    async def _execute(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        await self.connection.execute(self._begin)
        try:
            return await self.connection.fetch(sql, *arguments)
        finally:
            await self.connection.execute("rollback")


async def connect(dsn: Dsn, *, timeout: float) -> Session:
    """Connect to the first server that will do, each within the timeout (seconds).

    A statement may run for half of it. Raises whatever kept the last one from answering.
    """
    problem: Exception = OSError("no server")
    for target in dsn.targets:
        for server in dsn.servers:
            try:
                return await _session(dsn, server, target, timeout)
            except Exception as error:  # noqa: BLE001 - the next server may be better
                problem = error
    raise problem


async def _session(dsn: Dsn, server: Server, target: str, timeout: float) -> Session:
    settings = _settings(timeout)
    patience = timeout / 2 + GRACE
    if not dsn.pooled:
        with suppress(asyncpg.ProtocolViolationError):  # a pooler that refuses our settings
            connection = await _open(dsn, server, target, timeout, settings)
            session = Session(connection, patience=patience)
            if await _asked(session, _KEEPS_SETTINGS):
                for name, value in _of_its_version(connection).items():
                    setting = f"{literal(name)}, {literal(value)}"
                    await _asked(session, f"select set_config({setting}, false) is not null")
                return session
            session.terminate()
    connection = await _open(dsn, server, target, timeout, {})
    settings |= _of_its_version(connection)
    pooled = PooledSession(connection, patience=patience, settings=settings)
    await _asked(pooled, _KEEPS_SETTINGS)
    return pooled


async def _open(
    dsn: Dsn, server: Server, target: str, timeout: float, settings: Mapping[str, str]
) -> asyncpg.Connection[Record]:
    host, port = server
    options = {"options": dsn.options} if dsn.options else {}
    return await asyncpg.connect(
        dsn.tls,
        host=host,
        port=port,
        user=dsn.user,
        password=dsn.password,
        database=dsn.database,
        ssl=_trusting_the_system(dsn.tls) if dsn.system_roots else None,
        target_session_attrs=SessionAttribute(target),
        timeout=timeout,
        statement_cache_size=0,  # statements are held in Session
        server_settings={"application_name": "responder", **options, **settings},
    )


def _trusting_the_system(tls: str) -> ssl.SSLContext | None:
    """Verify as libpq does with `sslrootcert=system`; None leaves it to asyncpg.

    libpq and asyncpg look for `~/.postgresql/root.crt` and refuse to go without, but the application's
    own driver does not: node-postgres trusts whom the system trusts.
    """
    parameters = dict(parse_qsl(urlsplit(tls).query))
    if "PGSSLROOTCERT" in os.environ or Path("~/.postgresql/root.crt").expanduser().exists():
        return None
    context = ssl.create_default_context()
    if "sslcrl" in parameters:
        context.load_verify_locations(parameters["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.check_hostname = parameters["sslmode"] == "verify-full"
    if "sslcert" in parameters:
        password = parameters.get("sslpassword", "")
        context.load_cert_chain(parameters["sslcert"], parameters.get("sslkey"), lambda: password)
    return context


async def _asked(session: Session, sql: str) -> bool:
    """Return the answer. Somebody in between may accept a connection that leads nowhere."""
    try:
        (row,) = await session.fetch(sql)
    except BaseException:
        session.terminate()
        raise
    return bool(row[0])


def _settings(timeout: float) -> dict[str, str]:
    """What our sessions are set to; statements may run for half of the timeout (seconds)."""
    milliseconds = round(timeout * 500)
    return {
        "default_transaction_read_only": "on",
        "statement_timeout": str(milliseconds),
        # Just before the other, to know that waiting is all that is wrong.
        "lock_timeout": str(round(milliseconds * 0.9)),
        **PLANNING,
        # Whoever may create functions or operators in a schema on the path could answer in our place.
        "search_path": "pg_catalog",
        "TimeZone": "UTC",
        "DateStyle": "ISO",  # cursors hold times as PostgreSQL writes them
    }


def _of_its_version(connection: asyncpg.Connection[Record]) -> Mapping[str, str]:
    """What our sessions are set to besides, where the server knows it."""
    return NO_MEMOIZE if connection.get_server_version() >= _HAS_MEMOIZE else {}


def describe(error: BaseException) -> str:
    """Name an error and its cause without their words, which may hold values or a password."""
    error = error.__cause__ or error
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} [{state}]" if state else type(error).__name__
