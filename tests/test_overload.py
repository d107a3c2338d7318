"""A worker that is offered far more than it can answer loses nothing, and goes on answering."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import nats as nats_py
import psutil
import pytest
from nats.errors import NoRespondersError

from responder.dev import nats

pytestmark = pytest.mark.load

MANY = 400_000  # requests at once: some eight times what is answered in a second
FEW = 20  # requests of which one cannot tell how many are answered
MOST = 200_000_000  # bytes that the worker may take
ERRORS = {
    "refused": b"-Error-Code: 503",
    "invalid": b"-Error-Code: 400",
    "late": b"-Error-Code: 504",
}


@asynccontextmanager
async def worker(database: str, nats_url: str, directory):
    """A worker in a process of its own; yields the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "responder", "serve", "--no-http"),
        cwd=directory,
        env={
            "DATABASE_URL": database,
            "NATS_URL": nats_url,
            "RESPONDER_ADMIN_LISTEN": "off",
            "RESPONDER_LOG_LEVEL": "error",
        },
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def flood(url: str, subject: bytes, payload: bytes, value: bytes, count: int) -> Counter[str]:
    """Send requests as fast as they go; return how many had which answer, once each has one."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    inbox = b"_INBOX.flood%d" % id(reader)
    writer.write(b'CONNECT {"headers":true,"no_responders":true}\r\nSUB %b.* 1\r\n' % inbox)
    writer.writelines(
        b"PUB %b %b.%d %d\r\n%b\r\n" % (subject, inbox, number, len(payload), payload)
        for number in range(count)
    )
    answers, rest = Counter[str](), b""
    async with asyncio.timeout(120):
        while answers.total() < count:
            data = rest + await reader.read(1_000_000)
            for kind, mark in {**ERRORS, "value": value}.items():
                answers[kind] += data.count(mark) - rest.count(mark)
            rest = data[-32:]
    writer.close()
    return answers


# The subject, the payload, what a value holds once, and which kinds of answers there are.
FLOODS = {
    "gets": ("get", lambda cast: cast.owner.id, b'{"id":"', {"value", "refused"}),
    "pages": ("org_list", lambda cast: cast.organization.id, b'{"users":', {"value", "refused"}),
    "invalid": ("get", lambda _: '{"id":7}', b'{"id":"', {"invalid", "refused"}),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_answered_or_refused(people_service, cast, tmp_path, name):
    """Of far more requests than can be answered each has its answer or refusal; some are answered,
    those of other callers nearly all, and memory stays bounded.
    """
    subject, payload, value, kinds = FLOODS[name]
    count = MANY if subject == "get" else MANY // 4
    async with (
        nats.running() as server,
        worker(people_service.url, server.url, tmp_path) as process,
        await nats_py.connect(server.url) as client,
    ):
        await listening(client)
        flooding = asyncio.create_task(
            flood(server.url, f"users.{subject}".encode(), payload(cast).encode(), value, count)
        )
        honest, most = Counter[bool](), 0
        while not flooding.done():
            answer = await client.request("users.get", cast.owner.id.encode(), timeout=20)
            honest[not answer.headers] += 1
            most = max(most, psutil.Process(process.pid).memory_info().rss)
            await asyncio.sleep(0.005)
        answers = await flooding
        after = await client.request("users.get", cast.owner.id.encode(), timeout=20)

    assert count == answers.total()
    # A machine that is busy with other tests may answer some late, and honest callers ask little.
    assert kinds == {kind for kind, number in answers.items() if number} - {"late"}
    assert honest[True] > 0
    assert honest[True] > honest[False] or honest.total() < FEW
    assert most < MOST
    assert not after.headers


async def test_a_worker_that_had_no_time_for_a_moment_refuses_nothing(start_with, cast):
    """What waits while a machine gives its worker no time is no overload, and is answered."""
    count = 1_500  # which one read does not hold
    service = await start_with(RESPONDER_TIMEOUT="10")
    flooding = asyncio.create_task(
        flood(service.nats.url, b"users.get", cast.owner.id.encode().ljust(200), b'{"id":', count)
    )
    while not flooding.done():
        time.sleep(0.1)  # noqa: ASYNC251 - the worker's loop stands still
        await asyncio.sleep(0)
    answers = await flooding

    assert {"value": count} == +answers


async def listening(client) -> None:
    """Return once a worker answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.request("users.get", b"x", timeout=20)
            except NoRespondersError:
                await asyncio.sleep(0.05)
            else:
                return
