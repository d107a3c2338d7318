"""Two regions, the edge, and other teams' accounts: requests go where the documents say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from responder import UsersClient
from tests.ports import at, free_port, free_ports
from tests.scaling.nodes import PATIENCE, Node, addresses, joined, node, routes
from tests.scaling.workers import caller, until_answered

pytestmark = pytest.mark.heavy

ASKED = 200


async def ask(client, user_id: str, subject: str = "users.get", *, times: int = ASKED) -> None:
    """Ask so many times, one after another, and look at each answer."""
    for _ in range(times):
        reply = await client.request(subject, user_id.encode(), timeout=10)
        assert user_id == json.loads(reply.data)["id"], reply.headers


@pytest.fixture
async def regions() -> AsyncIterator[dict[str, list[Node]]]:
    """Two regions of two nodes, which know each other."""
    names = ("eu1", "eu2", "us1", "us2")
    clients, clusters, gateways = (dict(zip(names, free_ports(4), strict=True)) for _ in range(3))

    def of(region: str, places: dict[str, int]) -> list[int]:
        return [port for name, port in places.items() if name.startswith(region)]

    every = [{"name": each, "urls": addresses("region", of(each, gateways))} for each in REGIONS]
    async with AsyncExitStack() as stack:
        found: dict[str, list[Node]] = {"eu": [], "us": []}
        for name in names:
            region = name[:2]
            variables = {
                "NATS_REGION": region,
                "NATS_CLUSTER_LISTEN": at(clusters[name]),
                "NATS_ROUTES": routes(of(region, clusters)),
                "NATS_GATEWAY_LISTEN": at(gateways[name]),
                "NATS_GATEWAYS": json.dumps(every),
            }
            context = node("region.conf", name, clients[name], **variables)
            found[region].append(await stack.enter_async_context(context))
        for region, other in (REGIONS, REGIONS[::-1]):
            for each in found[region]:
                await each.sees("routez", joined(1))
                await each.sees("gatewayz", reaches(other))
        yield found


REGIONS = ("eu", "us")


def reaches(region: str) -> Callable[[Any], bool]:
    """Tell of /gatewayz whether a node has a gateway to a region."""
    return lambda page: region in page["outbound_gateways"]


async def crossed(nodes: list[Node], other: str) -> int:
    """How many messages of accounts the nodes of a region have sent to another."""
    pages = [await each.see("gatewayz") for each in nodes]
    return sum(each["outbound_gateways"][other]["connection"]["out_msgs"] for each in pages)


async def until_near(client, worker, user_id: str) -> None:
    """Ask until a worker of the own region has answered."""
    async with asyncio.timeout(PATIENCE):
        while not await worker.answered():
            await until_answered(client, user_id)


async def until_none(client) -> None:
    """Ask until NATS says that there is no worker."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.request("users.get", b"x", timeout=1)
            except NoRespondersError:
                return
            except NatsTimeoutError:
                continue


async def test_a_region_answers_its_own_and_then_the_others_requests(regions, start, cast, note):
    """While both have workers no request crosses; what a region cannot answer, the other does."""
    eu, us = await start(*regions["eu"]), await start(*regions["us"])
    async with caller(regions["eu"][0]) as in_eu, caller(regions["us"][1]) as in_us:

        async def counted(*clients) -> list[int]:
            """Ask from these places; return how many each region answered, and how many crossed."""
            before = [await eu.answered(), await us.answered()]
            passed = await crossed(regions["eu"], "us") + await crossed(regions["us"], "eu")
            for client in clients:
                await ask(client, cast.owner.id)
            after = [await eu.answered(), await us.answered()]
            passing = await crossed(regions["eu"], "us") + await crossed(regions["us"], "eu")
            return [after[0] - before[0], after[1] - before[1], passing - passed]

        await until_near(in_eu, eu, cast.owner.id)
        await until_near(in_us, us, cast.owner.id)
        both = await counted(in_eu, in_us)
        await us.stop()
        await until_answered(in_us, cast.owner.id)
        before = await eu.answered()
        await ask(in_us, cast.owner.id)
        alone = await eu.answered() - before
        await eu.stop()
        await until_none(in_us)
    note(eu=both[0], us=both[1], crossed=both[2], eu_alone=alone)

    assert [ASKED, ASKED] == both[:2]
    assert both[2] < 10  # messages of NATS's own
    assert ASKED == alone


async def test_a_bridge_at_the_edge_asks_the_workers_of_the_hub(start, cast):
    """Requests and replies pass the leaf node's connection, and nothing else does."""
    hub_port, cluster, leaf, edge_port = free_ports(4)
    joining = {"NATS_CLUSTER_LISTEN": at(cluster), "NATS_ROUTES": routes([cluster])}
    hub_urls = json.dumps(addresses("bridge", [leaf]))
    async with (
        node("hub.conf", "hub", hub_port, **joining, NATS_LEAF_LISTEN=at(leaf)) as hub,
        node("edge.conf", "edge", edge_port, NATS_HUB=hub_urls) as edge,
        httpx.AsyncClient(trust_env=False) as http,
        caller(hub) as in_hub,
    ):
        await edge.sees("leafz", lambda page: page["leafnodes"] == 1)
        await start(hub)
        bridge = await start(
            edge,
            user="",
            alone=True,
            DATABASE_URL="",
            NATS_PASSWORD="",
            NATS_INBOX_PREFIX="_INBOX.bridge",
            RESPONDER_HTTP_LISTEN="127.0.0.1:0",
        )
        url = f"{bridge.running.http_url}/api/v1/users/{cast.owner.id}"
        async with asyncio.timeout(PATIENCE):
            while (answer := await http.get(url)).status_code == 503:
                await asyncio.sleep(0.01)  # the edge has not heard of the worker yet
        await in_hub.subscribe("orders.>")
        await in_hub.flush()
        async with caller(edge, "") as in_edge:
            with pytest.raises(NoRespondersError):
                await in_edge.request("orders.new", b"x", timeout=10)

    assert (200, cast.owner.id) == (answer.status_code, answer.json()["id"])


async def test_teams_ask_under_prefixes_of_their_own_and_hear_nothing(start, cast):
    """What an account imports may be asked and nothing else; who imports nothing asks no worker."""
    port = free_port()
    async with (
        node("teams.conf", "teams", port) as server,
        caller(server, "billing") as billing,
        caller(server, "shipping") as shipping,
    ):
        await start(server)
        heard: list[str] = []

        async def hear(message) -> None:
            heard.append(message.subject)

        for subject in ("users.>", "auth.>", "$SRV.>"):
            await billing.subscribe(subject, cb=hear)
        await billing.flush()
        directory = UsersClient(billing, prefix="directory")
        people = UsersClient(shipping, prefix="auth.people")
        one, members = await people.get(cast.owner.id), directory.org_list(cast.organization.id)
        found = [each.id async for each in members]
        for subject in ("users.get", "directory.unknown", "auth.people"):
            with pytest.raises(NoRespondersError):
                await shipping.request(subject, b"x", timeout=10)
        await billing.flush()

    assert cast.owner.id == one.id
    assert cast.owner.id in found
    assert [] == heard
