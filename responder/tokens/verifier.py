"""Tokens become identities: verified with fresh keys, and remembered."""

# Strategy: verifying a signature costs ten times a lookup. So the identity of a verified token is
# remembered under the token's hash for as long as the key set stays the same, and only `exp` is
# checked again each time. An identity is what the token says; nothing of a user's row is
# remembered.
#
# What is remembered is bounded in bytes, because an identity may be large: a token of 16 KiB may
# name 600 audiences, which take fifty times the memory of one. The oldest is forgotten first.

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from sys import getsizeof
from typing import Final

from responder.errors import UnauthenticatedError, UnavailableError
from responder.models import Identity
from responder.tokens.identity import (
    MAX_TOKEN,
    Header,
    Unverified,
    check_expiry,
    parse_header,
    split_compact,
    verify_parsed,
)
from responder.tokens.issuer import TrustedIssuer, api_url, key_set_url, origin
from responder.tokens.key_set import KeySet, StaleKeyError, UnknownKeyError
from responder.tokens.key_source import NO_KEYS, KeySource
from responder.tokens.shared_secret import HS256, SharedSecrets, parse

# Enough for the tokens of 60,000 users, a kilobyte each.
MAX_REMEMBERED: Final = 64 * 1024 * 1024  # bytes
IDENTITY_SIZE: Final = 700  # bytes that an identity takes besides its texts, with its place
MAX_HEADERS: Final = 64  # that are remembered
PATIENCE: Final = 2.0  # seconds that a token waits to see whether its key was replaced
MAX_DOUBTED: Final = 128  # tokens that wait for that; others are refused at once


