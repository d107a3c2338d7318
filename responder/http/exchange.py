"""A request over HTTP that is being answered, as its app sees it (ASGI)."""

# The app is run without a task (see `errands`), so that it must need none. A request costs a third
# less that way.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message

from responder.errands import Errand
from responder.http.head import Head
from responder.http.response import Headers, problem

log: Final = logging.getLogger(__name__)

INTERNAL: Final = problem(500, "internal", "internal error")
SHUTTING_DOWN: Final = problem(503, "unavailable", "shutting down", headers={"retry-after": "1"})

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class Exchange(Errand):
    """A request, and its one answer.

    Args:
        head: of the request.
        answer: is given the exchange, and status, headers and body of the answer; what it is given
            after that means nothing.

    Attributes:
        bodiless: whether the answer is to have no body, whatever the app sends.
    """

    __slots__ = (
        "_answer",
        "_answered",
        "_body",
        "_head",
        "_headers",
        "_status",
        "bodiless",
    )

    def __init__(self, head: Head, answer: Callable[[Exchange, int, Headers, bytes], None]) -> None:
        self.bodiless: bool = head.method == "HEAD"
        self._head = head
        self._answer = answer
        self._answered = False
        self._status = 0
        self._headers: Headers = ()
        self._body = b""

    def begin(self, app: ASGIApp) -> None:
        """Have the app answer. A request that it leaves without an answer gets one here."""
        self.run(self._answered_by(app))

    async def _answered_by(self, app: ASGIApp) -> None:
        try:
            await app(self._scope(), self._receive, self._send)
        except asyncio.CancelledError:
            await SHUTTING_DOWN.send(self._send)
            raise
        except Exception:
            log.exception("a request failed")
        if not self._answered:
            await INTERNAL.send(self._send)

    def _scope(self) -> dict[str, Any]:
        head = self._head
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path.decode("ascii"),  # as it was sent: apps match routes before decoding
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": None,
            "server": None,
        }

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}  # bodies are dropped

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message.get("headers", ())
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            self._answer(self, self._status, self._headers, self._body)
            self._answered = True  # unless that raised
