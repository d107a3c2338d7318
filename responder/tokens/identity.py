"""A token becomes an Identity; keys and time are arguments."""

# Strategy: PyJWT and cryptography do the cryptography; what surrounds it is read here, strictly and once,
# because PyJWT takes several spellings for the same token (base64 with stray bits or characters, repeated
# claims), does not ask for `exp` and `sub`, and looks at the clock by itself. An algorithm belongs to a
# key, never to the token: the token may only choose among those that its key can be used with.
#
# Which tokens Better Auth issues, and how its versions have published their keys (without `alg` before 1.3,
# without `kid` at first in 1.2), is in its jwt plugin. RFC 7515, 7517, 7519 and 8725 say the rest.

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from jwt.types import JWKDict

from responder.errors import UnauthenticatedError
from responder.models import Identity

LEEWAY: Final = 30  # seconds that clocks may disagree
MAX_TOKEN: Final = 16 * 1024  # characters
MIN_RSA: Final = 2048  # bits (RFC 7518, 3.3)
LAST_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()

# What a key can be used with, by kty and crv.
_ALGORITHMS: Final[Mapping[tuple[object, object], tuple[str, ...]]] = {
    ("OKP", "Ed25519"): ("EdDSA",),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-521"): ("ES512",),
    ("RSA", None): ("RS256", "PS256"),
}
_ACCEPTED: Final = {each for names in _ALGORITHMS.values() for each in names}
# Headers that name a key or change what is signed. A token that has one is not Better Auth's.
_FORBIDDEN_HEADERS: Final = ("crit", "b64", "cty", "enc", "zip", "jku", "jwk", "x5c", "x5u")
_ORGANIZATION_CLAIMS: Final = ("activeOrganizationId", "organizationId", "orgId", "org_id")


class UnknownKeyError(UnauthenticatedError):
    """The key that signed a token is not among those known: it may be new."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: its id, and what verifies a signature, by algorithm."""

    id: str | None
    uses: Mapping[str, jwt.PyJWK]


