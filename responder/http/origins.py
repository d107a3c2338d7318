"""Which web pages may read answers: cross-origin resource sharing (CORS) of GET and HEAD."""

# https://fetch.spec.whatwg.org/#http-cors-protocol
#
# A browser keeps the answer from a page of another origin unless the answer names that origin, and
# asks before it sends a token for such a page (a preflight). Credentials of the browser's own, such
# as cookies, are never asked for: what speaks for a user here is a token that the page has.

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from responder.http.response import Headers, Response, raw

ANY: Final = "*"

_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"WWW-Authenticate, Retry-After")
_PREFLIGHT: Final = raw(
    {
        "access-control-allow-methods": "GET, HEAD",
        "access-control-allow-headers": "Authorization, traceparent",
        "access-control-max-age": "600",
    }
)


class Origins:
    """The origins whose pages may read answers.

    Args:
        allowed: each as a browser writes it; `*` for every origin that has a name.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(each.encode() for each in allowed)
        self._any = ANY in allowed

    def shared(self, method: str, headers: Headers, response: Response) -> Response:
        """Return a response with what a browser is to know of it.

        A preflight is answered where the route is known, and has no OPTIONS itself.

        Args:
            method: of the request.
            headers: of the request, by lower-cased name.
            response: to it.
        """
        origin = self._origin(headers)
        if origin is None:
            return response._replace(headers=[*response.headers, _VARY])
        allowed = (b"access-control-allow-origin", origin)
        asked = (name == b"access-control-request-method" for name, _ in headers)
        if method == "OPTIONS" and response.status == HTTPStatus.METHOD_NOT_ALLOWED and any(asked):
            return Response(204, [*_PREFLIGHT, allowed, _VARY], b"")
        return response._replace(headers=[*response.headers, allowed, _EXPOSED, _VARY])

    def _origin(self, headers: Headers) -> bytes | None:
        """Return what an answer names as the origin that may read it; None for no origin."""
        sent = [value for name, value in headers if name == b"origin"]
        if len(sent) != 1 or sent[0] == b"null":  # of sandboxed pages and files, whosever they are
            return None
        if self._any:
            return ANY.encode()
        return sent[0] if sent[0] in self._allowed else None
