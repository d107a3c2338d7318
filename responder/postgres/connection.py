"""Connections to PostgreSQL, and queries on them."""

# Settings are sent when a connection starts. A pooler that shares servers between clients refuses
# them, or drops them silently: then each query brings them along.

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from responder.errands import Ended
from responder.postgres.dsn import Dsn, Server
from responder.postgres.errors import OUTDATED, ChangedError, LostError, ValueRefusedError, as_ours
from responder.postgres.lookups import Statements
from responder.postgres.pulse import Pulse, Watch
from responder.postgres.quoting import literal
from responder.postgres.runner import Fetch, Runner
from responder.postgres.trust import trusting_the_system
from responder.postgres.users import UserRow

log: Final = logging.getLogger(__name__)

# One plan for all values, by an index wherever there is one, and not by what the tables held when a
# statement was first used: planning a lone lookup each time costs more than executing it. A bitmap
# is no way either: it pays for thousands of rows only.
PLANNING: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}
# Remembering rows by their key does not pay either, where each key comes once. Earlier versions
# know no such setting, and would refuse a connection that brings it along.
NO_MEMOIZE: Final = {"enable_memoize": "off"}
_HAS_MEMOIZE: Final = (14,)
_KEEPS_SETTINGS: Final = "select current_setting('plan_cache_mode') = 'force_generic_plan'"

Record = asyncpg.Record

# How much later than PostgreSQL's own statement_timeout an answer may arrive (seconds). One that
# does not has been swallowed by the network, with its connection.
GRACE: Final = 0.25


def found(rows: list[Record]) -> list[Record]:
    """Return the rows of a lookup that answer a key: where it finds nothing it has another one."""
    return [] if rows[0][UserRow.ORDINAL] is None else rows


