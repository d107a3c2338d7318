"""The limit of the server of HTTP: the same bytes for every request, as long as a user's record."""

from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
BODY = b'{"id":"static","padding":"%b"}' % (b"." * 325)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(_scope: Any, _receive: Any, send: Send) -> None:
    """Answer, as a plain ASGI application."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
