"""A new key, and tokens signed with it as Better Auth's jwt plugin issues them."""

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

ISSUER: Final = "https://people.example"
LIFETIME: Final = timedelta(days=30)


class Mint:
    """Signs tokens with a new key."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._id = secrets.token_urlsafe(24)

    def publish(self, file: Path) -> dict[str, str]:
        """Write the key set to a file, as Better Auth publishes it.

        Returns the settings with which responder accepts tokens of this key.
        """
        public = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        file.write_text(json.dumps({"keys": [{**public, "alg": "EdDSA", "kid": self._id}]}))
        return {
            "RESPONDER_JWKS_URL": str(file),
            "RESPONDER_JWT_ISSUER": ISSUER,
            "RESPONDER_JWT_AUDIENCE": ISSUER,
        }

    def token(self, user_id: str, *, audience: str | Sequence[str] = ISSUER, **claims: Any) -> str:
        """Return a token for a user; `claims` add to what every token has, or replace it."""
        now = datetime.now(UTC)
        every = {
            "sub": user_id,
            "iss": ISSUER,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
        }
        # By itself PyJWT adds a `typ`, which Better Auth's tokens do not have.
        headers = {"kid": self._id, "typ": None}
        return jwt.encode({**every, **claims}, self._key, algorithm="EdDSA", headers=headers)
