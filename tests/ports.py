"""Ports of loopback that a server is told of before it starts."""

from __future__ import annotations

import random
import socket


def free_ports(count: int) -> list[int]:
    """Ports that are free, and that no connection takes by chance.

    The system gives outgoing connections ports from 32,768 on.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 30_000)
        if port not in found and not listening(port):
            found.append(port)
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def listening(port: int) -> bool | None:
    """Tell whether a server listens; None, and not False, is what `process.ready` goes on at."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0 or None


def at(port: int) -> str:
    """An address on loopback."""
    return f"127.0.0.1:{port}"
