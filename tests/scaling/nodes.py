"""nats-servers with the files of deploy/scaling, joined on loopback."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from responder.dev import nats
from responder.dev import process as child
from tests.markdown import ROOT

FILES = ROOT / "deploy" / "scaling"
PASSWORD = "pa55word-of-the-test"
LOGINS = ("WORKER", "BRIDGE", "SERVE", "ORDERS", "BILLING", "SHIPPING", "CLUSTER", "GATEWAY")
PASSWORDS = {f"NATS_{name}_PASSWORD": PASSWORD for name in LOGINS}
PATIENCE = 30.0  # seconds for servers to find each other


def ports(count: int) -> list[int]:
    """Ports that are free, and that no connection takes by chance.

    Nodes are told of each other's before they start. The system gives outgoing connections ports
    from 32,768 on.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def at(port: int) -> str:
    """An address on loopback."""
    return f"127.0.0.1:{port}"


@dataclass(frozen=True)
class Node:
    """A nats-server that runs."""

    name: str
    url: str
    process: asyncio.subprocess.Process
    monitor: str

    async def see(self, page: str) -> Any:
        """Return what the server says of itself."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"{self.monitor}/{page}", timeout=10)).json()

    async def sees(self, page: str, is_so: Callable[[Any], bool]) -> None:
        """Wait until what it says of itself is so."""
        async with asyncio.timeout(PATIENCE):
            while not is_so(await self.see(page)):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def node(file: str, name: str, port: int, **variables: str) -> AsyncIterator[Node]:
    """Run a nats-server with a file of deploy/scaling, as it is, and its environment."""
    (monitor,) = ports(1)
    environment = {"NATS_NAME": name, "NATS_LISTEN": at(port), **PASSWORDS, **variables}
    with child.temporary_directory("node") as directory:
        log = directory / f"{name}.log"
        async with child.running(
            Path("/usr/bin/env"),
            *(f"{key}={value}" for key, value in environment.items()),
            *(str(nats._program()), "--config", str(FILES / file)),
            *("--addr", "127.0.0.1", "--http_port", str(monitor)),
            directory=directory,
            log=log,
        ) as process:

            def listening() -> bool | None:
                with socket.socket() as client:
                    return True if client.connect_ex(("127.0.0.1", port)) == 0 else None

            await child.ready(process, listening, log=log)
            yield Node(name, f"nats://{at(port)}", process, f"http://{at(monitor)}")


def addresses(user: str, places: list[int]) -> list[str]:
    """URLs with a login, for the variables of nats-server."""
    return [f"nats://{user}:{PASSWORD}@{at(port)}" for port in places]


def routes(places: list[int]) -> str:
    """The value of NATS_ROUTES."""
    return json.dumps(addresses("node", places))


def joined(count: int) -> Callable[[Any], bool]:
    """Tell of /routez whether a node has routes to so many others."""
    return lambda page: len({each["remote_name"] for each in page["routes"]}) == count
