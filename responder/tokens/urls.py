"""URLs, read as JavaScript's `new URL(…)` reads them (the WHATWG URL Standard)."""

# Strategy: Better Auth writes `new URL(baseURL).origin` into its tokens, and that text is compared
# as it is. So a URL is read here by Ada, the parser that Node.js uses itself. The standard library
# follows another standard: it takes http://0x7f.1 for a name, where Node.js has http://127.0.0.1,
# and leaves the host of https://bücher.example as it is, where Node.js has
# https://xn--bcher-kva.example.

from __future__ import annotations

import re
from typing import Final, NamedTuple

import can_ada

HTTP: Final = ("http:", "https:")
_HTTP_SCHEME: Final = re.compile(r"[\x00-\x20]*https?:", re.IGNORECASE)


class Url(NamedTuple):
    """What JavaScript says of a URL, in its words."""

    href: str
    origin: str  # "null" where the scheme has none
    protocol: str
    port: str  # empty for the default port of the scheme
    pathname: str
    has_credentials: bool  # whether there is a user or a password


def parse(text: str, *, base: str | None = None) -> Url:
    """Read a URL; raises ValueError where `new URL` throws.

    Args:
        text: an absolute URL, or a reference relative to the base.
        base: an absolute URL.
    """
    try:
        url = can_ada.parse(text) if base is None else can_ada.parse(base) + text
    except (ValueError, TypeError):  # a lone surrogate is a TypeError
        raise ValueError("not a URL") from None
    has_credentials = bool(url.username or url.password)
    return Url(url.href, url.origin, url.protocol, url.port, url.pathname, has_credentials)


def parse_http(text: str, *, base: str | None = None) -> Url:
    """Read an http(s) URL that a client can follow; raises ValueError for any other."""
    url = parse(text, base=base)
    if url.protocol not in HTTP or url.port == "0":
        raise ValueError("not an http:// or https:// URL")
    return url


def is_http(text: str) -> bool:
    """Tell whether a text is meant as an http(s) URL, and not as the path of a file."""
    return _HTTP_SCHEME.match(text) is not None
