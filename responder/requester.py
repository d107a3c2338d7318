"""What `client` needs of a connection to NATS: a way to ask."""

from __future__ import annotations

from typing import Protocol


class NoRespondersError(Exception):
    """No program listens on the subject: the request reached none, and may safely be repeated."""


class Requester(Protocol):
    """Sends requests over NATS, and returns their replies."""

    async def ask(
        self, subject: str, payload: bytes, *, headers: bytes, timeout: float, begins: bytes
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of the first reply that is a worker's.

        Args:
            subject: where workers listen.
            payload: of the request.
            headers: of the request, as a block (see `wire.encode_headers`); empty for none.
            timeout: seconds.
            begins: what the payload of a worker's reply begins with, if it is no error (see
                `wire.is_ours`). Any other reply is passed over, and a worker's waited for.

        Raises NoRespondersError if no program listens on the subject, RequestTimeoutError if no
        reply arrives in time, UnavailableError if that is because there is no connection or because
        only other programs have answered, PayloadTooLargeError if the request is too large to send.
        """
        ...
