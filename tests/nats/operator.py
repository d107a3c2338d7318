"""Logins of a NATS server that knows its operator alone: what it has signed says who may what."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it has no types


@dataclass(frozen=True)
class Key:
    """A key pair of an operator, an account or a user."""

    prefix: int
    seed: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", nkeys.encode_seed(os.urandom(32), self.prefix))

    @property
    def public(self) -> str:
        """The public key, by which the others know it."""
        return nkeys.from_seed(bytearray(self.seed)).public_key.decode()

    def sign(self, subject: Key, claims: dict[str, Any], **times: float) -> str:
        """Return a JWT of version 2, as `nsc` writes it."""
        content: dict[str, Any] = {"iss": self.public, "sub": subject.public}
        content |= {"iat": int(time.time()), **times, "nats": claims | {"version": 2}}
        parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, content)
        text = ".".join(_base64(json.dumps(each).encode()) for each in parts)
        return f"{text}.{_base64(nkeys.from_seed(bytearray(self.seed)).sign(text.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


NO_LIMITS = dict.fromkeys(("subs", "data", "payload"), -1)
OF_ACCOUNT = dict.fromkeys(("imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}


class Operator:
    """An operator with one account."""

    def __init__(self) -> None:
        self._key = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Key(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> str:
        """The configuration of a server of this operator."""
        operator = self._key.sign(self._key, {"type": "operator"})
        limits = {"limits": NO_LIMITS | OF_ACCOUNT}
        account = self._key.sign(self._account, {"type": "account", **limits})
        return f"""
            operator: {operator}
            resolver: MEMORY
            resolver_preload: {{ {self._account.public}: {account} }}
        """

    def write_credentials(self, path: Path, *, seconds: float) -> None:
        """Write a file of credentials (NATS_CREDS), which expire after that time."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        expiry = int(time.time() + seconds)  # whole seconds, as NATS has them
        jwt = self._account.sign(user, {"type": "user", **NO_LIMITS}, exp=expiry)
        parts = {"NATS USER JWT": jwt, "USER NKEY SEED": user.seed.decode()}
        path.write_text(
            "\n".join(f"-----BEGIN {k}-----\n{v}\n------END {k}------\n" for k, v in parts.items())
        )
