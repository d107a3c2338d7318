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
PATIENCE: Final = 10  # seconds for the head of a request to arrive
BACKLOG: Final = 2048  # connections that may wait to be accepted


class _Protocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn turns it on for any handler it finds on its logger, and paths hold emails.
        self.access_log = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait only so long for a request: a silent connection holds a place that others need."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(PATIENCE, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; of a new request, the rest must follow soon."""
        if self._patience is None:
            self._patience = self.loop.call_later(PATIENCE, self._give_up)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The request is there."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().on_headers_complete()

    def _give_up(self) -> None:
        self._patience = None
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            self.transport.close()

    def send_400_response(self, _: str) -> None:
        """Answer what is not HTTP, or too much of it, as any other error is answered."""
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
    """Listen on a host and port; port 0 is any free one.

    Raises SettingsError, with the name of the setting that the address is from.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # At once: whoever connects from here on waits, and a port in use is found out here (Linux
        # lets two bind it, as long as neither listens).
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
    sock: socket.socket,
    *,
    drain_timeout: float,
    ended: asyncio.Event | None = None,
) -> AsyncIterator[None]:
    """Serve an app; leaving the context answers the requests that have arrived, and closes the socket.

    Args:
        app: to serve.
        sock: listens.
        drain_timeout: seconds that leaving may take.
        ended: set when serving has ended, whyever.
    """
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
        yield
    finally:
        server.should_exit = True
        await serving
        sock.close()
