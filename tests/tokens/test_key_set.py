"""The keys of a key set verify the tokens that they have signed, and no others."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from responder.errors import UnauthenticatedError
from responder.tokens.key_set import MAX_TRIED, KeySet, UnknownKeyError
from tests.signing import (
    ALL,
    CLAIMS,
    ED,
    GOOD,
    KID,
    OTHER,
    P256,
    P384,
    SMALL_RSA,
    check,
    header,
    jwk,
    key_set,
    sign,
)

STRANGER = Ed25519PrivateKey.generate()


@pytest.mark.parametrize("algorithm", ALL)
def test_every_algorithm_of_better_auth_verifies(algorithm):
    """A key verifies tokens of its algorithm as it is published, and without its `alg`."""
    key, published = ALL[algorithm]
    token = sign(header={"alg": algorithm, "kid": published["kid"]}, key=key, algorithm=algorithm)
    without = {name: value for name, value in published.items() if name != "alg"}

    assert CLAIMS["sub"] == check(token).user_id == check(token, key_set(without)).user_id


@pytest.mark.parametrize(
    ("published", "named"),
    [
        (jwk(ED), header()),  # 1.2 at first: no kid
        (jwk(ED, kid=KID), header()),  # 1.0 to 1.3: no alg
        (jwk(ED, kid="1", alg="EdDSA"), header(kid="1")),  # serial ids
        (jwk(ED, kid=KID, alg="EdDSA", use="sig"), header()),
        (jwk(ED, kid=KID, alg="EdDSA"), {"alg": "EdDSA"}),  # with one key a token needs no kid
        (jwk(ED, kid=KID, alg="EdDSA"), header(typ="JWT")),
        (jwk(ED, kid=KID, key_ops=["verify"]), header()),  # RFC 7517, 4.3
        (jwk(ED, kid=KID, use="sig", key_ops=["sign", "verify"]), header()),
    ],
)
def test_keys_as_every_version_publishes_them(published, named):
    """A key verifies tokens in every form in which Better Auth's versions have published it."""
    assert CLAIMS["sub"] == check(sign(header=named), key_set(published)).user_id


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not a key set"),
        (b"{}", "not a key set"),
        (b'{"keys": {}}', "not a key set"),
        (b'{"keys": []}', "no key"),
        (b'{"keys": [1, null, "x", {}, {"kty": []}, {"kty": "OKP", "crv": {}}]}', "no key"),
        (json.dumps({"keys": [jwk(SMALL_RSA, kid="small")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(P384, kid="p384")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, use="enc")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, alg="HS256")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=7)]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, x="AAAA")]}).encode(), "no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]}', "no key"),
        *(
            (json.dumps({"keys": [jwk(ED, kid=KID, key_ops=each)]}).encode(), "no key")
            for each in ([], ["sign"], ["encrypt", "wrapKey"], ["Verify"], "verify", {"verify": 1})
        ),
    ],
)
def test_a_document_without_a_usable_key_is_refused(document, problem):
    """The document is a ValueError that says what it lacks, and no exception of another kind."""
    with pytest.raises(ValueError, match=problem):
        KeySet(document)


def test_a_key_that_cannot_be_used_spoils_no_other():
    """Beside keys that cannot be used, a good key verifies its tokens."""
    keys = key_set({"kty": "oct", "k": "c2VjcmV0"}, jwk(P384), jwk(ED, kid=KID))

    assert CLAIMS["sub"] == check(GOOD, keys).user_id


def test_a_token_of_an_unknown_key_is_told_from_a_bad_one():
    """A newer key set may help where no key has the token's id, and never a bad signature.

    A key without an id is tried first; a token that it has not signed may be of a newer key.
    """
    with pytest.raises(UnknownKeyError):
        check(sign(header=header(kid="new"), key=OTHER))
    with pytest.raises(UnknownKeyError):
        check(sign(header=header(kid="new"), key=OTHER), key_set(jwk(ED)))
    with pytest.raises(UnauthenticatedError) as raised:
        check(sign(key=OTHER))
    assert not isinstance(raised.value, UnknownKeyError)


def test_a_token_must_name_its_key_where_two_could_be_meant():
    """A token without a kid is refused where two keys could have signed it."""
    with pytest.raises(UnauthenticatedError, match="kid"):
        check(sign(header={"alg": "EdDSA"}), key_set(jwk(ED, kid="a"), jwk(OTHER, kid="b")))


ONE = jwk(ED, kid=KID, alg="EdDSA")


@pytest.mark.parametrize(
    ("published", "named"),
    [
        ([ONE, ONE], header()),
        ([ONE, jwk(ED, kid=KID)], header()),
        ([ONE, jwk(ED, kid=KID, use="sig", alg="EdDSA"), jwk(P256, kid="p256")], header()),
        ([ONE, {**ONE, "x": ONE["x"] + "="}], header()),  # spelled with padding
        ([ONE, ONE], {"alg": "EdDSA"}),
        ([jwk(ED), jwk(ED)], header()),
        ([jwk(ED, kid="a"), jwk(ED, kid="b")], {"alg": "EdDSA"}),
    ],
)
def test_a_key_that_is_listed_twice_is_one_key(published, named):
    """A key set that lists a key more than once verifies the tokens of that key."""
    assert CLAIMS["sub"] == check(sign(header=named), key_set(*published)).user_id


@pytest.mark.parametrize("order", [1, -1])
def test_two_keys_of_one_id_are_each_tried(order):
    """Where an id has several keys, each verifies its tokens, in any order (RFC 7517, 4.5)."""
    published = [jwk(ED, kid=KID), jwk(OTHER, kid=KID), jwk(P256, kid=KID)][::order]
    keys = key_set(*published)
    elliptic = sign(header=header(alg="ES256"), key=P256, algorithm="ES256")

    assert CLAIMS["sub"] == check(sign(key=ED), keys).user_id
    assert CLAIMS["sub"] == check(sign(key=OTHER), keys).user_id
    assert CLAIMS["sub"] == check(elliptic, keys).user_id
    with pytest.raises(UnauthenticatedError, match="signature"):
        check(sign(key=STRANGER), keys)


def test_only_so_many_keys_of_one_id_are_tried():
    """Each key that is tried costs a signature, so a token is refused where they are too many."""
    many = [jwk(Ed25519PrivateKey.generate(), kid=KID) for _ in range(MAX_TRIED)]

    with pytest.raises(UnauthenticatedError, match="kid"):
        check(GOOD, key_set(jwk(ED, kid=KID), *many))


def test_the_same_keys_are_an_equal_key_set():
    """The order and the spelling of keys make no other key set; another key does."""
    keys = key_set(ONE, jwk(P256, kid="p256"))

    assert keys == key_set(jwk(P256, kid="p256"), {"use": "sig", **ONE}, ONE)
    assert keys != key_set(ONE)
    assert keys != key_set(jwk(OTHER, kid=KID, alg="EdDSA"), jwk(P256, kid="p256"))
    assert keys != key_set({**ONE, "kid": "new"}, jwk(P256, kid="p256"))
