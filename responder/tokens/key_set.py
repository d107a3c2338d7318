"""An issuer's key set (RFC 7517): the public keys that verify its tokens."""

# Strategy: an algorithm belongs to a key, never to a token. The header of a token may only choose
# among the algorithms of its key. Otherwise a caller could take a published RSA key, sign a token
# with HMAC under the bytes of that key, write "HS256" into the header, and be believed.
#
# Better Auth's versions have published their keys differently: before 1.3 without `alg`, and at
# first in 1.2 without `kid`. Both are accepted.
#
# A key that is listed twice is one key. Two different keys under one id are each tried, because the
# issuer has published both, and RFC 7517, 4.5, does not forbid it: an issuer that replaces a key
# under its id may publish the old one beside it for a while. A token without an id, where several
# keys could have signed it, names none, and is refused.

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.types import JWKDict

from responder.errors import UnauthenticatedError

MIN_RSA: Final = 2048  # bits (RFC 7518, 3.3)
MAX_TRIED: Final = 4  # keys of one id; each that is tried costs a signature

# The algorithms that a key can be used with, by its kty and crv.
_ALGORITHMS: Final[Mapping[tuple[object, object], tuple[str, ...]]] = {
    ("OKP", "Ed25519"): ("EdDSA",),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-521"): ("ES512",),
    ("RSA", None): ("RS256", "PS256"),
}
ACCEPTED: Final = {algorithm for names in _ALGORITHMS.values() for algorithm in names}


class UnknownKeyError(UnauthenticatedError):
    """The key that signed a token is not in the key set; it may be in a newer one."""


class StaleKeyError(UnauthenticatedError):
    """No key of a token's id has signed it; in a newer key set the id may have another key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: its id, and for each algorithm that it is used with, PyJWT's key."""

    kid: str | None
    material: bytes  # the key as DER, however it was spelled
    by_algorithm: Mapping[str, jwt.PyJWK]


class KeySet:
    """The public keys of an issuer.

    Args:
        document: a JSON Web Key Set (RFC 7517). Keys that verify nothing we accept are left out.

    Raises ValueError if the document is no key set, or has no key that can be used.
    """

    def __init__(self, document: bytes) -> None:
        try:
            value = json.loads(document)
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
        keys = value.get("keys") if isinstance(value, dict) else None
        if not isinstance(keys, list):
            raise ValueError("not a key set")  # noqa: TRY004 - bad input, not a wrong argument
        self.document = document
        self.keys: list[Key] = [key for each in keys if (key := _parse_key(each))]
        if not self.keys:
            raise ValueError("no key that can be used")
        self._by_id: dict[str | None, list[Key]] = {}
        for key in self.keys:
            self._by_id.setdefault(key.kid, []).append(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and other._content() == self._content()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # as Python has it for what has only __eq__

    def verifying_keys(self, kid: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the keys, each once, that may verify a token with this `kid` and `alg`.

        Where no key has that id, the keys without an id are looked at.

        Raises UnknownKeyError if no key can have signed the token, StaleKeyError if the key of that
        id is not used with that algorithm, and UnauthenticatedError if too many keys can have.
        """
        named = self.keys if kid is None else self._by_id.get(kid, [])
        fitting = {
            key.material: key.by_algorithm[algorithm]
            for key in named or self._by_id.get(None, [])
            if algorithm in key.by_algorithm
        }
        if not fitting and not named:
            raise UnknownKeyError("kid: no such key")
        if not fitting:
            raise StaleKeyError("alg: not one of its key's")
        if len(fitting) > (MAX_TRIED if kid is not None and named else 1):
            raise UnauthenticatedError("kid: it does not say which key is meant")
        return list(fitting.values())

    def has_id(self, kid: str) -> bool:
        """Tell whether a key has this id."""
        return kid in self._by_id

    def _content(self) -> set[tuple[str | None, bytes, frozenset[str]]]:
        return {(key.kid, key.material, frozenset(key.by_algorithm)) for key in self.keys}


def _parse_key(value: object) -> Key | None:
    """Return the key of a JSON Web Key, or None if it verifies nothing we accept."""
    # A member `d` is a private key, which an issuer has published by mistake.
    if not isinstance(value, dict) or not _is_for_verifying(value) or "d" in value:
        return None
    kid, kty = value.get("kid"), value.get("kty")
    curve = None if kty == "RSA" else value.get("crv")
    names: Sequence[str] = ()
    if isinstance(kty, str) and isinstance(curve, str | None):
        names = _ALGORITHMS.get((kty, curve), ())
    if value.get("alg") is not None:
        names = [each for each in names if each == value["alg"]]
    if not isinstance(kid, str | None):
        return None
    by_algorithm = {name: key for name in names if (key := _parse_verifying_key(value, name))}
    if not by_algorithm:
        return None
    public = next(iter(by_algorithm.values())).key
    material = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kid, material, by_algorithm)


def _is_for_verifying(value: JWKDict) -> bool:
    """Tell whether a key's `use` and `key_ops` let it verify signatures (RFC 7517, 4.2 and 4.3)."""
    if value.get("use") not in (None, "sig"):
        return False
    operations = value.get("key_ops")
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _parse_verifying_key(value: JWKDict, algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(value, algorithm)
    except Exception:  # noqa: BLE001 - whatever is wrong with a key, it cannot be used
        return None
    too_small = value["kty"] == "RSA" and key.key.key_size < MIN_RSA
    return None if too_small else key
