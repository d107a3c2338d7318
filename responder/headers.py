"""What a request over NATS says in its headers: for whom it is made, and how long it may take."""

from __future__ import annotations

import re

from responder import bearer, wire
from responder.errors import RequestTimeoutError


def read_headers(block: bytes) -> tuple[str | None, float | None]:
    """Return the token of a request, and the seconds it may take; None for what it does not say.

    Raises what such headers are answered with: RequestTimeoutError if there is no time left, and
    InvalidRequestError or UnauthenticatedError for headers that cannot be read.
    """
    if common := _COMMON.fullmatch(block):
        token, milliseconds = common[1], common[2]
        timeout = None if milliseconds is None else int(milliseconds) / 1000
        if timeout != 0:
            return (None if token is None else token.decode()), timeout
    headers = wire.decode_headers(block)
    token = bearer.read(headers.get(bearer.HEADER.lower(), ()))
    timeout = wire.requested_timeout(headers)
    if timeout is not None and timeout <= 0:
        raise RequestTimeoutError
    return token, timeout


# What the bridge and `UsersClient` send is read in one step, which takes a third of the time.
_COMMON = re.compile(
    rb"NATS/1\.0\r\n(?:Authorization: Bearer ([!-~]+)\r\n)?(?:traceparent: [!-~]+\r\n)?"
    rb"(?:Responder-Timeout-Ms: ([0-9]{1,12})\r\n)?\r\n"
)
