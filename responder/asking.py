"""Ask for the reply of an endpoint, over any connection to NATS."""

# Strategy: one deadline for all of it, of which the worker is told what is left. While no worker
# listens the request is sent again, because it has reached none; after anything else it is not.

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from responder import wire
from responder.endpoints import Endpoint
from responder.errors import UnavailableError

# How long to try again when no worker listens (seconds): one that restarts is back by then.
PATIENCE: Final = 0.3
FIRST_PAUSE: Final = 0.01  # seconds between two tries; each pause is twice as long as the last

MARGIN: Final = 0.05  # seconds that a reply may be under way


class NoRespondersError(Exception):
    """No program listens on the subject: the request reached none, and may safely be repeated."""


class Transport(Protocol):
    """Sends requests over NATS, and returns their replies."""

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str],
        timeout: float,
        begins: bytes,
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of the first reply that is a worker's.

        Args:
            subject: where workers listen.
            payload: of the request.
            headers: of the request.
            timeout: seconds.
            begins: what the payload of a worker's reply begins with, if it is no error (see
                `wire.is_ours`). Any other reply is passed over, and a worker's waited for.

        Raises NoRespondersError if no program listens on the subject, RequestTimeoutError if no
        reply arrives in time, UnavailableError if that is because there is no connection or because
        only other programs have answered, PayloadTooLargeError if the request is too large to send.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks workers.

    Attributes:
        transport: to NATS.
        prefix: of their subjects.
        timeout: seconds that a request may take, if it does not say itself.
    """

    transport: Transport
    prefix: str = "users"
    timeout: float = 2.0

    def reply(
        self,
        endpoint: Endpoint[Any, Any],
        payload: bytes,
        *,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, bytes]:
        """Return the payload of an endpoint's reply as it came; raises the error that it is.

        Args:
            endpoint: whose reply it is.
            payload: of the request (see `wire.encode_request`).
            headers: of the request.
            timeout: seconds.
        """
        return reply_on(
            self.transport,
            endpoint.subject(self.prefix),
            payload,
            headers=headers,
            timeout=self.timeout if timeout is None else timeout,
            begins=endpoint.begins,
        )


async def reply_on(
    transport: Transport,
    subject: str,
    payload: bytes,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    begins: bytes = b"",
) -> bytes:
    """Return the payload of the reply to a request; raises the error that the reply is.

    Args:
        transport: to NATS.
        subject: of the request.
        payload: of the request.
        timeout: seconds that all of this may take.
        headers: of the request.
        begins: what a value begins with (see `Endpoint`); by default any reply will do.

    Raises UnavailableError if no worker listens or only other programs answer, RequestTimeoutError
    if no program answers in time.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    patience = min(PATIENCE, timeout / 2)
    pause = FIRST_PAUSE
    while True:
        left = timeout - (loop.time() - start)
        # A worker that answers at the last moment is heard if its reply has the time to arrive.
        given = max(round(1000 * (left - min(MARGIN, left / 10))), 1)
        try:
            reply_headers, body = await transport.ask(
                subject,
                payload,
                headers={**(headers or {}), wire.TIMEOUT: str(given)},
                timeout=left,
                begins=begins,
            )
        except NoRespondersError:
            jittered = pause * (0.5 + random.random())  # noqa: S311 - no secret
            if loop.time() + jittered > start + patience:
                raise UnavailableError(_silence(subject, worker=bool(begins))) from None
            await asyncio.sleep(jittered)
            pause *= 2
            continue
        error = wire.decode_error(reply_headers, body)
        if error is not None:
            raise error
        return body


def _silence(subject: str, *, worker: bool) -> str:
    if worker:
        return f"no worker listens on {subject}: `responder check` says who answers"
    return f"no program listens on {subject}"
