"""Workers and servers that come and go: what was received is answered, whichever stops."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import nats as nats_py
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from responder.app import serving
from responder.dev import nats
from responder.dev.tokens import ISSUER, Mint
from responder.settings import Settings
from tests.key_sets import Endpoint, listening, published


@pytest.fixture
def variables(people_service):
    """The settings of a worker of one's own on the demo people, by its NATS server."""

    def make(url: str) -> Settings:
        return Settings.read(
            {
                "DATABASE_URL": people_service.url,
                "NATS_URL": url,
                "RESPONDER_HTTP_LISTEN": "off",
                "RESPONDER_ADMIN_LISTEN": "off",
                "RESPONDER_DRAIN_TIMEOUT": "20",
                "RESPONDER_TIMEOUT": "10",
            }
        )

    return make


@asynccontextmanager
async def load(client, user_id: str, *, outstanding: int):
    """Keep asking for a user; yields the list of what went wrong, and how many were answered."""
    wrong: list[str] = []
    answered = [0]
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            try:
                reply = await client.request("users.get", user_id.encode(), timeout=30)
                if reply.headers or user_id.encode() not in reply.data:
                    wrong.append(str(reply.headers))
            except (NatsTimeoutError, NoRespondersError) as error:
                wrong.append(type(error).__name__)
            answered[0] += 1

    askers = [asyncio.create_task(ask()) for _ in range(outstanding)]
    try:
        yield wrong, answered
    finally:
        over.set()
        await asyncio.gather(*askers)


async def grows(answered: list[int], *, by: int) -> None:
    """Wait until so many more were answered."""
    target = answered[0] + by
    async with asyncio.timeout(60):
        while answered[0] < target:
            await asyncio.sleep(0.01)


async def restart_in_turn(settings, client, user_id, *, times: int, outstanding: int) -> list[str]:
    """Replace one of two workers again and again, under load; return what went wrong."""
    async with AsyncExitStack() as last:
        current = AsyncExitStack()
        await current.enter_async_context(serving(settings))
        async with load(client, user_id, outstanding=outstanding) as (wrong, answered):
            for _ in range(times):
                following = AsyncExitStack()
                await following.enter_async_context(serving(settings))
                await grows(answered, by=outstanding)
                await current.aclose()
                current = following
                await grows(answered, by=outstanding)
        last.push_async_callback(current.aclose)
    return wrong


@pytest.mark.parametrize(
    ("times", "outstanding"),
    [(3, 64), pytest.param(30, 256, marks=pytest.mark.load)],
)
async def test_a_rolling_restart_loses_nothing(variables, cast, times, outstanding):
    """Workers that start and stop under load leave no request without its answer."""
    async with nats.running() as server:
        client = await nats_py.connect(server.url)
        wrong = await restart_in_turn(
            variables(server.url), client, cast.owner.id, times=times, outstanding=outstanding
        )
        await client.close()

    assert [] == wrong


async def test_a_nats_server_that_retires_loses_nothing(variables, cast):
    """When one server of a cluster announces its shutdown, its workers move without a loss."""
    cluster = "cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
    async with AsyncExitStack() as stack:
        retiring = await stack.enter_async_context(
            nats.running(config=cluster.format(port=-1, routes="") + CALM)
        )
        route = f"nats://127.0.0.1:{await cluster_port(retiring)}"
        staying = await stack.enter_async_context(
            nats.running(config=cluster.format(port=-1, routes=route) + CALM)
        )
        settings = variables(retiring.url)
        await stack.enter_async_context(serving(settings))
        await stack.enter_async_context(serving(variables(staying.url)))
        client = await nats_py.connect(staying.url)
        stack.push_async_callback(client.close)
        async with load(client, cast.owner.id, outstanding=32) as (wrong, answered):
            await grows(answered, by=100)
            os.kill(retiring.pid, signal.SIGUSR2)  # lame duck mode
            async with asyncio.timeout(60):
                await retiring.process.wait()
            await grows(answered, by=100)

    assert [] == wrong


# A lame duck waits before it closes the first connection, and then spreads the others.
CALM = "\nlame_duck_grace_period: 1s\nlame_duck_duration: 30s\n"


async def cluster_port(server: nats.NatsServer) -> int:
    """The port on which a server listens for its cluster, from its log."""
    async with asyncio.timeout(60):
        while True:
            for line in server.log.read_text().splitlines():
                if "Listening for route connections" in line:
                    return int(line.rpartition(":")[2])
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("drain_timeout", [10.0, 0.4])
async def test_tokens_that_wait_are_answered(
    variables, people_service, cast, tmp_path, drain_timeout
):
    """A worker that stops waits for a download of keys, within its time, and answers each token."""
    mint, nc = Mint(), people_service.nc
    endpoint = Endpoint(body=published(mint, path=tmp_path / "x"))
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def take(message) -> None:
        answers.put_nowait(message.headers["Nats-Service-Error-Code"])

    inbox = nc.new_inbox()
    await nc.subscribe(f"{inbox}.*", cb=take)
    async with listening(endpoint):
        settings = variables(people_service.nats.url).model_copy(
            update={
                "jwks_url": endpoint.url,
                "jwt_issuer": [ISSUER],
                "jwt_audience": [ISSUER],
                "drain_timeout": drain_timeout,
                "subject_prefix": "stopping",
            }
        )
        async with serving(settings):
            good = {"Authorization": f"Bearer {mint.token(cast.owner.id)}"}
            reply = await nc.request(
                "stopping.get", cast.owner.id.encode(), timeout=20, headers=good
            )
            assert cast.owner.id in reply.data.decode()
            endpoint.slow = asyncio.Event()
            for number in range(50):
                stranger = {"Authorization": f"Bearer {Mint().token('x')}"}
                await nc.publish("stopping.get", b"x", reply=f"{inbox}.{number}", headers=stranger)
            await nc.request("stopping.get", cast.owner.id.encode(), timeout=20)
            if drain_timeout > 1:
                endpoint.slow.set()
    async with asyncio.timeout(60):
        given = [await answers.get() for _ in range(50)]

    assert ["401" if drain_timeout > 1 else "503"] * 50 == given


def heeds(pid: int) -> bool:
    """Whether a process has something to do on SIGTERM other than to be ended by it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.load
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_service_told_to_end_ends_well_at_any_moment(people_service, workers, tmp_path):
    """From the first step of its own on: while it reads its modules, starts, or is ready."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": people_service.url,
        "NATS_URL": people_service.nats.url,
        "RESPONDER_SUBJECT_PREFIX": f"ending-{workers}",
        "RESPONDER_HTTP_AUTH": "disabled",
        "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
        "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
    }
    status = []
    for delay in [0, 0.001, *(random.random() * 1.2 for _ in range(10))]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "responder", "serve", "--workers", str(workers)),
            env=environment,
            cwd=tmp_path,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while not heeds(process.pid):
                await asyncio.sleep(0.001)
            await asyncio.sleep(delay)  # the moment
            process.terminate()
            status.append(await process.wait())

    assert {0} == set(status)
