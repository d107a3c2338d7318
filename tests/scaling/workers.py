"""Workers and bridges beside the nodes, and what each of them has answered."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats as nats_py
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from responder.app import Running, serving
from responder.settings import Settings
from tests.scaling.nodes import PASSWORD, PATIENCE, Node, at, ports
from tests.test_supervisor import until_ready

ANSWERED = re.compile(
    r'^responder_request_duration_seconds_count\{endpoint="get"\} (\d+)', re.MULTILINE
)
Start = Callable[..., Awaitable["Worker"]]


@dataclass(frozen=True)
class Worker:
    """A process of responder, within that of the tests."""

    running: Running
    stack: AsyncExitStack

    async def answered(self) -> int:
        """How many requests for a user it has answered."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"{self.running.admin_url}/metrics")).text
        found = ANSWERED.search(text)
        assert found
        return int(float(found[1]))

    async def stop(self) -> None:
        """End it, as SIGTERM does."""
        await self.stack.aclose()


@asynccontextmanager
async def worker(
    *nodes: Node, user: str = "worker", alone: bool = False, **settings: str
) -> AsyncIterator[Worker]:
    """Run a worker; or a bridge `alone`, which has no worker."""
    variables = {
        "NATS_URL": ",".join(each.url for each in nodes),
        "NATS_USER": user,
        "NATS_PASSWORD": PASSWORD,
        "RESPONDER_HTTP_AUTH": "disabled",
        "RESPONDER_HTTP_LISTEN": "off",
        "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
        "RESPONDER_TIMEOUT": "10",
        **settings,
    }
    async with AsyncExitStack() as stack:
        read = Settings.read({name: each for name, each in variables.items() if each})
        running = await stack.enter_async_context(serving(read, worker=not alone))
        await running.wait_ready()
        yield Worker(running, stack)


@asynccontextmanager
async def caller(node: Node, user: str = "orders") -> AsyncIterator[Client]:
    """A connection of a program that asks, with an inbox of its own."""
    login = {"user": user, "password": PASSWORD} if user else {}
    async with await nats_py.connect(
        node.url,
        **login,
        inbox_prefix=f"_INBOX.{user or 'anyone'}".encode(),
        reconnect_time_wait=0.02,
        max_reconnect_attempts=-1,
    ) as client:
        yield client


@asynccontextmanager
async def program(
    *arguments: str, directory: Path, source: Path | None = None, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `responder serve --no-http`, once it is ready; yields the process and its /ready.

    Args:
        arguments: more of them.
        directory: where it runs: it reads `.env` there.
        source: where responder is, if not here.
        variables: of its environment.
    """
    (port,) = ports(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "responder", "serve", "--no-http", *arguments),
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "RESPONDER_ADMIN_LISTEN": at(port),
            "RESPONDER_LOG_LEVEL": "error",
            "RESPONDER_TIMEOUT": "10",
            **({"PYTHONPATH": str(source)} if source else {}),
            **variables,
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until_ready(process, f"http://{at(port)}/ready")
        yield process, f"http://{at(port)}/ready"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_answered(client: Client, user_id: str) -> None:
    """Wait until NATS has a worker for this program: nodes learn of each other's after a moment."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(NoRespondersError, NatsTimeoutError):
                reply = await client.request("users.get", user_id.encode(), timeout=1)
                if not reply.headers:
                    return
            await asyncio.sleep(0.01)
