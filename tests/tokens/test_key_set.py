"""The keys of a key set verify the tokens that they have signed, and no others."""

from __future__ import annotations

import json

import pytest

from responder.errors import UnauthenticatedError
from responder.tokens.key_set import KeySet, UnknownKeyError
from tests.signing import (
    ALL,
    CLAIMS,
    ED,
    GOOD,
    KID,
    OTHER,
    P384,
    SMALL_RSA,
    check,
    header,
    jwk,
    key_set,
    sign,
)


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
