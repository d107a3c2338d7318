"""A connection is read in turns, and not while the other end does not read."""

# uvloop reads a socket as long as there is more in it. Meanwhile no answer of PostgreSQL is taken,
# and none is sent. So what one large read brings is enough for a turn of the loop.
#
# And what is sent waits in memory while the NATS server does not read it. To take more requests,
# whose answers do not leave, helps no caller: they are left to other workers. An example: the
# server stands still for a second, under 20,000 requests a second that it has passed on before.
# Their answers, 6 MB, are written; then no more is read until 2 MB of them have left.

from __future__ import annotations

import asyncio
from typing import Final

from responder.nats.backlog import MUCH, Backlog

MANY_UNREAD: Final = 4 * 1024 * 1024  # bytes, while which wait to leave nothing is read
CATCH_UP: Final = 0.01  # seconds between two looks at whether they have left


class Turns:
    """Pauses the reading of a connection, and goes on.

    Args:
        stream: that is read.
        backlog: is told when there is nothing to read.

    Attributes:
        unread: bytes that the other end had not read when this was last looked at.
    """

    def __init__(self, stream: asyncio.Transport, backlog: Backlog) -> None:
        self.unread = 0
        self._stream = stream
        self._backlog = backlog
        loop = asyncio.get_running_loop()
        self._call_soon, self._call_later = loop.call_soon, loop.call_later
        self._paused = False
        self._has_read = False

    def wrote(self) -> int:
        """Return how many bytes wait to leave, after more were written."""
        self.unread = self._stream.get_write_buffer_size()
        return self.unread

    def read(self, size: int) -> None:
        """So many bytes were read."""
        self._has_read = True
        if (size >= MUCH or self.unread > MANY_UNREAD) and not self._paused:
            self._paused = True
            self._stream.pause_reading()
            self._call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._stream.is_closing():
            return
        if self.wrote() > MANY_UNREAD:
            self._call_later(CATCH_UP, self._go_on)
            return
        self._paused = self._has_read = False
        self._stream.resume_reading()
        self._call_soon(self._look)  # in the next turn, after what can be read has been

    def _look(self) -> None:
        if not self._has_read:
            self._backlog.caught_up()
