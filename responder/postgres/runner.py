"""Coroutines that ask a connection go on in the call that reads the answer, without a task."""

# Strategy: asyncpg connects, authenticates, encrypts, prepares, encodes arguments and decodes rows.
# Two layers of it are passed by here, because they cost a lone lookup more than its query does.
#
# `PreparedStatement.fetch` is four coroutines around `bind_execute` of the protocol, for what we do
# not use: timeouts, cursors, a pool. So that is called as they call it.
#
# And a task is woken by the loop in its next turn, once the future it waits for is done. Here the
# reads of the connection pass through Runner. asyncpg sets its future when it has read an answer to
# the end; then the coroutine goes on, within that very read. So that no turn of the loop follows
# for it, asyncpg's own callback is taken from the future; all it does is to end a timeout, or to
# cancel the query of a future that was cancelled, and here there is neither. Any other future that
# a coroutine waits for, such as that of a lock, wakes it as it would a task.
#
# pyproject.toml pins asyncpg to one version, whose insides these are, and only this module touches
# them; the tests of this package fail if those of another version behave differently.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import asyncpg
from asyncpg.protocol import NO_TIMEOUT

from responder.afterwards import Afterwards

Record = asyncpg.Record
# Called once a coroutine has ended, with what it has raised.
Ended: TypeAlias = Callable[[BaseException | None], None]


class Runner(asyncio.Protocol):
    """Stands between a connection of asyncpg and its transport.

    It runs one coroutine at a time, which must not need to be a task: it has no timeouts.

    Args:
        connection: of asyncpg.

    Attributes:
        afterwards: ends each read.
    """

    def __init__(self, connection: Any) -> None:  # its stubs leave out what is private
        self._protocol = protocol = connection._protocol
        self.afterwards = Afterwards()
        self._take = protocol.data_received
        self._bind_execute = protocol.bind_execute
        self._completed = protocol._on_waiter_completed
        self._coroutine: Coroutine[Any, None, None] | None = None
        self._ended: Ended | None = None
        self._answer: asyncio.Future[Any] | None = None  # which the coroutine waits for
        connection._transport.set_protocol(self)

    def fetch(self, statement: Any, arguments: Sequence[object]) -> Awaitable[list[Record]]:
        """Return the rows of a statement, once awaited."""
        rows: Awaitable[list[Record]] = self._bind_execute(
            statement._state, arguments, "", 0, False, NO_TIMEOUT
        )
        return rows

    def run(self, coroutine: Coroutine[Any, None, None], ended: Ended) -> None:
        """Run a coroutine: now, as far as it gets, and on whenever what it waits for is there."""
        self._coroutine, self._ended = coroutine, ended
        self._go_on()

    def stop(self) -> None:
        """Let the coroutine under way end where it is; `ended` is not called."""
        coroutine, self._coroutine = self._coroutine, None
        self._answer = None
        if coroutine is not None:
            coroutine.close()

    def _go_on(self, _: object = None) -> None:
        coroutine = self._coroutine
        if coroutine is None:
            return
        self._answer = None
        try:
            future: Any = coroutine.send(None)
        except StopIteration:
            error = None
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - it is passed on
            error = raised
        else:
            if future.remove_done_callback(self._completed):
                self._answer = future
            else:
                future.add_done_callback(self._go_on)
            return
        self._coroutine = None
        if self._ended is not None:
            self._ended(error)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Have asyncpg read, and go on with what waited for that."""
        self.afterwards.begin()
        try:
            self._take(data)
            if self._answer is not None and self._answer.done():
                self._go_on()
        finally:
            self.afterwards.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Go on with what waits for an answer in vain."""
        self._protocol.connection_lost(exc)
        if self._answer is not None and self._answer.done():
            self._go_on()

    def pause_writing(self) -> None:
        """Tell asyncpg."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell asyncpg."""
        self._protocol.resume_writing()
