"""A token becomes an Identity; the keys and the time are arguments."""

# Strategy: PyJWT and cryptography verify the signature. What surrounds it is read here, strictly
# and once, because PyJWT takes several spellings for the same token (base64 with stray bits or
# characters, a claim that is there twice), does not ask for `exp` and `sub`, and looks at the clock
# by itself.
#
# A token is read in two steps. `parse_header` says which key should have signed it, and costs a few
# microseconds. `verify_parsed` checks the signature, which costs twenty times as much, and then
# reads the claims. Between the two a token may have to wait.
#
# Which tokens Better Auth issues is in its jwt plugin; RFC 7515, 7519 and 8725 say the rest. Tokens
# of a shared secret are the application's own: their user may be `userId`, and most have neither
# `iss` nor `aud`. Better Auth, the application and its plugins sign other things with the same
# secret, for example the link that verifies an email: {"email", "userId", "iat", "exp"}. What may
# be such a thing is refused.

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import jwt
import msgspec

from responder.errors import UnauthenticatedError
from responder.models import Identity
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import ACCEPTED, KeySet, StaleKeyError, UnknownKeyError
from responder.tokens.shared_secret import HS256

LEEWAY: Final = 30  # seconds that clocks may disagree
MAX_TOKEN: Final = 16 * 1024  # characters
LAST_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
MAX_SAFE_INTEGER: Final = 2**53 - 1  # JavaScript's Number.MAX_SAFE_INTEGER

