"""Lookups on connections that are held, through outages and migrations."""

# Strategy: a few connections are held for the life of the process, each by a task of its own that
# takes a batch, answers it, and takes the next (see `batching`). There is no pool: acquiring and
# releasing would cost more than the lookup, and resetting a session that never changes would cost a
# round trip. A task without a connection takes no batch, so what arrives during an outage waits for
# the connection that comes back first, or for its deadline. Once an outage has outlasted one timeout
# nobody is left waiting in vain: lookups are refused until a connection succeeds.
#
# PostgreSQL says by itself that the tables have changed, by refusing a query or by having analysed it anew
# (see `versions`). Then the catalog is read again (see `discovery`), once for all who were concerned, and
# they are asked again with the new SQL. A table that has come is found by reading the catalog about once
# a second.

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from responder.batching import Answer, Batch, Batching, Done, Key, Lookup
from responder.errors import (
    InternalError,
    RequestTimeoutError,
    ResponderError,
    SchemaError,
    UnavailableError,
)
from responder.postgres import schema
from responder.postgres.connection import (
    BusyError,
    ChangedError,
    LostError,
    NotAllowedError,
    PooledSession,
    Session,
    SlowError,
    connect,
    describe,
)
from responder.postgres.discovery import Discovery
from responder.postgres.dsn import Dsn
from responder.postgres.lookups import Statements

log = logging.getLogger(__name__)

MIN_BACKOFF: Final = 0.05  # between attempts to connect (seconds)
MAX_BACKOFF: Final = 1.0
PAUSE: Final = 0.01  # before asking again where somebody is in the way (seconds)


class Database:
    """Better Auth's tables, open for lookups while its context is.

    Args:
        dsn: where it is.
        discovery: finds the tables.
        connections: how many to hold.
        timeout: seconds after which an outage is no longer waited out. A statement may run for half
            of it, so that there is time to ask again.
        max_pending: how many lookups may wait or be under way.
    """

    def __init__(
        self,
        dsn: Dsn,
        discovery: Discovery,
        *,
        connections: int,
        timeout: float,
        max_pending: int,
    ) -> None:
        self._dsn = dsn
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
        sql, arguments = statements.services.by_id.asked([None], [None], (), cap=0)
        await session.look_up(statements, sql, *arguments)
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
                session = await connect(self._dsn, timeout=self._timeout)
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
            if isinstance(session, PooledSession) and not self._dsn.pooled:
                log.info("a pooler is in between: each lookup has a transaction of its own")
                self._dsn = replace(self._dsn, pooled=True)
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
        except SlowError as error:
            # One slow key must not cost the others their deadline too: no time for halves.
            batch.lookup.keep_apart()
            self._narrow(batch, error, together=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker lives on
            self._narrow(batch, error, together=len(batch.waiters) // 2)

    def _narrow(self, batch: Batch[Any, Session], error: Exception, *, together: int) -> None:
        """Ask again in smaller parts, until the key that fails is alone."""
        if len(batch.waiters) > 1:
            batch.put_back(together=together)
        elif isinstance(error, SlowError):
            batch.fail(RequestTimeoutError())
        else:
            log.error("a lookup failed: %s", describe(error))
            batch.fail(InternalError())
