"""A shared secret: what an application signs tokens of its own with, by HS256."""

# Strategy: a secret verifies HS256 and nothing else, as a key verifies its own algorithms and never
# HS256. A program that can verify with a secret can sign with it, so that it is shown nowhere: what
# holds it has no fields that a `repr` would print.
#
# What can be read from one token can be guessed against it without asking anyone. So a secret has
# as many bytes as the hash (RFC 7518, 3.2), and the public key of another way to sign is none.

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import jwt
from jwt.algorithms import HMACAlgorithm

HS256: Final = "HS256"
MIN_SECRET: Final = 32  # bytes
MAX_SECRETS: Final = 4  # each is tried, for a token that none has signed


class SharedSecrets:
    """One secret, or several while an application changes to another.

    Args:
        secrets: as the application has them; their bytes are those of UTF-8.

    Raises ValueError, which shows nothing of them.
    """

    __slots__ = ("_secrets", "has_blank_ends")

    def __init__(self, secrets: Sequence[str]) -> None:
        if not 1 <= len(secrets) <= MAX_SECRETS:
            raise ValueError(f"expected 1 to {MAX_SECRETS} secrets")
        self.has_blank_ends: bool = any(each != each.strip() for each in secrets)
        self._secrets = [_prepared(each) for each in secrets]

    def __len__(self) -> int:
        return len(self._secrets)

    def have_signed(self, signed: bytes, signature: bytes) -> bool:
        """Tell whether one of them has signed this."""
        return any(_HMAC.verify(signed, each, signature) for each in self._secrets)


_HMAC: Final = HMACAlgorithm(HMACAlgorithm.SHA256)


def parse(text: str) -> SharedSecrets:
    """Read secrets with commas between them; raises ValueError, which shows nothing of them."""
    return SharedSecrets(text.split(","))


def _prepared(secret: str) -> bytes:
    try:
        value = secret.encode()
    except UnicodeEncodeError:
        raise ValueError("expected UTF-8") from None
    if len(value) < MIN_SECRET:
        raise ValueError(
            f"each secret needs at least {MIN_SECRET} bytes, because a shorter one can be guessed "
            "from one token"
        )
    try:
        return _HMAC.prepare_key(value)
    except jwt.InvalidKeyError:
        raise ValueError("a key or a certificate is no secret") from None
