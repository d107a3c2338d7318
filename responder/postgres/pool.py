"""Connections to PostgreSQL that are held, and answer batches of lookups."""

# A few connections are held for the life of the process, each by a task of its own. A connection
# takes a batch, answers it, and takes the next (see `source`), in the calls that bring keys and
# rows (see `runner`). None is acquired and released for a lookup: that would cost more than the
# lookup, and resetting a connection whose settings never change would cost a round trip. What
# arrives during an outage waits for the connection that comes back first, or for its deadline. Once
# an outage has outlasted one timeout (see `pulse`) no lookup is left waiting in vain: lookups are
# refused until a connection succeeds.
#
# PostgreSQL says by itself that the tables have changed, by refusing a query or by having analysed
# it anew (see `staleness`). Then the catalog is read again (see `discovery`), once for all batches
# that were concerned, and their lookups are asked again with the new SQL. A table that has come,
# which no query refers to, is found by looking about once a second whether the catalog has been
# written.

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from responder.afterwards import Afterwards
from responder.batching import Answer, Batching, Callback, Key, Line
from responder.errors import (
    RefusedError,
    RequestTimeoutError,
    ResponderError,
    SchemaError,
    UnavailableError,
)
from responder.histogram import Histogram
from responder.postgres.connection import Connection, PooledConnection, connect
from responder.postgres.discovery import WATCH_INTERVAL, Discovery
from responder.postgres.dsn import Dsn
from responder.postgres.errors import (
    LostError,
)
from responder.postgres.faults import Faults
from responder.postgres.lookups import Statements
from responder.postgres.pulse import Pulse
from responder.postgres.reading import CatalogReader
from responder.postgres.refusals import why
from responder.postgres.source import SIZES, Chore, How, Shared, Source
from responder.throttling import ThrottledLog

log: Final = logging.getLogger(__name__)
repeated: Final = ThrottledLog(__name__)

OUT_OF_REACH: Final = "PostgreSQL is out of reach"
MIN_BACKOFF: Final = 0.05  # between attempts to connect (seconds)
MAX_BACKOFF: Final = 1.0


