"""The issuer whose tokens are accepted, and how the URL of its application names it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from responder.tokens.shared_secret import SharedSecrets
from responder.tokens.urls import parse, parse_http


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """Whose tokens are accepted, and what verifies them: published keys, shared secrets, or both.

    Args:
        key_set_url: an http(s) URL of the key set, or the path of a file; None without keys.
        key_set_is_presumed: whether that only follows from the application's address, and may not
            be there, because tokens of a shared secret are accepted.
        secrets: the shared secrets; None without any.
        issuers: the values of `iss` that are accepted.
        audiences: the values of `aud` that are accepted; a token must have one of them.
        issuer_is_required: whether a token of a shared secret must have `iss`; others always must.
        audience_is_required: likewise for `aud`.
        token_url: where a caller gets a token, for messages.
    """

    key_set_url: str | None
    key_set_is_presumed: bool = False
    secrets: SharedSecrets | None = None
    issuers: Collection[str]
    audiences: Collection[str]
    issuer_is_required: bool = False
    audience_is_required: bool = False
    token_url: str


def api_url(better_auth_url: str) -> str:
    """Return the base of Better Auth's HTTP API, without a user and password.

    Raises ValueError for what is no http(s) URL.

    >>> api_url("https://app.example.com")
    'https://app.example.com/api/auth'
    """
    url = parse_http(better_auth_url)
    return f"{url.origin}{_api_path(url.pathname)}"


def key_set_url(better_auth_url: str) -> str:
    """Return where Better Auth publishes its keys, with the user and password of the URL if any.

    Raises ValueError for what is no http(s) URL.

    >>> key_set_url("https://u:secret@app.example.com/iam/")
    'https://u:secret@app.example.com/iam/jwks'
    """
    url = parse_http(better_auth_url)
    path_at = url.href.index("/", len(url.protocol) + 2)
    return f"{url.href[:path_at]}{_api_path(url.pathname)}/jwks"


def origin(better_auth_url: str) -> str:
    """Return what Better Auth writes as issuer and audience: `new URL(…).origin`.

    Raises ValueError for what is no URL.

    >>> origin("https://App.example.com:443/api/auth")
    'https://app.example.com'
    """
    return parse(better_auth_url).origin


def _api_path(path: str) -> str:
    return path.rstrip("/") or "/api/auth"
