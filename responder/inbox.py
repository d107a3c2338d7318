"""Requests over a connection of nats-py that an application has, by its public interface."""

# Strategy: one subscription for all replies. nats-py's own `request` resolves to the first reply,
# which may be another program's (a JetStream stream over the subjects acknowledges each request),
# and so it cannot wait for a worker's.

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Final

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from responder.asking import NoRespondersError
from responder.errors import PayloadTooLargeError, RequestTimeoutError, UnavailableError
from responder.wire import encode_headers, is_no_responders, is_ours, on_one_line

OUT_OF_REACH: Final = "NATS is out of reach"
CLOSED: Final = "the connection to NATS is closed"
TOO_LARGE: Final = "the request does not fit into one message"
OTHER_LOOP: Final = "a UsersClient is used in the event loop of its connection alone"


class _Asked:
    """A request that has no reply yet."""

    def __init__(self, begins: bytes) -> None:
        self.begins = begins  # see `wire.is_ours`
        self.answer: asyncio.Future[tuple[bytes, bytes]] = (
            asyncio.get_running_loop().create_future()
        )
        self.others = False  # whether a program that is no worker has answered


class Inbox:
    """A `Transport` over a connection of nats-py, which stays the application's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = itertools.count()
        self._requests: dict[str, _Asked] = {}  # by reply subject
        self._root = ""  # what the reply subjects begin with, once it is subscribed to
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it was

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str],
        timeout: float,
        begins: bytes,
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of its reply (see `Transport`)."""
        lines = {name: on_one_line(value) for name, value in headers.items()}
        # nats-py counts no headers, and the server closes a connection over which more comes than
        # it permits: the application's, for a token that is long enough.
        if len(encode_headers(lines)) + len(payload) > self._client.max_payload:
            raise PayloadTooLargeError(TOO_LARGE)
        asked = _Asked(begins)
        reply = ""
        try:
            async with asyncio.timeout(timeout):
                await self._listen()
                reply = f"{self._root}.{next(self._numbers)}"
                self._requests[reply] = asked
                await self._client.publish(subject, payload, reply=reply, headers=lines)
                reply_headers, body = await asked.answer
        except TimeoutError:
            if not self._client.is_connected:
                raise UnavailableError(OUT_OF_REACH) from None
            if asked.others:
                raise UnavailableError(f"something else answers on {subject}") from None
            raise RequestTimeoutError from None
        except errors.MaxPayloadError:
            raise PayloadTooLargeError(TOO_LARGE) from None
        except errors.Error as error:
            closed = self._client.is_closed or self._client.is_draining
            raise UnavailableError(CLOSED if closed else OUT_OF_REACH) from error
        finally:
            self._requests.pop(reply, None)
        if is_no_responders(reply_headers):
            raise NoRespondersError
        return reply_headers, body

    async def _listen(self) -> None:
        """Subscribe to the replies, the first time."""
        loop = asyncio.get_running_loop()
        if self._root:
            if loop is not self._loop:  # a reply would wake no one here
                raise RuntimeError(OTHER_LOOP)
            return
        self._loop = loop
        # nats-py writes SUB before it waits for anything, so that whatever another coroutine sends
        # meanwhile follows it.
        self._root = self._client.new_inbox()
        try:
            await self._client.subscribe(f"{self._root}.*", cb=self._receive)
        except BaseException:
            self._root = ""
            raise

    async def _receive(self, message: Msg) -> None:
        asked = self._requests.get(message.subject)
        if asked is None or asked.answer.done():
            return
        headers = _block(message.headers)
        if is_no_responders(headers) or is_ours(headers, message.data, asked.begins):
            asked.answer.set_result((headers, message.data))
        else:
            asked.others = True


def _block(headers: dict[str, str] | None) -> bytes:
    """Return headers as they came: nats-py has the status of the first line among them."""
    if not headers:
        return b""
    others = dict(headers)
    status = others.pop("Status", "")
    return encode_headers(others, status=status)