# Headers that name a key or change what is signed. Better Auth writes none of them.
_FORBIDDEN_HEADERS: Final = ("crit", "b64", "cty", "enc", "zip", "jku", "jwk", "x5c", "x5u")
_ORGANIZATION_CLAIMS: Final = ("activeOrganizationId", "organizationId", "orgId", "org_id")
_ROLE_CLAIMS: Final = ("orgRole", "org_role", "activeOrganizationRole")
# In what is signed with a shared secret for another end than to speak for a user: id tokens, links,
# and the cookie in which Better Auth caches a session.
_OTHER_ENDS: Final = ("nonce", "at_hash", "purpose", "session", "updateTo", "requestType")
HS256_REFUSED: Final = "alg: HS256 is for a shared secret, and RESPONDER_JWT_SECRET is not set"
KEYS_REFUSED: Final = (
    "alg: only HS256 is accepted, because no key set is known: BETTER_AUTH_URL or "
    "RESPONDER_JWKS_URL says where one is"
)
_SEGMENT: Final = r"([A-Za-z0-9_-]+)"
_COMPACT: Final = re.compile(rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


_FIELDS: Final = set(Identity.model_fields)


class _Subject(msgspec.Struct):
    sub: str = ""
    user_id: str = msgspec.field(default="", name="userId")


_decode_subject: Final = msgspec.json.Decoder(_Subject).decode


class Header(NamedTuple):
    """What the header of a token says of its key."""

    kid: str | None
    algorithm: str


class Unverified(NamedTuple):
    """A token whose header is read, and whose signature is still to be checked."""

    header: Header
    parts: re.Match[str]  # as `split_compact` returns it

    def claimed_subject(self) -> str:
        """Return the user that a token names, which may be forged; "" where none can be read."""
        segment = self.parts[2]
        try:
            claims = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
            subject = _decode_subject(claims)
        except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        return subject.sub or subject.user_id


def verify(token: str, keys: KeySet | None, issuer: TrustedIssuer, *, now: float) -> Identity:
    """Return the identity of the user for whom a token speaks.

    Args:
        token: a JWT in compact serialization (RFC 7515).
        keys: the key set of the issuer, if it is known.
        issuer: whose tokens are accepted.
        now: the time, in seconds since 1970.

    Raises UnauthenticatedError, which says which check failed and shows nothing of the token. It is
    an UnknownKeyError or a StaleKeyError if the token may be good under a newer key set.
    """
    parts = split_compact(token, token_url=issuer.token_url)
    return verify_parsed(Unverified(parse_header(parts[1], issuer), parts), keys, issuer, now=now)


def verify_parsed(
    token: Unverified, keys: KeySet | None, issuer: TrustedIssuer, *, now: float
) -> Identity:
    """Return the identity of the user for whom a token speaks, as `verify` does."""
    signature = _decode_segment(token.parts[3], "signature")
    by_secret = token.header.algorithm == HS256
    if by_secret:
        signed = _signed(token.parts)
        if issuer.secrets is None or not issuer.secrets.have_signed(signed, signature):
            raise UnauthenticatedError("the signature does not verify with RESPONDER_JWT_SECRET")
    else:
        _check_key(token, keys, signature)
    claims = _decode_object(token.parts[2], "claims")
    return _parse_claims(claims, issuer, now, by_secret=by_secret)


def _check_key(token: Unverified, keys: KeySet | None, signature: bytes) -> None:
    """Raise UnauthenticatedError if no key of a key set has signed a token."""
    kid, algorithm = token.header
    if keys is None:
        raise UnknownKeyError("no keys to verify a token with")
    if not _is_signed(token.parts, signature, keys.verifying_keys(kid, algorithm)):
        if kid is not None and not keys.has_id(kid):
            # A key without an id was tried; a newer key may have the id that the token names.
            raise UnknownKeyError("kid: no such key")
        raise StaleKeyError("the signature does not verify")


def split_compact(token: str, *, token_url: str) -> re.Match[str]:
    """Return header, claims and signature of a token, still encoded, as groups 1, 2 and 3.

    Raises UnauthenticatedError for text that cannot be a token; `token_url` is in its message.
    """
    if len(token) > MAX_TOKEN:
        raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise UnauthenticatedError(f"not a JWT: get one from {token_url}")
    return parts


def check_expiry(identity: Identity, now: float) -> None:
    """Raise UnauthenticatedError if the token of an identity has expired.

    `now` is in seconds since 1970.
    """
    if now >= identity.expires_at.timestamp() + LEEWAY:
        raise UnauthenticatedError("exp: the token has expired")


def _decode_segment(segment: str, name: str) -> bytes:
    """Decode base64url, strictly.

    A lenient decoder reads QQ and QR as the same byte, and so would take two texts for one token.
    """
    padded = segment + "=" * (-len(segment) % 4)
    try:
        value = base64.b64decode(padded, b"-_", validate=True)
    except binascii.Error:
        value = b""
    if base64.urlsafe_b64encode(value).decode() != padded:
        raise UnauthenticatedError(f"{name}: not base64url")
    return value


def _decode_object(segment: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(
            _decode_segment(segment, name).decode(),
            object_pairs_hook=_refuse_repeated_keys,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise UnauthenticatedError(f"{name}: not JSON with each key once") from None
    if not isinstance(value, dict):
        raise UnauthenticatedError(f"{name}: not a JSON object")
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError
    return value


def _refuse_constant(_: str) -> None:
    # Python reads NaN and Infinity, which are no JSON.
    raise ValueError


def parse_header(segment: str, issuer: TrustedIssuer) -> Header:
    """Read the header of a token, still encoded; raises UnauthenticatedError if it is refused."""
    header = _decode_object(segment, "header")
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise UnauthenticatedError(f"header: {name} is not accepted")
    if header.get("typ", "JWT") != "JWT":
        # Better Auth signs other things with the same keys: access tokens (at+jwt), and the cookie
        # in which it caches a session.
        raise UnauthenticatedError("typ: not JWT")
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm == HS256:
        if issuer.secrets is None:
            raise UnauthenticatedError(HS256_REFUSED)
        return Header(None, HS256)  # its `kid` means nothing
    if not isinstance(algorithm, str) or algorithm not in ACCEPTED:
        raise UnauthenticatedError("alg: not one that is accepted")
    if issuer.key_set_url is None:
        raise UnauthenticatedError(KEYS_REFUSED)
    if not isinstance(kid, str | None):
        raise UnauthenticatedError("kid: not a string")
    return Header(kid, algorithm)


def _signed(parts: re.Match[str]) -> bytes:
    return f"{parts[1]}.{parts[2]}".encode()


def _is_signed(parts: re.Match[str], signature: bytes, keys: Sequence[jwt.PyJWK]) -> bool:
    signed = _signed(parts)
    return any(_is_signed_with(key, signed, signature) for key in keys)


def _is_signed_with(key: jwt.PyJWK, signed: bytes, signature: bytes) -> bool:
    try:
        return bool(key.Algorithm.verify(signed, key.key, signature))
    except Exception:  # noqa: BLE001 - what makes the library fail is no good signature
        return False


def _parse_claims(
    claims: Mapping[str, Any], issuer: TrustedIssuer, now: float, *, by_secret: bool
) -> Identity:
    named = None
    if "iss" in claims or not by_secret or issuer.issuer_is_required:
        named = _issuer(claims, issuer)
    audience: list[str] = []
    if "aud" in claims or not by_secret or issuer.audience_is_required:
        audience = _audience(claims, issuer)
    expires, issued = _time_claim(claims, "exp"), _time_claim(claims, "iat")
    if expires is None:
        raise UnauthenticatedError("exp: missing")
    if issued is None and by_secret:
        raise UnauthenticatedError("iat: missing")
    for name, time in (("iat", issued), ("nbf", _time_claim(claims, "nbf"))):
        if time is not None and time > now + LEEWAY:
            raise UnauthenticatedError(f"{name}: in the future")
    subject = _caller(claims) if by_secret else _subject(claims)
    # Not validated again, and each with the same set of fields: a set of its own would be half of
    # the memory of an identity that is remembered.
    identity = Identity.model_construct(
        _FIELDS,
        user_id=subject,
        email=_text_or_none(claims.get("email")),
        name=_text_or_none(claims.get("name")),
        role=_text_or_none(claims.get("role")),
        organization_id=next(_organizations(claims), None),
        org_role=next(_roles(claims), None),
        issuer=named,
        audience=audience,
        issued_at=None if issued is None else datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(expires, UTC),
    )
    check_expiry(identity, now)
    return identity


def _issuer(claims: Mapping[str, Any], issuer: TrustedIssuer) -> str:
    value = claims.get("iss")
    if not isinstance(value, str) or value not in issuer.issuers:
        raise UnauthenticatedError(
            "iss: not the issuer that is accepted (RESPONDER_JWT_ISSUER, else BETTER_AUTH_URL)"
        )
    return value


def _audience(claims: Mapping[str, Any], issuer: TrustedIssuer) -> list[str]:
    value = claims.get("aud")
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not all(map(_text_or_none, named)):
        raise UnauthenticatedError("aud: missing, or not text (RESPONDER_JWT_AUDIENCE)")
    if not set(named).intersection(issuer.audiences):
        raise UnauthenticatedError(
            "aud: not an audience that is accepted (RESPONDER_JWT_AUDIENCE, else BETTER_AUTH_URL)"
        )
    return named


def _subject(claims: Mapping[str, Any]) -> str:
    subject = _text_or_none(claims.get("sub"))
    if not subject:
        raise UnauthenticatedError("sub: missing, or not text")
    return subject


def _caller(claims: Mapping[str, Any]) -> str:
    """Return the user for whom a token of a shared secret speaks; raises UnauthenticatedError."""
    for name in _OTHER_ENDS:
        if name in claims:
            raise UnauthenticatedError(f"{name}: no claim of a token that speaks for a user")
    if claims.get("type", "access") != "access":
        raise UnauthenticatedError("type: not access")
    if "sub" in claims:
        subject = _subject(claims)
        if claims.get("userId", subject) != subject:
            raise UnauthenticatedError("userId: not the same as sub")
        return subject
    user = _text_or_none(claims.get("userId"))
    if not user:
        raise UnauthenticatedError("sub, userId: missing, or not text")
    if "role" not in claims:
        raise UnauthenticatedError("role: missing, which a token with userId needs")
    return user


def _time_claim(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnauthenticatedError(f"{name}: not a number")
    if not 0 <= value <= LAST_TIME:
        raise UnauthenticatedError(f"{name}: not a time")
    return float(value)


def _text_or_none(value: object) -> str | None:
    """Return text, or None for an empty text, a lone surrogate in it, or another type."""
    if not isinstance(value, str) or not value:
        return None
    return None if _SURROGATE.search(value) else value


def _organizations(claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield the active organization, under each name that applications give it in a token.

    Better Auth's jwt plugin writes it only where the application's `definePayload` adds it. Where
    ids are serial numbers, the application may write it as a number.
    """
    nested = claims.get("o")
    values = [claims.get(name) for name in _ORGANIZATION_CLAIMS]
    values.append(nested.get("id") if isinstance(nested, dict) else None)
    for value in values:
        if text := _text_or_none(value) or _integer_or_none(value):
            yield text


def _roles(claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield the role in the active organization, under each name that it has in a token."""
    nested = claims.get("o")
    values = [claims.get(name) for name in _ROLE_CLAIMS]
    values.append(nested.get("rol") if isinstance(nested, dict) else None)
    yield from filter(None, map(_text_or_none, values))


def _integer_or_none(value: object) -> str | None:
    """Return an integer as text, or None for anything else.

    7.0 is the integer 7, as it is in JavaScript. An integer beyond what JavaScript can hold exactly
    is None: its signer may have rounded it, and it would name another organization.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return str(value) if abs(value) <= MAX_SAFE_INTEGER else None
