"""The target of a request over HTTP."""

from __future__ import annotations

import httptools


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