class Connection:
    """A connection whose settings never change, with the statements prepared on it.

    Args:
        connection: of asyncpg, used by nothing else.
        patience: seconds after which a query without an answer has lost its connection.
        pulse: is told of queries and of answers, and of how long they took.

    Attributes:
        runner: runs a coroutine that asks this connection, without a task.
        is_closed: tells whether it has ended.
    """

    def __init__(
        self, connection: asyncpg.Connection[Record], *, patience: float, pulse: Pulse
    ) -> None:
        self._connection = connection
        self.runner: Runner = Runner(connection)
        self.is_closed: Callable[[], bool] = connection.is_closed
        self._pulse = pulse
        self._patience = patience
        self._now = asyncio.get_running_loop().time
        self._began = 0.0
        self._watch = Watch(patience, self._give_up)  # of the query under way
        self._watch.start()
        self._fetches: dict[str, Fetch] = {}  # by SQL
        self._statements: dict[str, asyncpg.prepared_stmt.PreparedStatement[Record]] = {}
        self._analysed: dict[str, int] = {}  # the stamp of each statement, by its SQL
        self._names = itertools.count()

    def run(self, sql: str, arguments: Sequence[object], ended: Ended) -> None:
        """Run a query without a coroutine around it, as nearly every lookup is.

        Args:
            sql: that is run.
            arguments: of it.
            ended: called with its rows, or with what `fetch` raises. It may be one of OUTDATED,
                too, after which `fetch` asks once more.
        """
        self._begin()
        self.runner.run(self._execute(sql, arguments), partial(self._ended, ended))

    def _ended(self, ended: Ended, rows: list[Record] | None, error: BaseException | None) -> None:
        self._end()
        if error is None or isinstance(error, OUTDATED):
            self._pulse.answered()
        elif isinstance(error, Exception):
            error = self._ours(error)
        ended(rows, error)

    async def fetch(
        self, sql: str, *arguments: object, within: float | None = None
    ) -> list[Record]:
        """Run a query; raises one of this module's errors, or the query's own failure.

        It may take `within` seconds, or as long as any other.
        """
        self._begin(within or 0.0)
        try:
            if within is not None:
                limit = f"set local statement_timeout = {round(within * 1000)}"
                rows = await self._transact([limit], sql, arguments)
            else:
                try:
                    rows = await self._execute(sql, arguments)
                except OUTDATED:
                    await self._connection.reload_schema_state()
                    self._fetches.pop(sql, None)
                    rows = await self._execute(sql, arguments)
        except Exception as error:
            ours = self._ours(error)
            if ours is error:
                raise
            raise ours from error
        finally:
            self._end()
        self._pulse.answered()
        return rows

    def _begin(self, within: float = 0.0) -> None:
        began = self._watch.since = self._now() + within
        self._pulse.asked(began)
        self._began = perf_counter()  # the loop's time counts in milliseconds

    def _end(self) -> None:
        self._watch.since = inf
        self._pulse.seconds.add(perf_counter() - self._began)

    def _ours(self, error: Exception) -> Exception:
        """Return this module's error for one of asyncpg, or the query's own failure as it is."""
        ours = as_ours(error, closed=self._connection.is_closed())
        if not isinstance(ours, LostError):
            self._pulse.answered()
        if ours is None:
            return error
        ours.__cause__ = error
        return ours

    async def fetch_checked(
        self, statements: Statements, sql: str, *arguments: object
    ) -> list[Record]:
        """Run a lookup; raises ChangedError too if the tables are not what it was made for."""
        return await self.checked(statements, sql, await self.fetch(sql, *arguments))

    async def checked(self, statements: Statements, sql: str, rows: list[Record]) -> list[Record]:
        """Return the rows that a lookup has found; raises ChangedError as `fetch_checked` does."""
        if not self.is_known(statements, sql, rows):
            await self.check_version(statements)
            self._analysed[sql] = rows[0][UserRow.ANALYSED]
        return found(rows)

    def is_known(self, statements: Statements, sql: str, rows: list[Record]) -> bool:
        """Tell whether the tables are sure to be what a lookup was made for, by its rows."""
        # While a renamed table is followed, what may replace it is a new table under its former
        # name. That changes nothing of the table that is read, so that its version is asked for
        # each time.
        known = self._analysed.get(sql) == rows[0][UserRow.ANALYSED]
        return known and not statements.schema.formers

    async def check_version(self, statements: Statements) -> None:
        """Return if the tables are what the lookups were made for; raises ChangedError if not."""
        (row,) = await self.fetch(statements.version)
        if row["version"] != statements.schema.version:
            raise ChangedError("the tables are not what the query was made for")

    async def accepts(self, sql: str, *arguments: object) -> bool:
        """Tell whether PostgreSQL takes the arguments of a query for values of their types."""
        try:
            await self.fetch(sql, *arguments)
        except ValueRefusedError:
            return False
        return True

    def terminate(self) -> None:
        """Close at once, without a word to the server."""
        self._watch.stop()
        self._connection.terminate()

    def _give_up(self) -> None:
        log.warning("PostgreSQL has not answered within %.2f s", self._patience)
        self.terminate()  # which ends the query

    def _execute(self, sql: str, arguments: Sequence[object]) -> Coroutine[Any, Any, list[Record]]:
        fetch = self._fetches.get(sql)
        return fetch(arguments) if fetch else self._prepare(sql, arguments)

    async def _prepare(self, sql: str, arguments: Sequence[object]) -> list[Record]:
        # Without a name asyncpg would have it parsed and planned for each execution.
        name = f"responder_{next(self._names)}"
        statement = self._statements[sql] = await self._connection.prepare(sql, name=name)
        fetch = self._fetches[sql] = self.runner.prepared(statement)
        return await fetch(arguments)

    async def _transact(
        self, settings: Sequence[str], sql: str, arguments: Sequence[object]
    ) -> list[Record]:
        """Run a query in a transaction of its own, with settings that end with it."""
        await self._connection.execute("; ".join(["begin read only", *settings]))
        try:
            rows = await self._connection.fetch(sql, *arguments)
        except (Exception, asyncio.CancelledError):  # one that is closed has a query under way
            await self._connection.execute("rollback")
            raise
        await self._connection.execute("rollback")
        return rows


