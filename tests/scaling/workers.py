"""Workers and bridges beside the nodes, and what each of them has answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import httpx
import nats as nats_py
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from responder.app import Running, serving
from responder.settings import Settings
from tests import programs
from tests.scaling.nodes import PASSWORD, PATIENCE, Node

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


# Run `responder serve --no-http`, as a machine that does much else can.
program = partial(programs.running, *programs.SERVE, RESPONDER_TIMEOUT="10")


async def until_answered(client: Client, user_id: str) -> None:
    """Wait until NATS has a worker for this program: nodes learn of each other's after a moment."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(NoRespondersError, NatsTimeoutError):
                reply = await client.request("users.get", user_id.encode(), timeout=1)
                if not reply.headers:
                    return
            await asyncio.sleep(0.01)