class KeySet:
    """The public keys of an issuer.

    Args:
        document: a JSON Web Key Set (RFC 7517). Keys that sign nothing we accept are left out.

    Raises ValueError if it is no key set, or nothing is left of it.
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
        self.keys = [key for each in keys if (key := _key(each))]
        if not self.keys:
            raise ValueError("no key that can be used")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and other.document == self.document

    __hash__ = None  # type: ignore[assignment]

    def find(self, id: str | None, algorithm: str) -> jwt.PyJWK:  # noqa: A002
        """Return what verifies a signature; raises UnauthenticatedError."""
        named = [key for key in self.keys if key.id == id] if id is not None else self.keys
        unnamed = [key for key in self.keys if key.id is None]
        fitting = [key.uses[algorithm] for key in named or unnamed if algorithm in key.uses]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UnauthenticatedError("kid: it does not say which key is meant")
        if named:
            raise UnauthenticatedError("alg: not one of its key's")
        raise UnknownKeyError("kid: no such key")

    def has(self, id: object) -> bool:  # noqa: A002
        """Tell whether there is a key with an id."""
        return any(key.id == id for key in self.keys)


def _key(value: object) -> Key | None:
    if not isinstance(value, dict) or value.get("use", "sig") != "sig":
        return None
    kid, kty = value.get("kid"), value.get("kty")
    curve = None if kty == "RSA" else value.get("crv")
    names: Sequence[str] = ()
    if isinstance(kty, str) and isinstance(curve, str | None):
        names = _ALGORITHMS.get((kty, curve), ())
    if value.get("alg") is not None:
        names = [each for each in names if each == value["alg"]]
    if not isinstance(kid, str | None) or "d" in value:
        return None
    uses = {name: use for name in names if (use := _use(value, name))}
    return Key(kid, uses) if uses else None


def _use(value: JWKDict, algorithm: str) -> jwt.PyJWK | None:
    try:
        use = jwt.PyJWK(value, algorithm)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is no key
        return None
    small = value["kty"] == "RSA" and use.key.key_size < MIN_RSA
    return None if small else use


def verify(
    token: str,
    keys: KeySet,
    *,
    issuers: Collection[str],
    audiences: Collection[str],
    now: float,
    advice: str = "/api/auth/token",
) -> Identity:
    """Return who a token of Better Auth's jwt plugin speaks for.

    Args:
        token: a JWT in its compact form (RFC 7515).
        keys: of the issuer.
        issuers: that are accepted.
        audiences: of which the token must name one.
        now: the time, in seconds since 1970.
        advice: where one gets a token.

    Raises UnauthenticatedError, which says which check failed and shows nothing of the token, and
    UnknownKeyError if the token may be good but its key is not known.
    """
    parts = split(token, advice=advice)
    header = _object(parts[1], "header")
    signature = _decode(parts[3], "signature")
    kid, algorithm = _read_header(header)
    use = keys.find(kid, algorithm)
    if not _is_signed(use, parts, signature):
        if kid is not None and not keys.has(kid):
            raise UnknownKeyError("kid: no such key")
        raise UnauthenticatedError("the signature does not verify")
    return _identity(_object(parts[2], "claims"), issuers, audiences, now)


def split(token: str, *, advice: str) -> re.Match[str]:
    """Return the three parts of a token, as groups; raises UnauthenticatedError for what is none."""
    if len(token) > MAX_TOKEN:
        raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise UnauthenticatedError(f"not a JWT: get one from {advice}")
    return parts


def check_times(identity: Identity, now: float) -> None:
    """Raise UnauthenticatedError for a token that has expired since it was verified."""
    if now >= identity.expires_at.timestamp() + LEEWAY:
        raise UnauthenticatedError("exp: the token has expired")


_SEGMENT: Final = r"([A-Za-z0-9_-]+)"
_COMPACT: Final = re.compile(rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}")


def _decode(segment: str, name: str) -> bytes:
    """Decode base64url; several spellings of the same bytes would be several tokens."""
    padded = segment + "=" * (-len(segment) % 4)
    try:
        value = base64.b64decode(padded, b"-_", validate=True)
    except binascii.Error:
        value = b""
    if base64.urlsafe_b64encode(value).decode() != padded:
        raise UnauthenticatedError(f"{name}: not base64url")
    return value


def _object(segment: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(
            _decode(segment, name).decode(), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise UnauthenticatedError(f"{name}: not JSON with each key once") from None
    if not isinstance(value, dict):
        raise UnauthenticatedError(f"{name}: not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError
    return value


def _refuse(_: str) -> None:
    raise ValueError


def _read_header(header: Mapping[str, Any]) -> tuple[str | None, str]:
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise UnauthenticatedError(f"header: {name} is not accepted")
    if header.get("typ", "JWT") != "JWT":
        # Better Auth signs other things with the same keys: at+jwt, its session cache.
        raise UnauthenticatedError("typ: not JWT")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _ACCEPTED:
        raise UnauthenticatedError("alg: not one that is accepted")
    if not isinstance(kid, str | None):
        raise UnauthenticatedError("kid: not a string")
    return kid, algorithm


def _is_signed(use: jwt.PyJWK, parts: re.Match[str], signature: bytes) -> bool:
    signed = f"{parts[1]}.{parts[2]}".encode()
    try:
        return bool(use.Algorithm.verify(signed, use.key, signature))
    except Exception:  # noqa: BLE001 - whatever it is, that is no signature
        return False


def _identity(
    claims: Mapping[str, Any], issuers: Collection[str], audiences: Collection[str], now: float
) -> Identity:
    issuer, audience = claims.get("iss"), claims.get("aud")
    if not isinstance(issuer, str) or issuer not in issuers:
        raise UnauthenticatedError("iss: not the issuer that is accepted")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(map(_text, named)):
        raise UnauthenticatedError("aud: missing, or not text")
    if not set(named).intersection(audiences):
        raise UnauthenticatedError("aud: not an audience that is accepted")
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None:
        raise UnauthenticatedError("exp: missing")
    for name, time in (("iat", issued), ("nbf", _time(claims, "nbf"))):
        if time is not None and time > now + LEEWAY:
            raise UnauthenticatedError(f"{name}: in the future")
    subject = _text(claims.get("sub"))
    if not subject:
        raise UnauthenticatedError("sub: missing, or not text")
    identity = Identity(
        user_id=subject,
        email=_text(claims.get("email")),
        name=_text(claims.get("name")),
        role=_text(claims.get("role")),
        organization_id=next(_organizations(claims), None),
        issuer=issuer,
        audience=named,
        issued_at=None if issued is None else datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(expires, UTC),
    )
    check_times(identity, now)
    return identity


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnauthenticatedError(f"{name}: not a number")
    if not 0 <= value <= LAST_TIME:
        raise UnauthenticatedError(f"{name}: not a time")
    return float(value)


def _text(value: object) -> str | None:
    """Return text that is text: no empty one, and no lone surrogate."""
    if not isinstance(value, str) or not value:
        return None
    return None if _SURROGATE.search(value) else value


_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def _organizations(claims: Mapping[str, Any]) -> Iterator[str]:
    """The organization of the session, under the names that `definePayload` is used to give it."""
    nested = claims.get("o")
    values = [claims.get(name) for name in _ORGANIZATION_CLAIMS]
    values.append(nested.get("id") if isinstance(nested, dict) else None)
    for value in values:
        if text := _text(value):
            yield text
