"""The connections of a listener: how many there may be, and which is closed for a new one."""

# Strategy: a process has a number of file descriptors, and other parts of it need some: PostgreSQL,
# NATS, the admin listener. So a listener has a limit of its own, below the process's. At the limit
# the connection that has been idle for longest is closed for a new one, so that clients which only
# hold connections are in the way of none that sends requests. It has been idle for MIN_IDLE seconds
# at least, because the request of a new connection may be there and not be read yet. While there is
# none, because requests are under way on all, new connections wait in the backlog.
#
# Connections are accepted here, a few in each turn of the loop, and not by the loop's own server.
# That accepts all that wait, before any of those that it should replace is closed: with 1,000 new
# connections at the limit, the process has no descriptor left, and the next connection is reset,
# be it one of the admin listener.

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from typing import Final

from responder.http.protocol import Connection, Shared

log: Final = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 10_000
RESERVED: Final = 256  # file descriptors for everything but the connections of the bridge
MIN_CONNECTIONS: Final = 64  # however few file descriptors there may be
ACCEPTED_AT_ONCE: Final = 16
MIN_IDLE: Final = 0.1  # seconds after which a connection may be closed for another
PAUSE: Final = 0.05  # seconds until it is tried again to accept a connection


def raise_file_limit() -> None:
    """Let this process, and those that it starts, open as many files as the system allows.

    What a process starts with is often 1,024, for the sake of programs that use `select`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a lower one that it does not tell
        log.warning("the limit of open files stays as it is: %s", error)


def max_connections() -> int:
    """Return how many connections the bridge of this process may have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(files - RESERVED, MAX_CONNECTIONS))


class Acceptor:
    """Accepts connections on a socket while it is open.

    Args:
        sock: listens.
        shared: what the connections share.
        limit: how many there may be.
    """

    def __init__(self, sock: socket.socket, shared: Shared, *, limit: int) -> None:
        self._sock = sock
        self._shared = shared
        self._limit = limit
        self._loop = shared.loop
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._failed = False

    def open(self) -> None:
        """Begin to accept."""
        self._sock.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept what waits in the backlog, and then no more: other connections are refused.

        A socket that is closed resets what waits in its backlog, so nothing is done in between.
        """
        self._shared.stopping = True
        self._shared.freed = None
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._sock)
        while self._accept_one():
            pass
        self._sock.close()

    async def wait_closed(self) -> None:
        """Return once the last connection that was accepted is open, or turned away."""
        await asyncio.gather(*self._opening)

    def close_overdue(self) -> None:
        """Close the idle connections whose deadline has passed (called about twice a second)."""
        now = self._loop.time()
        for each in [each for each in self._shared.idle if each.deadline < now]:
            each.drop()

    def _resume(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
        self._paused = self._shared.freed = None
        self._loop.add_reader(self._sock, self._accept)

    def _pause(self) -> None:
        """Let connections wait until one is lost, and for PAUSE seconds at most."""
        if self._shared.stopping:
            return
        self._loop.remove_reader(self._sock)
        self._shared.freed = self._resume
        self._paused = self._loop.call_later(PAUSE, self._resume)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept a connection; return whether there may be another."""
        if self._is_full() and self._idle_for() < MIN_IDLE:
            self._pause()
            return False
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return False
        except OSError as error:
            self._fail(error)
            return False
        self._failed = False
        if self._is_full():
            self._drop_longest_idle()
        sock.setblocking(False)
        self._shared.accepted += 1
        task = self._loop.create_task(self._connect(sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    def _is_full(self) -> bool:
        return len(self._shared.connections) + self._shared.accepted >= self._limit

    def _idle_for(self) -> float:
        """Return for how many seconds the longest idle connection is so; 0 if none is."""
        longest = next(iter(self._shared.idle), None)
        return self._loop.time() - longest.idle_since if longest else 0

    def _drop_longest_idle(self) -> None:
        next(iter(self._shared.idle)).drop()

    def _fail(self, error: OSError) -> None:
        """Go on later where there is no descriptor or no memory for another connection."""
        if not self._failed:
            self._failed = True
            log.error("HTTP connections cannot be accepted: %s", error.strerror)
        if self._shared.idle:
            self._drop_longest_idle()
        self._pause()

    async def _connect(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self._shared), sock)
        except OSError:  # its client is gone
            self._shared.accepted -= 1
            sock.close()
