"""The verifier remembers a token for as long as the token and its key are good."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from responder.errors import UnauthenticatedError
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet, UnknownKeyError
from responder.tokens.key_source import KeySource
from responder.tokens.verifier import MAX_CACHED, TokenVerifier
from tests.signing import (
    CLAIMS,
    ED,
    GOOD,
    ISSUER,
    KEYS,
    KID,
    NOW,
    OTHER,
    claims,
    jwk,
    key_set,
    sign,
)


async def test_one_issuer_may_be_given_as_text():
    """A text for the issuers or audiences is one of them; a part of that text is none."""
    async with TokenVerifier.connect(
        ISSUER, key_set="/", issuers=ISSUER, audiences=ISSUER
    ) as tokens:
        tokens.key_source.key_set = KEYS
        tokens._clock = Clock()

        assert CLAIMS["sub"] == tokens.verify_now(GOOD).user_id
        with pytest.raises(UnauthenticatedError, match="iss"):
            tokens.verify_now(sign(claims(iss="https://app")))


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class FixedKeys:
    """A key source that downloads nothing."""

    key_set: KeySet | None = field(default_factory=lambda: KEYS)


ACCEPTED = TrustedIssuer(key_set_url="", issuers=[ISSUER], audiences=[ISSUER], token_url="")


def verifier(keys: FixedKeys, clock: Clock) -> TokenVerifier:
    return TokenVerifier(cast(KeySource, keys), ACCEPTED, clock=clock)


def test_a_remembered_token_expires():
    """A token that was good is refused 30 s after its `exp`, and not before."""
    clock = Clock()
    tokens = verifier(FixedKeys(), clock)

    assert tokens.verify_now(GOOD) is tokens.verify_now(GOOD)
    clock.now = CLAIMS["exp"] + 29.9
    assert CLAIMS["sub"] == tokens.verify_now(GOOD).user_id
    clock.now = CLAIMS["exp"] + 30
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.verify_now(GOOD)


def test_a_remembered_token_is_forgotten_with_its_key():
    """When the key set changes, a token is verified again, and refused if its key was withdrawn."""
    keys = FixedKeys()
    tokens = verifier(keys, Clock())
    assert CLAIMS["sub"] == tokens.verify_now(GOOD).user_id

    keys.key_set = key_set(jwk(OTHER, kid=KID))
    with pytest.raises(UnauthenticatedError, match="signature"):
        tokens.verify_now(GOOD)
    keys.key_set = key_set(jwk(ED, kid="newer"))
    with pytest.raises(UnknownKeyError):
        tokens.verify_now(GOOD)


def test_only_so_many_tokens_are_remembered():
    """However many tokens are verified, MAX_CACHED of them are kept, and none that was refused."""
    tokens = verifier(FixedKeys(), Clock())
    token = tokens.verify_now(GOOD)
    tokens._cache = {bytes([0]) + n.to_bytes(4): token for n in range(MAX_CACHED)}

    tokens.verify_now(GOOD)
    for bad in (sign(key=OTHER), "x", GOOD[:-1]):
        with pytest.raises(UnauthenticatedError):
            tokens.verify_now(bad)

    assert MAX_CACHED == len(tokens._cache)


def test_the_time_is_that_of_the_machine():
    """Without a clock of its own, the verifier accepts a token that is good now."""
    now = time.time()
    token = sign(claims(iat=int(now), exp=int(now) + 60))
    tokens = TokenVerifier(cast(KeySource, FixedKeys()), ACCEPTED)

    assert CLAIMS["sub"] == tokens.verify_now(token).user_id
