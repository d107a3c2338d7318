"""Tokens become identities, with keys that are kept fresh."""

# Strategy: verifying a signature costs ten times a lookup, so what a good token says is remembered under
# its hash, for as long as its keys stay the same; `exp` is looked at each time. Nothing of a user's row
# is in it.

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from responder.models import Identity
from responder.tokens.identity import MAX_TOKEN, KeySet, UnknownKeyError, check_times, split, verify
from responder.tokens.key_set import Keys

REMEMBERED: Final = 4096  # tokens
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whose tokens are accepted: where its keys are, its names, and where one gets a token."""

    key_set: str
    issuers: Collection[str]
    audiences: Collection[str]
    advice: str


class TokenVerifier:
    """Tells who a Better Auth token speaks for, without asking anyone.

        async with TokenVerifier.connect("https://app.example.com") as tokens:
            identity = await tokens.verify(token)

    Args:
        keys: of the issuer, see `connect`.
        issuer: whose tokens are accepted.
        clock: returns the time, in seconds since 1970.
    """

    def __init__(
        self, keys: Keys, issuer: Issuer, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.keys = keys
        self._issuer = issuer
        self._clock = clock
        self._verified_with: KeySet | None = None
        self._verified: dict[bytes, Identity] = {}

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        better_auth_url: str,
        *,
        key_set: str | None = None,
        issuers: str | Collection[str] | None = None,
        audiences: str | Collection[str] | None = None,
    ) -> AsyncIterator[TokenVerifier]:
        """Keep the keys of an issuer fresh while the context is open.

        Args:
            better_auth_url: of the application; its path, or /api/auth, is where Better Auth answers.
            key_set: URL or file of the keys, if it is not Better Auth's own.
            issuers: that are accepted, if it is not the origin of the application.
            audiences: likewise.
        """
        base, own = api(better_auth_url), [origin(better_auth_url)]
        issuer = Issuer(
            key_set=key_set or f"{base}/jwks",
            issuers=_names(issuers) or own,
            audiences=_names(audiences) or own,
            advice=f"{base}/token",
        )
        async with Keys(issuer.key_set).running() as keys:
            yield cls(keys, issuer)

    async def verify(self, token: str) -> Identity:
        """Return who a token speaks for.

        Raises UnauthenticatedError, which says which check failed, and UnavailableError while there are
        no keys at all.
        """
        try:
            return self.verify_now(token)
        except UnknownKeyError:
            await self.keys.renewed()
            return self.verify_now(token)

    def verify_now(self, token: str) -> Identity:
        """Return who a token speaks for, as far as the keys known now tell.

        Raises UnknownKeyError where newer ones might, else UnauthenticatedError.
        """
        identity = self.remembered(token)
        if identity is not None:
            return identity
        keys = self.keys.known
        if keys is None:
            raise UnknownKeyError("no keys to verify a token with")
        identity = verify(
            token,
            keys,
            issuers=self._issuer.issuers,
            audiences=self._issuer.audiences,
            now=self._clock(),
            advice=self._issuer.advice,
        )
        if len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[_digest(token)] = identity
        return identity

    def remembered(self, token: str) -> Identity | None:
        """Return who a token speaks for, if it was verified before; this costs next to nothing.

        Raises UnauthenticatedError for one that has expired since, and for what is no token at all.
        """
        keys = self.keys.known
        if keys is not self._verified_with:
            self._verified_with, self._verified = keys, {}
        identity = self._verified.get(_digest(token)) if len(token) <= MAX_TOKEN else None
        if identity is None:
            split(token, advice=self._issuer.advice)  # what has to wait must not be huge
        else:
            check_times(identity, self._clock())
        return identity


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _names(given: str | Collection[str] | None) -> Collection[str] | None:
    # A text is a collection too, which contains each of its parts.
    return [given] if isinstance(given, str) else given


def api(better_auth_url: str) -> str:
    """Return the base of Better Auth's HTTP API.

    >>> api("https://app.example.com")
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
    port = "" if url.port in (None, DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    return f"{url.scheme}://{host}{port}"
