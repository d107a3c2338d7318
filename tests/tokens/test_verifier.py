"""The verifier remembers a token for as long as the token and its key are good."""

from __future__ import annotations

import gc
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import cast

import pytest

from responder.errors import UnauthenticatedError
from responder.tokens import verifier as verifier_module
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet, UnknownKeyError
from responder.tokens.key_source import KeySource
from responder.tokens.verifier import MAX_REMEMBERED, TokenVerifier
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
    async with TokenVerifier.connect(ISSUER, key_set="/", issuer=ISSUER, audience=ISSUER) as tokens:
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


def in_memory(tokens: TokenVerifier, texts: list[str]) -> int:
    """Return the bytes of memory that are taken by verifying tokens."""
    tracemalloc.start()
    try:
        for each in texts:
            tokens.verify_now(each)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def of_many(number: int, *, audiences: int) -> list[str]:
    """Return tokens of many users, each with as many audiences."""
    named = [ISSUER, *(f"https://app-{each}.example" for each in range(1, audiences))]
    return [sign(claims(sub=f"user {each:28}", aud=named)) for each in range(number)]


@pytest.mark.heavy
@pytest.mark.parametrize(("number", "audiences"), [(3000, 1), (600, 20), (100, 400)])
def test_what_is_remembered_is_bounded_in_bytes(monkeypatch, number, audiences):
    """However large the identities of tokens are, they take no more memory than is set aside."""
    limit = 1_000_000
    monkeypatch.setattr(verifier_module, "MAX_REMEMBERED", limit)
    tokens = verifier(FixedKeys(), Clock())
    texts = of_many(number, audiences=audiences)
    assert tokens.verify_now(GOOD)  # what is made once is there

    assert limit / 2 < in_memory(tokens, texts) < limit * 1.2
    assert tokens.verify_now(texts[-1]) is tokens.cached_identity(texts[-1])
    assert tokens.cached_identity(texts[0]) is None


@pytest.mark.heavy
def test_large_identities_leave_memory_to_others():
    """Four thousand tokens that each name 600 audiences take less than 100 MB."""
    tokens = verifier(FixedKeys(), Clock())

    assert in_memory(tokens, of_many(4200, audiences=400)) < 100_000_000


def test_many_users_are_remembered():
    """There is room for the ordinary tokens of fifty thousand users."""
    tokens = verifier(FixedKeys(), Clock())
    each = in_memory(tokens, of_many(1000, audiences=1)) / 1000

    assert each * 50_000 < MAX_REMEMBERED


def test_what_is_refused_is_not_remembered():
    """A token that does not verify, or has expired, takes no memory."""
    clock = Clock()
    tokens = verifier(FixedKeys(), clock)
    for bad in (sign(key=OTHER), "x", GOOD[:-1]):
        with pytest.raises(UnauthenticatedError):
            tokens.verify_now(bad)
    assert tokens.verify_now(GOOD)
    clock.now = CLAIMS["exp"] + 30
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.verify_now(GOOD)

    assert (0, 0) == (len(tokens._remembered), tokens._remembered_size)


def test_the_time_is_that_of_the_machine():
    """Without a clock of its own, the verifier accepts a token that is good now."""
    now = time.time()
    token = sign(claims(iat=int(now), exp=int(now) + 60))
    tokens = TokenVerifier(cast(KeySource, FixedKeys()), ACCEPTED)

    assert CLAIMS["sub"] == tokens.verify_now(token).user_id
