"""A response over HTTP as one value, and errors as RFC 9457 writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias

import msgspec
from starlette.types import Send

# Headers of every response, of the bridge, of the admin listener and of the protocol itself. The
# listener adds them, so that no app can forget them.
ALWAYS: Final = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))


Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_STATUS_LINES: Final = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus
}
LARGE: Final = 4096  # bytes of a body
_BODILESS: Final = frozenset({204, 304})


class Response(NamedTuple):
    """What a request is answered."""

    status: int
    headers: Headers  # by lower-cased name
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it (ASGI)."""
        start = {"status": self.status, "headers": self.headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body})


def raw(headers: Mapping[str, str]) -> Headers:
    """Return headers as they are on the wire."""
    return tuple((name.encode(), value.encode("latin-1")) for name, value in headers.items())


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: str,
) -> Response:
    """Return an error as RFC 9457 writes it.

    Args:
        status: of HTTP.
        code: what is wrong, for a program.
        detail: what is wrong, for a person.
        headers: besides the content type, by lower-cased name.
        more: members of the body, besides those that every error has.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(
        status,
        raw({"content-type": "application/problem+json", **(headers or {})}),
        msgspec.json.encode(body),
    )


def encode(
    status: int, headers: Headers, body: bytes, *, always: bytes, last: bool, bodiless: bool
) -> list[bytes]:
    """Return the parts of a response as HTTP/1.1 writes it.

    A large body is a part of its own, and not copied: if it is the same for all, as a document is,
    clients that do not take it cost no memory.

    Args:
        status: of the response.
        headers: of it. Its length is not read from them, but counted.
        body: of it.
        always: lines of headers that are there in any case.
        last: whether it ends its connection.
        bodiless: whether it is to have no body, as that to HEAD.

    Raises ValueError for a line break in a header, which would begin another.
    """
    parts = [_STATUS_LINES[status], always, _lines(tuple(headers))]
    if last:
        parts.append(b"connection: close\r\n")
    if status in _BODILESS:
        parts.append(b"\r\n")
    else:
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        if not bodiless and len(body) > LARGE:
            return [b"".join(parts), body]
        if not bodiless:
            parts.append(body)
    return [b"".join(parts)]


# Nearly all answers have the same headers.
@lru_cache(maxsize=64)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    parts: list[bytes] = []
    for name, value in headers:
        if b"\n" in value or b"\r" in value:
            raise ValueError("a line break in a header")
        if name != b"content-length":
            parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)
