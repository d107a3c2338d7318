"""The target of a request over HTTP: its path and its query, each part decoded once."""

# Strategy: percent-encoding is decoded by `binascii`, in C, as quoted-printable: that is the same
# with `=` in the place of `%`. The standard library's `unquote` is written in Python, and takes a
# millisecond for the 8 kB that a target may have: ten times what an ordinary request costs.

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Mapping
from typing import Final

import httptools

from responder.errors import InvalidRequestError
from responder.wire import excerpt

MAX_PARAMETERS: Final = 128

_MALFORMED: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a target, in any form of RFC 9112, 3.2; empty ones of no target."""
    if target[:1] == b"/" and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b"", b""
    return url.path or b"/", url.query or b""


def decode_segment(segment: bytes) -> str:
    """Return a segment of a path. `+` stands for itself there.

    Raises InvalidRequestError for a `%` that escapes nothing, and for what is not UTF-8.
    """
    if b"%" not in segment:
        return segment.decode("ascii")  # as all of a request target is
    decoded = _unescape(segment)
    if decoded is None:
        raise InvalidRequestError("path: % is not followed by two hexadecimal digits")
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("path: not UTF-8") from None


def parse_query(query: bytes, known: Mapping[str, bool]) -> dict[str, list[str]]:
    """Return the values of each parameter of a query, read as forms are: `+` is a space.

    Args:
        query: as it was sent, without the question mark.
        known: the parameters that there may be, and whether they may be repeated.

    Raises InvalidRequestError for another parameter, one repeated that may not be, too many, and
    what is not UTF-8.
    """
    found: dict[str, list[str]] = {}
    if not query:
        return found
    if query.count(b"&") >= MAX_PARAMETERS:
        raise InvalidRequestError(f"query: more than {MAX_PARAMETERS} parameters")
    for part in query.split(b"&"):
        if not part:
            continue
        written, _, value = part.partition(b"=")
        name = _decode_form(written)
        if name not in known:
            raise InvalidRequestError(f"unknown query parameter: {excerpt(name)}")
        if name in found and not known[name]:
            raise InvalidRequestError(f"{name}: given more than once")
        found.setdefault(name, []).append(_decode_form(value))
    return found


def _decode_form(written: bytes) -> str:
    decoded = written.replace(b"+", b" ")
    if b"%" in decoded:
        # In a form a `%` that escapes nothing stands for itself.
        decoded = _unescape(decoded) or _unescape(_MALFORMED.sub(b"%25", decoded)) or b""
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("query: not UTF-8") from None


def _unescape(escaped: bytes) -> bytes | None:
    """Decode what holds a `%`; None if one of them escapes nothing."""
    decoded = a2b_qp(escaped.replace(b"=", b"=3D").replace(b"%", b"="))
    # An escape is three bytes for one; what only begins like one does not become two bytes shorter.
    return decoded if len(escaped) - len(decoded) == 2 * escaped.count(b"%") else None
