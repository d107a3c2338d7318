"""The issuer whose tokens are accepted, and how the URL of its application names it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """Whose tokens are accepted, and where their keys are.

    Args:
        key_set_url: an http(s) URL of the key set, or the path of a file.
        issuers: the values of `iss` that are accepted.
        audiences: the values of `aud` that are accepted; a token must have one of them.
        token_url: where a caller gets a token, for messages.
    """

    key_set_url: str
    issuers: Collection[str]
    audiences: Collection[str]
    token_url: str


def api_url(better_auth_url: str) -> str:
    """Return the base of Better Auth's HTTP API.

    >>> api_url("https://app.example.com")
    'https://app.example.com/api/auth'
    """
    url = urlsplit(better_auth_url)
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/') or '/api/auth'}"


def origin(better_auth_url: str) -> str:
    """Return what Better Auth writes as issuer and audience: the origin, as JavaScript has it.

    >>> origin("https://App.example.com:443/api/auth")
    'https://app.example.com'
    """
    url = urlsplit(better_auth_url)
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.port in (None, _DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    return f"{url.scheme}://{host}{port}"
