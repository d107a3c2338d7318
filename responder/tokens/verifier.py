"""Tokens become identities: verified with fresh keys, and remembered."""

# Strategy: verifying a signature costs ten times a lookup. So the identity of a verified token is
# cached under the token's hash for as long as the key set stays the same, and only `exp` is checked
# again each time. An identity is what the token says; the cache holds nothing of a user's row.

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Final

from responder.errors import UnavailableError
from responder.models import Identity
from responder.tokens.identity import MAX_TOKEN, check_expiry, split_compact, verify
from responder.tokens.issuer import TrustedIssuer, api_url, key_set_url, origin
from responder.tokens.key_set import KeySet, StaleKeyError, UnknownKeyError
from responder.tokens.key_source import KeySource

MAX_CACHED: Final = 4096  # tokens
PATIENCE: Final = 2.0  # seconds that a token waits to see whether its key was replaced


class TokenVerifier:
    """Tells for which user a Better Auth token speaks, without asking another service.

        async with TokenVerifier.connect("https://app.example.com") as tokens:
            identity = await tokens.verify(token)

    Args:
        key_source: the keys of the issuer, see `connect`.
        issuer: whose tokens are accepted.
        clock: returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        key_source: KeySource,
        issuer: TrustedIssuer,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.key_source = key_source
        self._issuer = issuer
        self._clock = clock
        self._cache: dict[bytes, Identity] = {}
        self._cached_with: KeySet | None = None

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
            better_auth_url: of the application; Better Auth answers below its path, or /api/auth.
            key_set: the URL or file of the keys, if it is not Better Auth's own.
            issuers: the values of `iss` that are accepted, if not just the application's origin.
            audiences: the values of `aud` that are accepted, if not just the application's origin.
        """
        base, own = api_url(better_auth_url), [origin(better_auth_url)]
        issuer = TrustedIssuer(
            key_set_url=key_set or key_set_url(better_auth_url),
            issuers=_as_collection(issuers) or own,
            audiences=_as_collection(audiences) or own,
            token_url=f"{base}/token",
        )
        async with KeySource(issuer.key_set_url).running() as key_source:
            yield cls(key_source, issuer)

    async def verify(self, token: str) -> Identity:
        """Return the identity of the user for whom a token speaks.

        Waits for newer keys if the token's key is not known; for PATIENCE seconds at most if it is
        known, and has not signed the token.

        Raises UnauthenticatedError, which says which check failed, and UnavailableError while there
        are no keys at all.
        """
        try:
            return self.verify_now(token)
        except UnknownKeyError:
            await self.key_source.wait_for_newer()
        except StaleKeyError:
            with suppress(TimeoutError, UnavailableError):
                async with asyncio.timeout(PATIENCE):
                    await self.key_source.wait_for_newer()
        return self.verify_now(token)

    def verify_now(self, token: str) -> Identity:
        """Return the identity of the user for whom a token speaks, as far as the known keys tell.

        Raises UnknownKeyError where newer keys might tell, else UnauthenticatedError.
        """
        identity = self.cached_identity(token)
        if identity is not None:
            return identity
        keys = self.key_source.key_set
        if keys is None:
            raise UnknownKeyError("no keys to verify a token with")
        identity = verify(
            token,
            keys,
            issuers=self._issuer.issuers,
            audiences=self._issuer.audiences,
            now=self._clock(),
            token_url=self._issuer.token_url,
        )
        if len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache[_digest(token)] = identity
        return identity

    def cached_identity(self, token: str) -> Identity | None:
        """Return the identity of a token that was verified before, in about a microsecond.

        Returns None for a token that is still to be verified.

        Raises UnauthenticatedError for a token that has expired, and for text that cannot be one.
        """
        keys = self.key_source.key_set
        if keys is not self._cached_with:
            self._cached_with, self._cache = keys, {}
        identity = self._cache.get(_digest(token)) if len(token) <= MAX_TOKEN else None
        if identity is None:
            # A token that has to wait is held in memory, so it must not be huge.
            split_compact(token, token_url=self._issuer.token_url)
        else:
            check_expiry(identity, self._clock())
        return identity


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _as_collection(given: str | Collection[str] | None) -> Collection[str] | None:
    # A text is itself a collection, in which each part of it is found: "app" in "https://app".
    return [given] if isinstance(given, str) else given
