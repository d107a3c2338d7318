"""A connection that answers batches of lookups."""

# Nearly every batch is one query, whose rows hold the answers. It is asked, and they are read, by
# plain calls: a lone lookup costs what it calls, because the machine has forgotten our code since
# the last one. A coroutine goes on where more has to be asked: a query has failed, or the tables
# may be others than before, or it is a chore of our own. It runs without a task (see `runner`).

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias

from responder.batching import Again, Answer, Batch, Batching, Key, Line
from responder.errors import (
    InternalError,
    RequestTimeoutError,
    ResponderError,
    SchemaError,
    UnavailableError,
)
from responder.histogram import Histogram
from responder.postgres.connection import Connection, Record, found
from responder.postgres.discovery import Discovery
from responder.postgres.errors import (
    OUTDATED,
    BusyError,
    ChangedError,
    LostError,
    NotAllowedError,
    SlowError,
    describe,
)
from responder.postgres.faults import FAILS, Faults
from responder.postgres.lookups import Statements
from responder.postgres.reading import CatalogReader
from responder.postgres.schema import Schema
from responder.throttling import ThrottledLog

repeated: Final = ThrottledLog(__name__)

PAUSE: Final = 0.01  # before asking again where a lock is in the way (seconds)
BETWEEN_STEPS: Final = 0.03  # likewise between two steps of a migration, where a table is missing
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # of batches

Answers: TypeAlias = Sequence[Answer | Again[Any]]
# SQL, its arguments, and what makes answers of its rows.
Question: TypeAlias = tuple[str, Sequence[object], Callable[[list[Record]], Answers]]


class Lookup(ABC, Generic[Key]):
    """How the keys of a line are looked up."""

    @abstractmethod
    def query(self, statements: Statements, keys: Sequence[Key]) -> Question:
        """Return the query for some keys; raises a ResponderError that is the answer of them all.

        What reads its rows returns an answer for each key, in order.
        """

    @abstractmethod
    async def mend(
        self, connection: Connection, statements: Statements, keys: Sequence[Key], error: Exception
    ) -> Answers:
        """Answer keys that could not be answered, by other queries.

        Raises the error where none of them helps, as where there was no query for these keys.
        """


@dataclass(frozen=True, slots=True)
class Chore:
    """How the keys of a line of our own are answered.

    Attributes:
        answer: answers some keys.
        explained: whether it is told which SQL of the operator's has made it fail.
    """

    answer: Callable[[Connection, Sequence[None]], Awaitable[Sequence[Answer]]]
    explained: bool


