"""The head of a request of HTTP/1.1: what it says, or what it is refused with."""

# Strategy: llhttp parses (through httptools), and it is given heads that are whole, and nothing
# else: no body, and no part of the next request. So one parser serves all connections.
#
# What is too large is refused before it is parsed, from its size alone. A limit is there because
# what it bounds costs time or memory by its size: a target is matched and decoded, and each line
# becomes two values. For example, a head of 64 kB may be 16,000 headers, which take 6 ms to read.
#
# What RFC 9112 wants refused and llhttp lets through is refused here: no Host, or two.

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import httptools

from responder.http.response import Response, problem
from responder.http.target import split_target

MAX_TARGET: Final = 8 * 1024  # bytes
MAX_HEAD: Final = 64 * 1024  # bytes
MAX_LINES: Final = 128
END: Final = b"\r\n\r\n"  # of a head

NOT_HTTP: Final = problem(400, "invalid_request", "not a request of HTTP/1.1")
HOST: Final = problem(400, "invalid_request", "Host: expected exactly one, such as users.example")
TOO_LONG: Final = problem(414, "uri_too_long", f"the target is longer than {MAX_TARGET} bytes")
TOO_LARGE: Final = problem(
    413,
    "payload_too_large",  # the codes of subjects.md have no other for what does not fit
    f"the headers are more than {MAX_HEAD} bytes, or more than {MAX_LINES} lines",
)

_MAX_LINE: Final = MAX_TARGET + 64  # bytes of a request line: target, method, version
_METHOD: Final = re.compile(rb"[A-Z][A-Z-]{0,31}(?: |\Z)")
_HOST: Final = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*")  # RFC 3986, 3.2.2 and 3.2.3
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Head(NamedTuple):
    """What a head says.

    Args:
        method: such as GET.
        version: of HTTP, 1.0 or 1.1.
        path: as it was sent, not decoded.
        query: likewise, without the question mark.
        headers: by lower-cased name, in order.
        keep_alive: whether the client may send another request on its connection.
        body: bytes that follow; None if only they would tell how many.
    """

    method: str
    version: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    body: int | None


def oversized(received: bytes, size: int, *, whole: bool) -> Response | None:
    """Return what a head is refused with by its size, or by its first bytes, unparsed.

    Args:
        received: what begins with the head.
        size: bytes of it that belong to the head, its end excluded.
        whole: whether all of the head has been received.
    """
    if not whole and not _METHOD.match(received, 0, size):
        return NOT_HTTP  # at once: what is no HTTP, such as TLS, may never send the end of a head
    if size >= _MAX_LINE - 1 and received.find(b"\r\n", 0, _MAX_LINE) < 0:
        return TOO_LONG
    if size > MAX_HEAD or (whole and received.count(b"\r\n", 0, size) > MAX_LINES):
        return TOO_LARGE
    return None


class HeadParser:
    """Reads heads, of any number of connections."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._keep_alive = False
        self._ended = False

    def parse(self, head: bytes) -> Head | Response:
        """Return what a head says, or what it is refused with.

        Args:
            head: as a whole, and nothing more.
        """
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self._target, self._headers, self._ended = b"", [], False
        parser = self._parser
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # The request is answered in HTTP/1.1. llhttp takes its body for another protocol.
            self._parser = None
            self._ended = _FRAMING.isdisjoint(name for name, _ in self._headers)
        except httptools.HttpParserError:
            self._parser = None
            return NOT_HTTP
        if not (self._ended and self._keep_alive):
            self._parser = None  # it waits for a body, or for the end of the connection
        return self._checked(parser.get_method().decode("ascii"), parser.get_http_version())

    def _checked(self, method: str, version: str) -> Head | Response:
        if len(self._target) > MAX_TARGET:
            return TOO_LONG
        path, query = split_target(self._target)
        if path[:1] not in {b"/", b"*"} or version not in {"1.0", "1.1"}:
            return NOT_HTTP
        hosts = [value for name, value in self._headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            return HOST
        if hosts and not _HOST.fullmatch(hosts[0]):
            return HOST
        keep_alive = self._keep_alive and version == "1.1"
        body = 0 if self._ended else self._length()
        return Head(method, version, path, query, self._headers, keep_alive, body)

    def _length(self) -> int | None:
        # llhttp refuses a length that is no number, and more than one.
        return next(
            (int(value) for name, value in self._headers if name == b"content-length"), None
        )

    # What llhttp calls.

    def on_url(self, url: bytes) -> None:
        """Take the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Ask what llhttp forgets at the end of the request."""
        self._keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Take note that no body follows."""
        self._ended = True