class PooledConnection(Connection):
    """A connection to a pooler, which may hand each transaction to another server.

    Neither settings nor statements outlast a transaction there: each query has one of its own,
    which begins with the settings.
    """

    def __init__(
        self,
        connection: asyncpg.Connection[Record],
        *,
        patience: float,
        pulse: Pulse,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(connection, patience=patience, pulse=pulse)
        self._settings = [f"set local {name} = {literal(each)}" for name, each in settings.items()]

    def _execute(self, sql: str, arguments: Sequence[object]) -> Coroutine[Any, Any, list[Record]]:
        return super()._transact(self._settings, sql, arguments)

    async def _transact(
        self, settings: Sequence[str], sql: str, arguments: Sequence[object]
    ) -> list[Record]:
        return await super()._transact([*self._settings, *settings], sql, arguments)


async def connect(dsn: Dsn, *, timeout: float, pulse: Pulse | None = None) -> Connection:
    """Connect to the first server that will do, each within the timeout (seconds).

    A statement may run for half of it. Raises what kept the last server from answering.
    """
    problem: Exception = OSError("no server")
    for target in dsn.targets:
        for server in dsn.servers:
            try:
                return await _connect(
                    dsn, server, target, pulse or Pulse(patience=timeout), timeout
                )
            except Exception as error:  # noqa: BLE001 - the next server may be better
                problem = error
    raise problem


async def _connect(
    dsn: Dsn, server: Server, target: str, pulse: Pulse, timeout: float
) -> Connection:
    settings = _settings(timeout)
    patience = timeout / 2 + GRACE
    if not dsn.pooled:
        with suppress(asyncpg.ProtocolViolationError):  # a pooler that refuses our settings
            opened = await _open(dsn, server, target, timeout, settings)
            connection = Connection(opened, patience=patience, pulse=pulse)
            if await _is_true(connection, _KEEPS_SETTINGS):
                for name, value in _settings_of_version(opened).items():
                    setting = f"{literal(name)}, {literal(value)}"
                    await _is_true(connection, f"select set_config({setting}, false) is not null")
                return connection
            connection.terminate()
    opened = await _open(dsn, server, target, timeout, {})
    settings |= _settings_of_version(opened)
    pooled = PooledConnection(opened, patience=patience, pulse=pulse, settings=settings)
    await _is_true(pooled, _KEEPS_SETTINGS)
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
        ssl=trusting_the_system(dsn.tls) if dsn.system_roots else None,
        target_session_attrs=SessionAttribute(target),
        timeout=timeout,
        statement_cache_size=0,  # statements are held in Connection
        server_settings={"application_name": "responder", **options, **settings},
    )


async def _is_true(connection: Connection, sql: str) -> bool:
    """Return what a query says, which also tells that the connection leads to PostgreSQL.

    A proxy may accept a connection and have no server behind it.
    """
    try:
        (row,) = await connection.fetch(sql)
    except BaseException:
        connection.terminate()
        raise
    return bool(row[0])


def _settings(timeout: float) -> dict[str, str]:
    """Return what a connection is set to; statements may run for half of the timeout (seconds)."""
    milliseconds = round(timeout * 500)
    return {
        "default_transaction_read_only": "on",
        "statement_timeout": str(milliseconds),
        # Just before the other, to know that waiting is all that is wrong.
        "lock_timeout": str(round(milliseconds * 0.9)),
        **PLANNING,
        # A role that may create functions or operators in a schema on the path could answer in the
        # place of PostgreSQL's own.
        "search_path": "pg_catalog",
        "standard_conforming_strings": "on",  # whatever the database or the role says
        "TimeZone": "UTC",
        "DateStyle": "ISO",  # cursors hold times as PostgreSQL writes them
    }


def _settings_of_version(opened: asyncpg.Connection[Record]) -> Mapping[str, str]:
    """Return what a connection is set to besides, where the server knows it."""
    return NO_MEMOIZE if opened.get_server_version() >= _HAS_MEMOIZE else {}
