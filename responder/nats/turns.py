"""A connection is read in turns, and not while the other end does not read."""

# uvloop reads a socket as long as there is more in it. Meanwhile no answer of PostgreSQL is taken,
# and none is sent. So reading ends once it has taken READING, and RESTING turns of the loop pass
# without any, because a lookup takes several: each would be as long as a read. Reading must not end
# much earlier: with answers a turn takes 10 ms or more in an overload, in which more comes than one
# read brings, and what is not read waits, and grows old.
#
# And what is sent waits in memory while the NATS server does not read it. To take more requests,
# whose answers do not leave, helps no caller: they are left to other workers. An example: the
# server stands still for a second, under 20,000 requests a second that it has passed on before.
# Their answers, 6 MB, are written; then no more is read until 2 MB of them have left.

from __future__ import annotations

import asyncio
import socket
import struct
from time import perf_counter
from typing import Final

from responder.nats.backlog import MUCH, Backlog
from responder.nats.pulse import Pulse

READING: Final = 0.005  # seconds
RESTING: Final = 2  # turns of the loop
MANY_UNREAD: Final = 4 * 1024 * 1024  # bytes, while which wait to leave nothing is read
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: what is on its way is dropped with the socket
CATCH_UP: Final = 0.01  # seconds between two looks at whether they have left


class Turns:
    """Pauses the reading of a connection, and goes on.

    Args:
        stream: that is read.
        backlog: is told when there is nothing to read.
        pulse: is told that the other end is there.

    Attributes:
        unread: bytes that the other end had not read when this was last looked at.
    """

    def __init__(self, stream: asyncio.Transport, backlog: Backlog, pulse: Pulse) -> None:
        self.unread: int = 0
        self._stream = stream
        self._backlog = backlog
        self._pulse = pulse
        loop = asyncio.get_running_loop()
        self._call_soon, self._call_later = loop.call_soon, loop.call_later
        self._began = 0.0  # to read much; 0 before that
        self._has_read = False

    def wrote(self) -> int:
        """Return how many bytes wait to leave, after more were written."""
        self.unread = self._stream.get_write_buffer_size()
        return self.unread

    def reset(self) -> None:
        """End the connection, and drop what is on its way."""
        sock = self._stream.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._stream.abort()

    def read(self, size: int) -> None:
        """So many bytes were read."""
        self._has_read = self._pulse.heard = True
        if size < MUCH and self.unread <= MANY_UNREAD:
            return
        now = perf_counter()
        if not self._began:
            self._began = now
            self._call_soon(self._rest, RESTING)
        if now - self._began >= READING or self.unread > MANY_UNREAD:
            self._stream.pause_reading()

    def _rest(self, turns: int) -> None:
        """Do not read for so many turns of the loop, nor while too much waits to leave."""
        if self._stream.is_closing():
            return
        before = self.unread
        if turns:
            self._stream.pause_reading()
            self._call_soon(self._rest, turns - 1)
        elif self.wrote() > MANY_UNREAD:
            # The other end takes what we send, though we do not look at what it says.
            if self.unread < before or not self.unread:
                self._pulse.heard = True
            self._call_later(CATCH_UP, self._rest, 0)
        else:
            self._began, self._has_read = 0.0, False
            self._stream.resume_reading()
            self._call_soon(self._look)  # in the next turn, after what can be read has been

    def _look(self) -> None:
        if not self._has_read:
            self._backlog.caught_up()
