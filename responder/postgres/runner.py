"""Coroutines that ask a connection go on in the call that reads the answer, without a task."""

# Strategy: asyncpg connects, authenticates, encrypts, prepares, encodes arguments and decodes rows.
# Two layers of it are passed by here, because they cost a lone lookup more than its query does.
#
# `PreparedStatement.fetch` is four coroutines around `bind_execute` of the protocol, for what we do
# not use: timeouts, cursors, a pool. So that is called as they call it.
#
# And a task is woken by the loop in its next turn, once the future it waits for is done. Here the
# reads of the connection pass through Runner. asyncpg sets its future when it has read an answer to
# the end; then the coroutine goes on, within that very read (see `errands`). So that no turn of the
# loop follows for it, asyncpg's own callback is taken from the future; all it does is to end a
# timeout, or to cancel the query of a future that was cancelled, and here there is neither.
#
# pyproject.toml pins asyncpg to one version, whose insides these are, and only this module touches
# them; the tests of this package fail if those of another version behave differently.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeAlias

import asyncpg
from asyncpg.protocol import NO_TIMEOUT

from responder.afterwards import Afterwards
from responder.errands import Errand

Record = asyncpg.Record
# Returns the rows for some arguments, once awaited.
Fetch: TypeAlias = Callable[[Sequence[object]], Coroutine[Any, Any, list[Record]]]


class Runner(Errand, asyncio.Protocol):
    """Stands between a connection of asyncpg and its transport, and runs a coroutine at a time.

    Args:
        connection: of asyncpg.

    Attributes:
        afterwards: ends each read.
        lost: called when the connection is lost while no coroutine runs.
    """

    lost: Callable[[], None] | None = None

    def __init__(self, connection: Any) -> None:  # its stubs leave out what is private
        self._protocol = protocol = connection._protocol
        self.afterwards: Afterwards = Afterwards()
        self._take = protocol.data_received
        self._completed = protocol._on_waiter_completed
        connection._transport.set_protocol(self)

    def prepared(self, statement: Any) -> Fetch:
        """Return what fetches rows by a statement, while the statement is kept."""
        return partial(
            self._protocol.bind_execute,
            statement._state,
            portal_name="",
            limit=0,
            return_extra=False,
            timeout=NO_TIMEOUT,
        )

    def _wait(self, future: Any) -> None:
        if future is None or not future.remove_done_callback(self._completed):
            super()._wait(future)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Have asyncpg read, and go on with what waited for that."""
        self.afterwards.reading = True
        try:
            self._take(data)
            if self._awaited is not None and self._awaited.done():
                self.go_on(self._awaited)
        finally:
            self.afterwards.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Go on with what waits for an answer in vain."""
        self._protocol.connection_lost(exc)
        if self._awaited is not None and self._awaited.done():
            self.go_on(self._awaited)
        elif self._coroutine is None and self.lost is not None:
            self.lost()

    def pause_writing(self) -> None:
        """Tell asyncpg."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell asyncpg."""
        self._protocol.resume_writing()
