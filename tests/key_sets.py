"""Key sets as an issuer publishes them, and the server that they are downloaded from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from responder.dev.tokens import Mint


def published(*mints: Mint, path: Path) -> bytes:
    """Return the key set of some keys, as Better Auth publishes it."""
    keys = []
    for mint in mints:
        mint.publish(path)
        keys += json.loads(path.read_bytes())["keys"]
    return json.dumps({"keys": keys}).encode()


@dataclass
class Endpoint:
    """Where a key set is downloaded from, and how it answers."""

    url: str = ""
    body: bytes = b""
    status: str = "200 OK"
    headers: str = ""
    slow: asyncio.Event | None = None  # where there is one, answers wait until it is set
    asked: int = 0
    request: str = ""  # the head of the last one

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked += 1
            if self.slow:
                await self.slow.wait()
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\n{self.headers}"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + self.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(endpoint: Endpoint, port: int = 0) -> AsyncIterator[Endpoint]:
    server = await asyncio.start_server(endpoint.answer, "127.0.0.1", port)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield endpoint
    finally:
        if endpoint.slow:
            endpoint.slow.set()
        server.close()