How: TypeAlias = Lookup[Any] | Chore
Asked: TypeAlias = tuple[Batch[Any, How], Lookup[Any], Statements, Question]
Attempt: TypeAlias = Coroutine[Any, Any, None]  # to answer a batch; raises what keeps it from that


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the sources of a pool share.

    Attributes:
        batching: where batches wait.
        discovery: finds the tables.
        faults: explains failures.
        timeout: seconds for which a migration may be between two steps.
        sizes: of the batches of lookups.
    """

    batching: Batching[How]
    discovery: Discovery
    faults: Faults
    timeout: float
    sizes: Histogram


class Source:
    """Answers batches on a connection, until it is lost."""

    def __init__(self, connection: Connection, shared: Shared) -> None:
        self._connection = connection
        self._runner = connection.runner
        self._shared = shared
        self._batching = shared.batching
        self._discovery = shared.discovery
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer_batches(self) -> None:
        """Answer batches; raises LostError once the connection is lost, or what else has failed."""
        if not self._discovery.settled.is_set():
            with suppress(UnavailableError, BusyError):  # each lookup will be told
                await self._discovery.discover(CatalogReader(self._connection), instead_of=None)
        # One that ends while it has nothing to do is replaced at once, and not by the next lookup.
        self._runner.lost = self._end
        if self._connection.is_closed():
            self._end()
        self._batching.offer(self.take)
        try:
            await self._lost
        finally:
            self._batching.withdraw(self.take)
            self._runner.stop()

    def take(self, batch: Batch[Any, How]) -> None:
        """Answer a batch; another is taken after that."""
        lookup, statements = batch.line.how, self._discovery.found
        if statements is None or isinstance(lookup, Chore):
            self.go_on(batch, self._work(batch), statements.schema if statements else None)
            return
        self._shared.sizes.add(len(batch.keys))
        try:
            question = lookup.query(statements, batch.keys)
        except Exception as error:  # noqa: BLE001 - each lookup is answered
            self.go_on(batch, self._mend(batch, lookup, statements, error), statements.schema)
            return
        asked = batch, lookup, statements, question
        self._connection.run(question[0], question[1], partial(self.answered, asked))

    def answered(
        self,
        asked: Asked,
        rows: list[Record],
        error: BaseException | None,
    ) -> None:
        """Take the rows of a query, or what it has failed with."""
        batch, lookup, statements, question = asked
        sql, _, read = question
        if error is None:
            try:
                known = self._connection.is_known(statements, sql, rows)
                if known:
                    batch.answer(read(found(rows)))
            except Exception as failure:  # noqa: BLE001 - each lookup is answered
                error = failure
            else:
                if known:
                    self._ended(batch, None, None)
                    return
        if error is None:
            attempt = self._check(asked, rows)
        elif isinstance(error, OUTDATED):
            attempt = self._prepare_anew(asked)
        elif isinstance(error, Exception):
            attempt = self._mend(batch, lookup, statements, error)
        else:
            self._ended(batch, None, error)
            return
        self.go_on(batch, attempt, statements.schema)

    def _ended(self, batch: Batch[Any, How], _: object, error: BaseException | None) -> None:
        """Take another batch after this one, if the connection is there."""
        if error is None and not self._connection.is_closed():
            self._batching.offer(self.take)
            return
        if isinstance(error, LostError):
            batch.retry_once()
        self._end(error)

    def _end(self, error: BaseException | None = None) -> None:
        if not self._lost.done():
            self._lost.set_exception(error or LostError("it has ended while it was idle"))

    # What takes more than one query.

    def go_on(self, batch: Batch[Any, How], attempt: Attempt, made_for: Schema | None) -> None:
        """Have a coroutine answer a batch, whose query was made for these tables."""
        self._runner.run(self._settle(batch, attempt, made_for), partial(self._ended, batch))

    async def _work(self, batch: Batch[Any, How]) -> None:
        """Look for the tables, if need be; do a chore, or let lookups wait for their SQL."""
        if self._discovery.found is None:
            await self._discovery.discover(CatalogReader(self._connection), instead_of=None)
        how = batch.line.how
        if isinstance(how, Chore):
            batch.answer(await how.answer(self._connection, batch.keys))
        else:
            batch.retry(largest_batch=len(batch.waiters))

    async def _check(self, asked: Asked, rows: list[Record]) -> None:
        """Answer a batch with rows, if the tables are what the query was made for."""
        batch, _, statements, (sql, _, read) = asked
        batch.answer(read(await self._connection.checked(statements, sql, rows)))

    async def _prepare_anew(self, asked: Asked) -> None:
        """Answer a batch whose statement PostgreSQL has to prepare anew."""
        batch, lookup, statements, (sql, arguments, read) = asked
        try:
            rows = await self._connection.fetch_checked(statements, sql, *arguments)
        except Exception as error:  # noqa: BLE001 - it is raised where nothing helps
            await self._mend(batch, lookup, statements, error)
        else:
            batch.answer(read(rows))

    async def _mend(
        self,
        batch: Batch[Any, How],
        lookup: Lookup[Any],
        statements: Statements,
        error: Exception,
    ) -> None:
        """Answer a batch whose query has failed; raises the error where it cannot be."""
        batch.answer(await lookup.mend(self._connection, statements, batch.keys, error))

    async def _settle(
        self, batch: Batch[Any, How], attempt: Attempt, made_for: Schema | None
    ) -> None:
        """End a batch, one way or another; raises LostError if that takes another connection."""
        try:
            try:
                await attempt
            except (ChangedError, NotAllowedError) as error:
                await self._with_other_sql(batch, error, made_for)
        except LostError:
            raise
        except BusyError:
            await asyncio.sleep(PAUSE)
            batch.retry(largest_batch=len(batch.waiters))
        except SlowError:
            # One slow key must not cost the others their deadline too: no time for halves.
            batch.line.keep_apart()
            if len(batch.waiters) > 1:
                batch.retry(largest_batch=1)
            else:
                batch.fail(RequestTimeoutError())
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker lives on
            if isinstance(error, SchemaError) and self._is_waited_for(batch.line):
                await asyncio.sleep(BETWEEN_STEPS)
                batch.retry(largest_batch=len(batch.waiters))
            elif isinstance(error, ResponderError) and not isinstance(error, NotAllowedError):
                batch.fail(error)
            elif len(batch.waiters) > 1:
                # Ask again in smaller parts, until the key that fails is alone.
                batch.retry(largest_batch=len(batch.waiters) // 2)
            else:
                batch.fail(await self._failure(batch.line, error))

    def _is_waited_for(self, line: Line[Any, How]) -> bool:
        """Tell whether the keys of a line wait for the tables to come back.

        Those of our own do not: they ask whether the tables are there.
        """
        between_steps = self._discovery.lost_within(self._shared.timeout) is not None
        return between_steps and not isinstance(line.how, Chore)

    async def _with_other_sql(
        self,
        batch: Batch[Any, How],
        error: ChangedError | NotAllowedError,
        made_for: Schema | None,
    ) -> None:
        """Let a batch wait for other SQL if the tables have changed; raises the error if not.

        A view or a policy may raise the same errors as tables that have changed.
        """
        same = await self._explain(error) is not None
        if not same:
            reader = CatalogReader(self._connection)
            same = not await self._discovery.discover(reader, instead_of=made_for)
        if same and batch.retried:
            raise error
        # Even if nothing has changed: between two renames of a migration a name may have been
        # gone while the query ran, and be there again when the catalog was read.
        batch.retry_once()

    async def _explain(self, error: Exception) -> str | None:
        statements = self._discovery.found
        if statements is None:
            return None
        return await self._shared.faults.explain(self._connection, statements, error)

    async def _failure(self, line: Line[Any, How], error: Exception) -> ResponderError:
        """Return the answer to a lone key that makes its query fail; the log has the cause."""
        chore = line.how if isinstance(line.how, Chore) else None
        fault = await self._explain(error) if chore is None or chore.explained else None
        if fault is not None:
            repeated.error("%s", fault, kind=fault)
            if chore:
                return UnavailableError(fault)
            self._shared.faults.note(fault)
            return UnavailableError(FAILS)
        described = describe(error)
        repeated.error("a lookup failed: %s", described, kind=described)
        return error if isinstance(error, ResponderError) else InternalError()