class TokenVerifier:
    """Tells for which user a token speaks, without asking another service.

        async with TokenVerifier.connect("https://app.example.com") as tokens:
            identity = await tokens.verify(token)

    Args:
        key_source: the keys of the issuer, see `connect`; None where only secrets verify.
        issuer: whose tokens are accepted.
        clock: returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        key_source: KeySource | None,
        issuer: TrustedIssuer,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key_source = key_source
        self._issuer = issuer
        self._clock = clock
        self._remembered = OrderedDict[bytes, Identity]()  # by the token's hash
        self._remembered_size = 0  # bytes
        self._doubted = 0  # tokens that wait to see whether their key was replaced
        self._headers: dict[str, Header] = {}  # of known keys, by their segment of a token
        self._remembered_with: KeySet | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str | None = None,
        *,
        secret: str | Sequence[str] | None = None,
        issuer: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = None,
        key_set: str | None = None,
    ) -> AsyncIterator[TokenVerifier]:
        """Keep the keys of an issuer fresh while the context is open.

        Args:
            url: of the application; Better Auth answers below its path, or /api/auth.
            secret: with which the application signs tokens of its own (HS256), or several, in a
                list or with commas between.
            issuer: the values of `iss` that are accepted, if not just the application's origin;
                where they are given, a token of a secret needs one, too.
            audience: likewise of `aud`.
            key_set: the URL or file of the keys, if it is not Better Auth's own.

        Raises ValueError without keys or secrets, and for what is no URL or secret.
        """
        own = [origin(url)] if url else []
        issuers, audiences = _as_collection(issuer) or own, _as_collection(audience) or own
        location = (
            (key_set or (url and key_set_url(url)) or None) if issuers and audiences else None
        )
        if location is None and key_set:
            raise ValueError("issuer, audience: required where only a key set is given")
        if location is None and secret is None:
            raise ValueError("expected the application's URL, or a secret")
        secrets = None
        if secret is not None:
            secrets = parse(secret) if isinstance(secret, str) else SharedSecrets(secret)
        trusted = TrustedIssuer(
            key_set_url=location,
            key_set_is_presumed=key_set is None and secrets is not None,
            secrets=secrets,
            issuers=issuers,
            audiences=audiences,
            issuer_is_required=bool(issuer),
            audience_is_required=bool(audience),
            token_url=f"{api_url(url) if url else '/api/auth'}/token",
        )
        if location is None:
            yield cls(None, trusted)
            return
        source = KeySource(location, presumed=trusted.key_set_is_presumed)
        async with source.running() as key_source:
            yield cls(key_source, trusted)

    @property
    def key_source(self) -> KeySource:
        """What keeps the keys fresh; raises UnavailableError where only secrets verify."""
        if self._key_source is None:
            raise UnavailableError(NO_KEYS)
        return self._key_source

    async def verify(self, token: str) -> Identity:
        """Return the identity of the user for whom a token speaks.

        Waits for newer keys if the token's key is not known. If it is known, and has not signed the
        token, only a few tokens wait, and for PATIENCE seconds at most.

        Raises UnauthenticatedError, which says which check failed, and UnavailableError while there
        are no keys at all, or a key is not known and the key set cannot be fetched.
        """
        try:
            return self.verify_now(token)
        except UnknownKeyError:
            await self.key_source.wait_for_newer()
        except StaleKeyError:
            with suppress(UnavailableError):
                self.key_source.newer()
            if self._doubted >= MAX_DOUBTED:
                raise
            await self._wait_for_replaced()
        try:
            return self.verify_now(token)
        except UnknownKeyError as refusal:
            raise self.key_source.verdict(refusal) from None

    async def _wait_for_replaced(self) -> None:
        """Wait for a newer key set, for a while; none may come."""
        self._doubted += 1
        try:
            with suppress(TimeoutError, UnavailableError):
                async with asyncio.timeout(PATIENCE):
                    await self.key_source.wait_for_newer()
        finally:
            self._doubted -= 1

    def verify_now(self, token: str) -> Identity:
        """Return the identity of the user for whom a token speaks, as far as the known keys tell.

        Raises UnknownKeyError or StaleKeyError where newer keys might tell, else
        UnauthenticatedError.
        """
        identity = self.cached_identity(token)
        return identity if identity is not None else self.verify_parsed(self.parse(token))

    def parse(self, token: str) -> Unverified:
        """Read what a token says of its key; raises UnauthenticatedError if no key can help it."""
        parts = split_compact(token, token_url=self._issuer.token_url)
        header = self._headers.get(parts[1])
        return Unverified(header or parse_header(parts[1], self._issuer), parts)

    def has_key_for(self, token: Unverified) -> bool:
        """Tell whether a key is known that may have signed a token, or it takes a secret."""
        keys, segment = self._keys(), token.parts[1]
        if keys is self._remembered_with and segment in self._headers:
            return True
        if token.header.algorithm != HS256:
            try:
                if keys is None or not keys.verifying_keys(*token.header):
                    return False
            except UnknownKeyError:
                return False
            except UnauthenticatedError:  # verifying it says which check fails
                return True
        # The tokens of one key have the same header. More kinds of it are not worth their memory.
        if keys is self._remembered_with and len(self._headers) < MAX_HEADERS:
            self._headers[segment] = token.header
        return True

    def verify_parsed(self, token: Unverified) -> Identity:
        """Return the identity of the user for whom a token speaks (see `verify_now`)."""
        digest = _digest(token.parts.string)
        identity = self._recall(digest)
        if identity is not None:
            return identity
        identity = verify_parsed(token, self._keys(), self._issuer, now=self._clock())
        self._remember(digest, identity)
        return identity

    def cached_identity(self, token: str) -> Identity | None:
        """Return the identity of a token that was verified before, in about a microsecond.

        Returns None for a token that is still to be verified; raises UnauthenticatedError for one
        that has expired.
        """
        return self._recall(_digest(token)) if len(token) <= MAX_TOKEN else None

    def _keys(self) -> KeySet | None:
        return None if self._key_source is None else self._key_source.key_set

    def _recall(self, digest: bytes) -> Identity | None:
        keys = None if self._key_source is None else self._key_source.key_set
        if keys is not self._remembered_with:
            self._remembered_with = keys
            self._remembered.clear()
            self._headers.clear()
            self._remembered_size = 0
        identity = self._remembered.get(digest)
        if identity is not None:
            try:
                check_expiry(identity, self._clock())
            except UnauthenticatedError:
                self._forget(digest)
                raise
        return identity

    def _remember(self, digest: bytes, identity: Identity) -> None:
        self._remembered[digest] = identity
        self._remembered_size += _size(identity)
        while self._remembered_size > MAX_REMEMBERED:
            self._forget(next(iter(self._remembered)))

    def _forget(self, digest: bytes) -> None:
        self._remembered_size -= _size(self._remembered.pop(digest))


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _size(identity: Identity) -> int:
    """Return about how many bytes an identity takes in memory."""
    size = IDENTITY_SIZE + getsizeof(identity.audience) + sum(map(getsizeof, identity.audience))
    texts = (identity.email, identity.name, identity.role, identity.organization_id)
    for text in (*texts, identity.org_role, identity.issuer):
        if text is not None:
            size += getsizeof(text)
    return size + getsizeof(identity.user_id)


def _as_collection(given: str | Collection[str] | None) -> Collection[str] | None:
    # A text is itself a collection, in which each part of it is found: "app" in "https://app".
    return [given] if isinstance(given, str) else given
