"""Workers of a queue group on three nodes, of which each is killed: what callers notice.

`make scaling` has a table of what was counted. RESPONDER_TEST_SCALING=5 is five times as much of
what is repeated.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic

import psutil
import pytest

from tests.faults.load import LOST, NO_WORKER, VALUE, Load, paced
from tests.ports import at, free_ports
from tests.programs import until_ready
from tests.scaling.nodes import PASSWORD, Node, joined, node, routes
from tests.scaling.workers import caller, program, until_answered

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

NODES = ("n1", "n2", "n3")
ROUNDS = int(os.environ.get("RESPONDER_TEST_SCALING", "1"))
RATE = 150  # requests a second of each caller
CALM = 0.5  # seconds under load in which nothing fails
PATIENCE = 60  # seconds


@dataclass
class Cluster:
    """Three nodes, beside each a service of two workers, and a caller on each."""

    clients: list[int]  # ports
    clusters: list[int]
    nodes: dict[str, tuple[Node, AsyncExitStack]] = field(default_factory=dict)
    services: list[tuple[asyncio.subprocess.Process, str]] = field(default_factory=list)

    async def begin(self, name: str) -> None:
        """Start a node, where it was before if it was there."""
        number, stack = NODES.index(name), AsyncExitStack()
        context = node(
            "cluster.conf",
            name,
            self.clients[number],
            NATS_CLUSTER_LISTEN=at(self.clusters[number]),
            NATS_ROUTES=routes(self.clusters),
        )
        self.nodes[name] = await stack.enter_async_context(context), stack

    async def kill(self, name: str) -> None:
        """End a node without a word to anyone."""
        each, stack = self.nodes[name]
        each.process.kill()
        await each.process.wait()
        await stack.aclose()

    async def end(self) -> None:
        """End all nodes."""
        for _, stack in self.nodes.values():
            await stack.aclose()

    async def well(self) -> None:
        """Wait until all nodes are joined, and all workers ready."""
        async with asyncio.timeout(PATIENCE):
            for each, _ in self.nodes.values():
                await each.sees("routez", joined(2))
            for process, ready in self.services:
                await until_ready(process, ready)

    def workers(self) -> list[int]:
        """The process ids of all workers."""
        return [
            child.pid
            for process, _ in self.services
            for child in psutil.Process(process.pid).children()
        ]


@pytest.fixture
async def cluster(people_service, tmp_path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        found = Cluster(free_ports(3), free_ports(3))
        for name in NODES:
            await found.begin(name)
        stack.push_async_callback(found.end)
        urls = [each.url for each, _ in found.nodes.values()]
        for number in range(3):
            found.services.append(
                await stack.enter_async_context(
                    program(
                        *("--workers", "2"),
                        directory=tmp_path,
                        DATABASE_URL=people_service.url,
                        NATS_URL=",".join(urls[number:] + urls[:number]),
                        NATS_USER="worker",
                        NATS_PASSWORD=PASSWORD,
                    )
                )
            )
        await found.well()
        yield found


async def test_nodes_and_workers_are_killed_in_turn(cluster, cast, note):
    """Nothing is lost but what was with the process that was killed, or on the way to it."""
    failing: list[tuple[float, float]] = []  # from when to when
    async with AsyncExitStack() as stack:
        loads: list[Load] = []
        for each, _ in list(cluster.nodes.values()):
            client = await stack.enter_async_context(caller(each))
            await until_answered(client, cast.owner.id)
            loads.append(await stack.enter_async_context(paced(client, cast.owner.id, rate=RATE)))
        await asyncio.sleep(CALM)
        for number in range(3 * ROUNDS):
            began = monotonic()
            name = NODES[number % 3]
            await cluster.kill(name)
            await cluster.begin(name)
            await cluster.well()
            failing.append((began, monotonic()))
            await asyncio.sleep(CALM)
            began = monotonic()
            workers = cluster.workers()
            os.kill(workers[number % len(workers)], signal.SIGKILL)
            await cluster.well()
            failing.append((began, monotonic()))
            await asyncio.sleep(CALM)
    asked = [each for load in loads for each in load.asked]
    lost = [each for each in asked if each.answer in (LOST, NO_WORKER)]
    note(
        asked=len(asked),
        **Counter(each.answer for each in asked),
        kills=len(failing),
        seconds=round(asked[-1].sent - asked[0].sent),
    )

    # A machine that is busy with other tests may answer some late, or refuse them.
    assert {VALUE, NO_WORKER, LOST, "timeout", "unavailable"} >= {each.answer for each in asked}
    assert [] == [
        each
        for each in lost
        if not any(began - each.deadline <= each.sent <= ended for began, ended in failing)
    ]
    assert len(asked) > 1000