class Pool:
    """Connections to Better Auth's database, which answer lookups while its context is open.

    Attributes:
        warning: returns how a lookup has failed lately by SQL of the operator's (see `faults`).
        pulse: whether PostgreSQL answers, and how long its queries take.
        connected: how many connections there are.
        lost: how many have been lost.
        source: makes what answers batches on a connection (see `tracing`).
        batch_sizes: how many lookups of requests shared a query.

    Args:
        dsn: where it is.
        discovery: finds the tables.
        connections: how many to hold.
        timeout: seconds after which an outage is no longer waited out. A statement may run for half
            of it, so that there is time to ask again.
        max_pending: how many lookups may wait or be under way.
        afterwards: ends each read, of these connections and of what brings lookups.
    """

    def __init__(
        self,
        dsn: Dsn,
        discovery: Discovery,
        *,
        connections: int,
        timeout: float,
        max_pending: int,
        afterwards: Afterwards | None = None,
    ) -> None:
        self._dsn = dsn
        self._discovery = discovery
        self._connections = connections
        self._timeout = timeout
        self._afterwards = afterwards or Afterwards()
        self.connected: int = 0
        self.lost: int = 0
        self.batch_sizes: Histogram = Histogram(SIZES)
        self.pulse: Pulse = Pulse(patience=timeout)
        self.source: Callable[[Connection, Shared], Source] = Source
        self._trouble = ""  # why the last attempt to connect failed
        self._told: set[str] = set()  # the ways in which an outage has shown so far
        self._faults = Faults()
        self.warning: Callable[[], str | None] = self._faults.warning
        self._probes, self._samples, self._changes = (
            Line[None, How](Chore(answer, explained=explained), max_batch=most)
            for answer, explained, most in (
                (self._probe, True, max_pending),
                (self._sample, True, max_pending),
                (self._look_for_changes, False, 1),
            )
        )
        self.batching: Batching[How] = Batching(
            max_pending=max_pending,
            timeout=timeout,
            late=self._late,
            afterwards=self._afterwards,
        )
        for line in (self._probes, self._samples, self._changes):
            self.batching.add(line)
        self._shared = Shared(
            batching=self.batching,
            discovery=discovery,
            faults=self._faults,
            timeout=timeout,
            sizes=self.batch_sizes,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pool]:
        """Hold the connections; leaving gives up whatever is still being answered."""
        self.pulse.start()
        tasks = [
            asyncio.create_task(self._hold(), name=f"postgres-{n}")
            for n in range(self._connections)
        ]
        tasks.append(asyncio.create_task(self._watch(), name="postgres-watch"))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.batching.fail(UnavailableError("shutting down"))
            self.pulse.stop()

    @property
    def has_tables(self) -> bool:
        """Whether the tables have been found, and are there."""
        return self._discovery.schema is not None

    @property
    def statements(self) -> Statements:
        """The SQL for the tables as they are; raises SchemaError while they are not found."""
        return self._discovery.statements

    def load(self, line: Line[Any, How], key: Any, *, deadline: float, callback: Callback) -> None:
        """Let a key wait in a line for its answer (see `Batching.load`).

        Raises RefusedError if too much is waiting, or PostgreSQL has been out of reach for longer
        than the timeout.
        """
        if self.pulse.silent:
            raise RefusedError(OUT_OF_REACH)
        self.batching.load(line, key, deadline=deadline, callback=callback)

    async def check(self, within: float) -> None:
        """Return once PostgreSQL has let us read the tables; raises a ResponderError if not.

        However much is waiting: that is no reason to be taken for dead.

        Args:
            within: seconds that this may take.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        answer: Answer = UnavailableError(OUT_OF_REACH)
        if not self.pulse.silent:
            answer = await self._load_urgently(self._probes, None, within)
        if isinstance(answer, ResponderError) and not self.connected and self._trouble:
            raise UnavailableError(f"{OUT_OF_REACH}: {self._trouble}")
        if isinstance(answer, RequestTimeoutError):
            raise UnavailableError(f"PostgreSQL has not answered within {within:g} s")
        if isinstance(answer, ResponderError):
            raise answer
        sampled = await self._load_urgently(self._samples, None, deadline - loop.time())
        # That rows take long to read does not say that they cannot be read.
        if isinstance(sampled, ResponderError) and not isinstance(sampled, RequestTimeoutError):
            raise sampled

    async def _load_urgently(self, line: Line[Key, How], key: Key, within: float) -> Answer:
        """Return the answer to a key of our own."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def callback(answer: Answer) -> None:
            if not answered.cancelled():
                answered.set_result(answer)

        deadline = loop.time() + within
        self.batching.load(line, key, deadline=deadline, callback=callback, urgent=True)
        return await answered

    def _missing(self) -> SchemaError | None:
        """Return why the tables are missing, if they were there a moment ago."""
        return self._discovery.lost_within(2 * self._timeout)

    def _late(self) -> ResponderError:
        if self.connected == 0 or self.pulse.silent:
            return UnavailableError(OUT_OF_REACH)
        return self._missing() or RequestTimeoutError()

    async def _probe(self, connection: Connection, keys: Sequence[None]) -> Sequence[Answer]:
        statements = self.statements
        sql, arguments = statements.services.by_id.query([None], [None], (), cap=0)
        await connection.fetch_checked(statements, sql, *arguments)
        return [b""] * len(keys)

    async def _sample(self, connection: Connection, keys: Sequence[None]) -> Sequence[Answer]:
        await self._faults.sample(connection, self.statements)
        return [b""] * len(keys)

    async def _look_for_changes(
        self, connection: Connection, _: Sequence[None]
    ) -> Sequence[Answer]:
        await self._discovery.watch(CatalogReader(connection))
        return [b""]

    async def _watch(self) -> None:
        """Look at the catalog from time to time, for the tables that no query asks for yet."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            await self._load_urgently(self._changes, None, self._timeout)

    async def _hold(self) -> None:
        """Hold a connection, and another when it is lost."""
        backoff = MIN_BACKOFF
        while True:
            try:
                connection = await connect(self._dsn, timeout=self._timeout, pulse=self.pulse)
            except Exception as error:  # noqa: BLE001 - whatever keeps us from connecting may pass
                self._tell(why(error))
                await asyncio.sleep(backoff * random.random())  # noqa: S311 - jitter is no secret
                backoff = min(2 * backoff, MAX_BACKOFF)
                continue
            backoff = MIN_BACKOFF
            if isinstance(connection, PooledConnection) and not self._dsn.pooled:
                log.info("a pooler is in between: each lookup has a transaction of its own")
                self._dsn = replace(self._dsn, pooled=True)
            self._count(1)
            connection.runner.afterwards = self._afterwards
            try:
                await self.source(connection, self._shared).answer_batches()
            except LostError as error:
                self.lost += 1
                repeated.warning("lost a connection to PostgreSQL: %s", why(error))
            except Exception as error:  # noqa: BLE001 - it is logged
                repeated.error("a connection to PostgreSQL failed", exc_info=error)
            finally:
                connection.terminate()
            self._count(-1)

    def _count(self, change: int) -> None:
        self.connected += change
        if self.connected == 0:
            self.pulse.asked()
        elif change > 0 and self._told:
            log.info("connected to PostgreSQL")
            self._told.clear()

    def _tell(self, trouble: str) -> None:
        """Tell why a connection was not made, once in an outage and for all connections.

        That connections are lost is no outage: a pooler ends idle ones, and others are made at
        once.
        """
        self._trouble = trouble
        if trouble not in self._told:
            self._told.add(trouble)
            if self.connected == 0:
                log.warning("%s: %s", OUT_OF_REACH, trouble)
            else:
                log.warning("cannot make another connection to PostgreSQL: %s", trouble)
