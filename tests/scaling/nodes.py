"""nats-servers with the files of deploy/scaling, joined on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from responder.dev import nats
from responder.dev import process as child
from tests.markdown import ROOT
from tests.ports import at, free_port, listening

FILES = ROOT / "deploy" / "scaling"
PASSWORD = "pa55word-of-the-test"
LOGINS = ("WORKER", "BRIDGE", "SERVE", "ORDERS", "BILLING", "SHIPPING", "CLUSTER", "GATEWAY")
PASSWORDS = {f"NATS_{name}_PASSWORD": PASSWORD for name in LOGINS}
PATIENCE = 60.0  # seconds for servers to find each other


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
    monitor = free_port()
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
            await child.ready(process, partial(listening, port), log=log)
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
