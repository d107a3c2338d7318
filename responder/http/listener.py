"""An ASGI app served on a socket, as a context."""

# Strategy: uvicorn runs the server, and keeps the date. Its protocol and its way of accepting are
# replaced (see `protocol` and `acceptor`), because they trust clients: uvicorn's own parses all
# requests that are sent at once, and keeps them (one connection took a gigabyte in nine seconds);
# it decodes a target of any length before it is looked at; it lets more connections in than the
# process has files for.
#
# Its way of ending is replaced, too: it closes idle connections at once, and resets those on which
# a request was just being sent. HTTP has one way to end a connection without that, which is to say
# so with an answer. So each connection is kept until its next answer, for the drain timeout at
# most; what is idle even then is ended, and closed once its client has noticed.
#
# granian, which is written in Rust, serves a request for some 10 of 100 µs less. But its limits and
# its way of ending are its own, with no place to put ours, and it wants to own the process.

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from responder.errors import SettingsError
from responder.http.acceptor import Acceptor, max_connections
from responder.http.protocol import LINGER, Shared
from responder.http.response import ALWAYS

BACKLOG: Final = 2048  # connections that may wait to be accepted
ADMIN_CONNECTIONS: Final = 64  # of RESERVED, so that they are there whatever the bridge has
KEEP_ALIVE: Final = 75.0  # seconds; load balancers keep their connections for 60 at most
ADMIN_DRAIN: Final = 0.1  # seconds; those who probe and scrape ask again
POLL: Final = 0.02  # seconds


class _Server(uvicorn.Server):
    """uvicorn's server, with connections of ours.

    Args:
        app: to serve.
        config: of uvicorn.
        limit: how many connections there may be.
        keep_alive: seconds that a connection may be idle between two requests.
        drain_timeout: seconds that ending may take.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: uvicorn.Config,
        *,
        limit: int,
        keep_alive: float,
        drain_timeout: float,
    ) -> None:
        super().__init__(config)
        state = self.server_state
        self._shared = Shared(app, keep_alive=keep_alive)
        self._limit = limit
        self._drain_timeout = drain_timeout
        state.connections = self._shared.connections  # type: ignore[assignment]  # likewise closed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        self.servers: list[Any] = []
        for sock in sockets or ():
            acceptor = Acceptor(sock, self._shared, limit=self._limit)
            acceptor.open()
            self.servers.append(acceptor)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Do what is to be done ten times a second, or less often."""
        ended = await super().on_tick(counter)
        if counter % 10 == 0:  # uvicorn has just written the date
            lines = [name + b": " + value for name, value in self.server_state.default_headers]
            self._shared.headers = b"".join(line + b"\r\n" for line in lines)
        if counter % 5 == 0:
            for acceptor in self.servers:
                acceptor.close_overdue()
        return ended

    async def shutdown(
        self,
        sockets: list[socket.socket] | None = None,  # noqa: ARG002 - its acceptor closes each
    ) -> None:
        """Answer all that arrives within the drain timeout, and close each connection."""
        for acceptor in self.servers:
            acceptor.close()
        for connection in self._shared.connections:
            connection.shutdown()
        for acceptor in self.servers:
            await acceptor.wait_closed()
        await self._all_closed(self._drain_timeout)
        for connection in list(self._shared.connections):
            connection.end()
            connection.give_up()
        await self._all_closed(2 * LINGER)
        for connection in list(self._shared.connections):
            connection.drop()

    async def _all_closed(self, within: float) -> None:
        """Return once there is no connection, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._shared.connections:  # noqa: ASYNC110 - only for its end
                    await asyncio.sleep(POLL)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process, which has more than this server to stop."""
        yield


def bind(address: tuple[str, int], *, setting: str) -> socket.socket:
    """Return a socket that listens on a host and port; port 0 is any free one.

    Raises SettingsError, with the name of the setting that the address is from.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Linux lets two processes bind one port as long as neither listens. Listening here shows a
        # port in use at once, and from here on a client that connects waits to be accepted.
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"{setting}: cannot listen on {host}:{port}: {error.strerror}"
        ) from None
    return sock


def url_of(sock: socket.socket) -> str:
    """Return where a socket listens; of a socket in the file system, its path."""
    if sock.family == socket.AF_UNIX:
        return str(sock.getsockname())
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def listening(
    app: ASGIApp,
    at: socket.socket | tuple[str, int],
    setting: str,
    *,
    drain_timeout: float,
    keep_alive: float = KEEP_ALIVE,
    ended: asyncio.Event | None = None,
    connections: int | None = None,
) -> AsyncIterator[str]:
    """Serve an app; yields its URL. Leaving answers what has arrived, and closes the socket.

    Args:
        app: to serve.
        at: a socket that listens, or the host and port of one to be bound.
        setting: the name of the setting that host and port are from.
        drain_timeout: seconds in which requests are still answered once the context is left.
        keep_alive: seconds that a connection may be idle between two requests.
        ended: set when serving has ended, by itself or because the context was left.
        connections: how many there may be; by default, as many as the process has files for.

    Raises SettingsError if the address cannot be listened on.
    """
    sock = at if isinstance(at, socket.socket) else bind(at, setting=setting)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        access_log=False,  # paths hold emails
        log_config=None,
        log_level="error",
        server_header=False,
        headers=list(ALWAYS),
    )
    limit = connections or max_connections()
    server = _Server(app, config, limit=limit, keep_alive=keep_alive, drain_timeout=drain_timeout)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="listener")
    if ended is not None:
        serving.add_done_callback(lambda _: ended.set())
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        await serving
        sock.close()


def listening_for_admin(
    app: ASGIApp,
    at: socket.socket | tuple[str, int],
    *,
    ended: asyncio.Event | None = None,
) -> AbstractAsyncContextManager[str]:
    """Serve an admin app (see `listening`), with connections that the bridge cannot take."""
    return listening(
        app,
        at,
        "RESPONDER_ADMIN_LISTEN",
        drain_timeout=ADMIN_DRAIN,
        ended=ended,
        connections=ADMIN_CONNECTIONS,
    )
