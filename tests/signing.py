"""Keys as Better Auth publishes them, and signed tokens with any header and any claims."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from responder.models import Identity
from responder.tokens.identity import verify
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet

NOW = 1_800_000_000
ISSUER = "https://app.example.com"
KID = "n1XNq0r5tZbJt2b6"
ED, OTHER = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
P256, P521 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA, SMALL_RSA = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 1024)
CLAIMS: dict[str, Any] = {
    "sub": "KbO8WbOTItGbdi0KY5YfJyfimmurNJra",
    "iss": ISSUER,
    "aud": ISSUER,
    "iat": NOW - 60,
    "exp": NOW + 840,
    "email": "zoe@example.com",
    "name": "Zoë",
    "role": "user",
}


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """Return a public key as Better Auth publishes it."""
    algorithm = {
        ed25519.Ed25519PrivateKey: "EdDSA",
        ec.EllipticCurvePrivateKey: "ES256",
        rsa.RSAPrivateKey: "RS256",
    }
    name = next(name for kind, name in algorithm.items() if isinstance(key, kind))
    public = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {name: value for name, value in {**public, **members}.items() if value is not None}


def key_set(*keys: dict[str, Any]) -> KeySet:
    return KeySet(json.dumps({"keys": keys}).encode())


# By algorithm: a private key, and how its public key is published.
ALL = {
    "EdDSA": (ED, jwk(ED, kid=KID, alg="EdDSA")),
    "ES256": (P256, jwk(P256, kid="p256", alg="ES256")),
    "ES512": (P521, jwk(P521, kid="p521", alg="ES512")),
    "RS256": (RSA, jwk(RSA, kid="rsa", alg="RS256")),
    "PS256": (RSA, jwk(RSA, kid="pss", alg="PS256")),
}
KEYS = key_set(*(published for _, published in ALL.values()))


def encode(value: object) -> str:
    """Return a value as a segment of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(
    claims: object = CLAIMS,
    header: object = None,
    *,
    key: Any = ED,
    algorithm: str = "EdDSA",
) -> str:
    """Return a token with any header and any claims, and a good signature."""
    header = {"alg": algorithm, "kid": KID} if header is None else header
    signed = f"{encode(header)}.{encode(claims)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    return f"{signed}.{encode(signature)}"


def claims(*without: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **more}.items() if name not in without}


def header(**more: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": KID, **more}


GOOD = sign()


def check(token: str, keys: KeySet = KEYS, **changed: Any) -> Identity:
    """Verify a token at NOW, with ISSUER as issuer and audience."""
    return verify(token, keys, trusted(**changed), now=NOW)


def trusted(**changed: Any) -> TrustedIssuer:
    """Return ISSUER, with keys and without a secret."""
    given: dict[str, Any] = {
        "key_set_url": "",
        "issuers": [ISSUER],
        "audiences": [ISSUER],
        "token_url": "/api/auth/token",
    }
    return TrustedIssuer(**(given | changed))


def sign_by_secret(
    claims: object, secret: str | bytes, header: object = None, *, digest: str = "sha256"
) -> str:
    """Return a token that is signed with a shared secret."""
    key = secret.encode() if isinstance(secret, str) else secret
    signed = f"{encode({'alg': 'HS256'} if header is None else header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), digest))}"
