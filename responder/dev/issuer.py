"""Where the demo tokens come from: a listener that serves their key set, and nothing else."""

# It stands where a Better Auth application is otherwise, so that what is given the application's
# address, as `TokenVerifier` is, can be tried.

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import socket
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from responder.dev.tokens import Mint
from responder.http.listener import listening, url_of
from responder.http.response import Response, problem, raw
from responder.tokens.issuer import key_set_url


@asynccontextmanager
async def running(at: socket) -> AsyncIterator[Mint]:
    """Serve the key set of a new mint on a socket; yields the mint, whose issuer is its URL."""
    mint = Mint(url_of(at))
    place = urlsplit(key_set_url(mint.issuer)).path.encode()
    keys = Response(200, raw({"content-type": "application/json"}), mint.key_set())

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        await (keys if scope["raw_path"] == place else _NOTHING).send(send)

    async with listening(answer, at, "", drain_timeout=0.1):
        yield mint


_NOTHING: Final = problem(404, "not_found", "the demo has the key set of Better Auth alone")
