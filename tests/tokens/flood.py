"""Send many tokens that do not verify: a caller in a process of its own, without a key."""

# In the process that measures others, the flood would delay what it measures.

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

DISTINCT = 10_000  # tokens that are made beforehand, and sent again and again


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(kid: str, user: str) -> str:
    """Return a token of a user, or of a new one, with a key id, or a new one."""
    header = {"alg": "EdDSA", "kid": kid or os.urandom(16).hex()}
    claims = {"sub": user or os.urandom(16).hex(), "iat": 0, "exp": 9_999_999_999, "x": "x" * 200}
    # A signature whose last byte is large would be refused without looking at it.
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), os.urandom(63) + b"\0")
    return ".".join(map(encode, parts))


async def over_nats(host: str, port: int, tokens: list[str], rate: int) -> Counter[str]:
    """Send so many requests a second until standard input ends; return the codes of the answers."""
    inbox = f"_INBOX.{os.urandom(11).hex()}"
    messages = []
    for number, each in enumerate(tokens):
        head = f"NATS/1.0\r\nAuthorization: Bearer {each}\r\n\r\n"
        size = len(head)
        messages.append(
            f"HPUB users.get {inbox}.{number} {size} {size + 1}\r\n{head}x\r\n".encode()
        )
    reader, writer = await asyncio.open_connection(host, port)
    connect = json.dumps({"verbose": False, "headers": True})
    writer.write(f"CONNECT {connect}\r\nSUB {inbox}.* 1\r\nPING\r\n".encode())
    answers: Counter[str] = Counter()

    async def count() -> None:
        async for line in reader:
            if line.startswith(b"Nats-Service-Error-Code: "):
                answers[line[25:].decode().strip()] += 1
            elif line.startswith(b"MSG "):
                answers["200"] += 1
            elif line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    counting = asyncio.create_task(count())
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    start, sent = time.monotonic(), 0
    while not ended.done():
        due = int((time.monotonic() - start) * rate)
        writer.write(b"".join(messages[each % len(messages)] for each in range(sent, due)))
        sent = due
        await writer.drain()
        await asyncio.sleep(0.005)
    while answers.total() < sent:
        await asyncio.sleep(0.01)
    counting.cancel()
    return answers


async def over_http(host: str, port: int, tokens: list[str], connections: int) -> Counter[str]:
    """Keep a request on each connection until standard input ends; return the answers' codes."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    answers: Counter[str] = Counter()

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while not ended.done():
            number = (number + connections) % len(tokens)
            head = f"GET /api/v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens[number]}"
            writer.write(f"{head}\r\n\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            answers[answer[9:12].decode()] += 1
            size = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(size))
        writer.close()

    await asyncio.gather(*map(ask, range(connections)))
    return answers


async def main(url: str, amount: str, kid: str, user: str) -> None:
    """Flood a URL; a line says when it begins, another one in the end how it was answered."""
    tokens = [token(kid, user) for _ in range(DISTINCT)]
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    print("flooding", flush=True)
    flood = over_nats if parts.scheme == "nats" else over_http
    print(json.dumps(await flood(parts.hostname, parts.port, tokens, int(amount))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
