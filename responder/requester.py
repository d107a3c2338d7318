"""What `client` needs of a connection to NATS: a way to ask."""

from __future__ import annotations

from typing import Protocol


class NoRespondersError(Exception):
    """No program listens on the subject: the request reached none, and may safely be repeated."""


class Requester(Protocol):
    """Sends requests over NATS, and returns their replies."""

    async def ask(
        self, subject: str, payload: bytes, *, headers: bytes, timeout: float
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of its reply.

        Args:
            subject: where workers listen.
            payload: of the request.
            headers: of the request, as a block (see `wire.encode_headers`); empty for none.
            timeout: seconds.

        Raises NoRespondersError if no program listens on the subject, RequestTimeoutError if no
        reply arrives in time, UnavailableError if that is because there is no connection,
        PayloadTooLargeError if the request is too large to send.
        """
        ...
