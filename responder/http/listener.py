"""An ASGI app served on a socket, as a context."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from responder.errors import SettingsError

NOT_HTTP: Final = (
    b'{"type":"about:blank","title":"Bad Request","status":400,'
    b'"detail":"not a request of HTTP/1.1","code":"invalid_request"}'
)
HEAD_TIMEOUT: Final = 10  # seconds within which the head of a request has to arrive
BACKLOG: Final = 2048  # connections that may wait to be accepted


class _Protocol(HttpToolsProtocol):
    """One connection of a client; closed where a request does not arrive in time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn turns it on for any handler it finds on its logger, and paths hold emails.
        self.access_log = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, but not for ever: a silent client holds a connection."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._close_unless_answering)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for a request."""
        super().connection_lost(exc)
        if self._head_timer is not None:
            self._head_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; the rest of a request that begins here has to follow in time."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._close_unless_answering)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin to answer: the head of a request has arrived."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def _close_unless_answering(self) -> None:
        self._head_timer = None
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            self.transport.close()

    def send_400_response(self, _: str) -> None:
        """Answer what is not HTTP, or has too large a head, as other errors are answered."""
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            b"cache-control: no-store\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(NOT_HTTP), NOT_HTTP)
        )
        self.transport.close()


class _Server(uvicorn.Server):
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
    ended: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Serve an app; yields its URL. Leaving answers what has arrived, and closes the socket.

    Args:
        app: to serve.
        at: a socket that listens, or the host and port of one to be bound.
        setting: the name of the setting that host and port are from.
        drain_timeout: seconds that leaving may take.
        ended: set when serving has ended, by itself or because the context was left.

    Raises SettingsError if the address cannot be listened on.
    """
    sock = at if isinstance(at, socket.socket) else bind(at, setting=setting)
    server = _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, round(drain_timeout)),
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="listener")
    if ended is not None:
        serving.add_done_callback(lambda _: ended.set())
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        await serving
        sock.close()
