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

from responder.dev.population import Person
from responder.models import as_javascript

ISSUER: Final = "https://people.example"
LIFETIME: Final = timedelta(days=30)


class Mint:
    """Signs tokens with a new key.

    Args:
        issuer: whom the tokens name as their issuer and audience.
    """

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self._key = Ed25519PrivateKey.generate()
        self._id = secrets.token_urlsafe(24)

    def key_set(self) -> bytes:
        """Return the key set, as Better Auth publishes it."""
        public = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**public, "alg": "EdDSA", "kid": self._id}]}).encode()

    def publish(self, file: Path) -> dict[str, str]:
        """Write the key set to a file.

        Returns the settings with which responder accepts tokens of this key.
        """
        file.write_bytes(self.key_set())
        return {
            "RESPONDER_JWKS_URL": str(file),
            "RESPONDER_JWT_ISSUER": self.issuer,
            "RESPONDER_JWT_AUDIENCE": self.issuer,
        }

    def token_of(self, person: Person) -> str:
        """Return a token with the claims of Better Auth's, which are the user's row by default."""
        created, until = as_javascript(person.created), person.ban_expires
        return self.token(
            person.id,
            id=person.id,
            name=person.name,
            email=person.email,
            emailVerified=person.email_verified,
            image=person.image,
            createdAt=created,
            updatedAt=created,
            role=person.role,
            banned=person.banned,
            banReason=person.ban_reason,
            banExpires=until and as_javascript(until),
            isAnonymous=person.is_anonymous,
        )

    def token(
        self, user_id: str, *, audience: str | Sequence[str] | None = None, **claims: Any
    ) -> str:
        """Return a token for a user; `claims` add to what every token has, or replace it."""
        now = datetime.now(UTC)
        every = {
            "sub": user_id,
            "iss": self.issuer,
            "aud": audience or self.issuer,
            "iat": int(now.timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
        }
        # By itself PyJWT adds a `typ`, which Better Auth's tokens do not have.
        headers = {"kid": self._id, "typ": None}
        return jwt.encode({**every, **claims}, self._key, algorithm="EdDSA", headers=headers)
