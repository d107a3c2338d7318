"""With the permissions of deploy/nats each program may do what it must, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import nats as nats_py
import pytest
from nats.aio.client import Client

from responder import UsersClient
from responder.app import serving
from responder.checks import nats as checks
from responder.checks.report import BROKEN, Report
from responder.dev import nats
from responder.settings import Settings
from tests.markdown import ROOT

FILE = ROOT / "deploy" / "nats" / "responder.conf"
PASSWORD = "pa55word-of-the-test"
# What no test sends, and no program here may hear or say.
STRANGE = ["orders.new", "$SYS.REQ.SERVER.PING", "$JS.API.STREAM.CREATE.X", "_INBOX.other.1", ">"]
SRV = ["$SRV.PING", "$SRV.PING.users", "$SRV.INFO.users", "$SRV.STATS.users.x"]
# For NATS `users.*` has `users.>` in it, where it is subscribed to.
REQUESTS = ["users.get", "users.>", "$SRV.>", *SRV]


@pytest.fixture(scope="module")
async def server():
    """nats-server with the file."""
    config = re.sub(r"\$NATS_\w+_PASSWORD", PASSWORD, FILE.read_text())
    async with nats.running(config=config) as running:
        yield running


@asynccontextmanager
async def as_user(server: nats.NatsServer, name: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection of a user, and what NATS says against what it does."""
    said: list[str] = []

    async def note(error: Exception) -> None:
        said.append(str(error))

    client = await nats_py.connect(
        server.url,
        user=name,
        password=PASSWORD,
        error_cb=note,
        inbox_prefix=f"_INBOX.{name}".encode(),
    )
    async with client:
        yield client, said


@asynccontextmanager
async def running(
    server: nats.NatsServer, name: str, url: str, *, worker: bool = True, **variables: str
) -> AsyncIterator[Any]:
    """A process of responder that has the login of a user."""
    settings = Settings.read(
        {
            "DATABASE_URL": url,
            "NATS_URL": server.url,
            "NATS_USER": name,
            "NATS_PASSWORD": PASSWORD,
            "NATS_INBOX_PREFIX": f"_INBOX.{name}",
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_HTTP_LISTEN": "off",
            "RESPONDER_ADMIN_LISTEN": "off",
            **variables,
        }
    )
    async with serving(settings, worker=worker) as service:
        async with asyncio.timeout(60):
            await service.wait_ready()
        yield service


HTTP = {"RESPONDER_HTTP_LISTEN": "127.0.0.1:0"}


@pytest.mark.parametrize("asking", ["orders", "billing"])
@pytest.mark.parametrize(
    "processes",
    [[("worker", {}, True), ("bridge", HTTP, False)], [("serve", HTTP, True)]],
    ids=["apart", "together"],
)
async def test_each_does_what_it_must(server, people_service, cast, processes, asking):
    """Workers answer the bridge, and a service of any account; `nats micro` finds them."""
    async with AsyncExitStack() as stack:
        for name, variables, is_worker in processes:
            context = running(server, name, people_service.url, worker=is_worker, **variables)
            process = await stack.enter_async_context(context)
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        nc, said = await stack.enter_async_context(as_user(server, asking))
        over_http = await http.get(f"{process.http_url}/api/v1/users/{cast.owner.id}")
        users = UsersClient(nc)
        over_nats = await users.get(cast.owner.id)
        members = [each.id async for each in users.org_list(cast.organization.id)]
        pings = [await nc.request(f"$SRV.PING{name}", timeout=30) for name in ("", ".users")]
        described = [json.loads(each.data) for each in pings]
        stats = await nc.request(f"$SRV.STATS.users.{described[0]['id']}", timeout=30)

    assert cast.owner.id == over_http.json()["id"] == over_nats.id
    assert cast.owner.id in members
    assert ["users", "users"] == [each["name"] for each in described]
    assert json.loads(stats.data)["endpoints"][0]["num_requests"] >= 2
    assert [] == said


async def test_check_finds_nothing_broken(server, people_service):
    """`responder check`, with the login of a worker that has the bridge, can look at all."""
    async with running(server, "worker", people_service.url):
        settings = Settings.read(
            {
                "NATS_URL": server.url,
                "NATS_USER": "serve",
                "NATS_PASSWORD": PASSWORD,
                "NATS_INBOX_PREFIX": "_INBOX.serve",
            }
        )
        report = Report()
        await checks.check(settings, report)

    assert "1 answer on users.>" == report.servers["workers"]
    assert [] == [each for each in report.findings if each.severity == BROKEN]


async def refused(server: nats.NatsServer, user: str, verb: str, subjects: list[str]) -> list[str]:
    """Which of the subjects a user may not publish or subscribe to."""
    async with as_user(server, user) as (nc, said):
        for subject in subjects:
            if verb == "publish":
                await nc.publish(subject, b"x")
            else:
                await nc.subscribe(subject)
        await nc.flush()
        await nc.flush()
    told = " ".join(said).lower()
    of = {"publish": "publish", "subscribe": "subscription"}[verb]
    return [each for each in subjects if f'{of} to "{each.lower()}"' in told]


@pytest.mark.parametrize(
    ("user", "publish", "subscribe"),
    [
        ("worker", [], REQUESTS),
        ("bridge", ["users.get"], ["_INBOX.bridge.1"]),
        ("serve", ["users.get", "$SRV.INFO.users"], ["_INBOX.serve.1", *REQUESTS]),
        ("orders", ["users.get", "orders.new", *SRV], ["_INBOX.orders.1", "orders.new"]),
        ("billing", ["users.get", *SRV], ["_INBOX.billing.1"]),
    ],
)
async def test_each_may_do_nothing_else(server, user, publish, subscribe):
    """Of all subjects that mean something here a user may use those that it needs."""
    everything = [
        *("users.get.more", *REQUESTS, *STRANGE),
        *(f"_INBOX.{each}.1" for each in ("worker", "bridge", "serve", "orders", "billing")),
    ]
    for verb, allowed in (("publish", publish), ("subscribe", subscribe)):
        subjects = [each for each in everything if verb == "subscribe" or ">" not in each]
        assert set(subjects) - set(allowed) == set(await refused(server, user, verb, subjects))


def test_the_documents_name_the_file():
    """subjects.md and SECURITY.md lead to it."""
    assert "deploy/nats/responder.conf" in (ROOT / "subjects.md").read_text()
    assert "deploy/nats/responder.conf" in (ROOT / "SECURITY.md").read_text()
