"""What a worker holds has bounds, and whatever happens, every request is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import nats as nats_py
import pytest

from responder import worker
from responder.app import serving
from responder.dev import nats
from responder.dev.tokens import ISSUER, Mint
from responder.directory import Directory
from responder.settings import Settings
from responder.tokens import verifying


@pytest.fixture
async def silent() -> AsyncIterator[dict[str, str]]:
    """The settings of a worker whose key set is at an address that never answers."""
    connected: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connected.append(writer), "127.0.0.1", 0)
    yield {
        "RESPONDER_JWKS_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks",
        "RESPONDER_JWT_ISSUER": ISSUER,
        "RESPONDER_JWT_AUDIENCE": ISSUER,
    }
    for writer in connected:
        writer.close()
    server.close()


def with_token() -> dict[str, str]:
    """Headers with a token of a key of its own."""
    return {"Authorization": f"Bearer {Mint().token('ann')}"}


@asynccontextmanager
async def answers(client, count: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A subject for replies, and the replies once the context is left: so many have to arrive."""
    inbox, said = client.new_inbox(), list[str]()
    arrived = asyncio.Event()

    async def receive(message) -> None:
        said.append(message.data.decode())
        if len(said) == count:
            arrived.set()

    await client.subscribe(inbox, cb=receive)
    yield inbox, said
    async with asyncio.timeout(60):
        await arrived.wait()


async def test_so_many_bytes_of_requests_wait(start_with, cast, locked, monkeypatch):
    """While the requests that wait are too large together, another is refused at once."""
    monkeypatch.setattr(worker, "MAX_UNANSWERED", 100)
    service = await start_with(RESPONDER_ADMIN_LISTEN="127.0.0.1:0")
    async with locked(service):
        waiting = asyncio.create_task(service.ask("users.get", {"id": "x" * 100}))
        async with asyncio.timeout(60):
            while (
                "responder_pending_requests 1.0" not in (await service.admin.get("/metrics")).text
            ):
                await asyncio.sleep(0.01)
        refused = await service.ask("users.get", {"id": cast.owner.id})
    answered = await waiting
    later = await service.ask("users.get", {"id": cast.owner.id})

    assert ("unavailable", "too many requests are waiting") == (
        refused.code,
        refused.json["message"],
    )
    assert ["not_found", None] == [answered.code, later.code]


async def test_large_requests_have_only_large_ones_refused(start_with, cast, locked, monkeypatch):
    """While those that are large take all that they may, others wait for their answers."""
    monkeypatch.setattr(worker, "LARGE", 100)
    monkeypatch.setattr(worker, "MAX_LARGE", 150)
    service = await start_with()
    large, small = {"id": "x" * 200}, {"id": cast.owner.id}
    async with answers(service.nc, 3) as (inbox, said), locked(service):
        for request in (large, large, small):
            await service.nc.publish("users.get", json.dumps(request).encode(), reply=inbox)
        async with asyncio.timeout(60):
            while not said:
                await asyncio.sleep(0.01)
        refused = said.copy()
    later = await service.ask("users.get", large)

    assert ["too many requests are waiting"] == [json.loads(each)["message"] for each in refused]
    assert {"not_found", None} == {json.loads(each).get("code") for each in said[1:]}
    assert "not_found" == later.code


async def test_so_many_tokens_wait_to_be_verified(start_with, silent, monkeypatch):
    """While too many tokens wait for their keys, a request with another is refused at once."""
    monkeypatch.setattr(verifying, "MAX_WITHOUT_KEY", 6)  # a sender takes half
    service = await start_with(RESPONDER_TIMEOUT="1", **silent)

    found = [
        (answer.code, answer.json["message"])
        for answer in await asyncio.gather(
            *(service.ask("users.get", "x", with_token()) for _ in range(5))
        )
    ]

    late = ("unavailable", "the token could not be verified in time")
    assert [late] * 3 == found[:3]
    assert [("unavailable", verifying.TOO_MANY_WITHOUT_KEY)] * 2 == found[3:]


async def test_each_request_is_told_of_at_debug_level(start_with, cast, caplog):
    """A line has the subject, the code, milliseconds and the trace, and nothing of who is asked."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    service = await start_with()

    await service.ask("users.get", cast.owner.id, headers=traced)
    await service.ask("users.by_email", f"no-{cast.owner.email}")
    await service.ask("users.get", {"id": cast.owner.id, "wrong": cast.owner.email})

    told = [each.getMessage() for each in caplog.records if each.name == "responder.telling"]
    assert [
        f"users.get ok # ms trace {trace}",
        "users.by_email not_found # ms",
        "users.get invalid_request # ms",
    ] == [re.sub(r"\d+\.\d ms", "# ms", each) for each in told]
    assert cast.owner.email not in caplog.text


async def test_requests_are_not_told_of_at_other_levels(start_with, cast, caplog):
    """At info level there is no line for a request."""
    caplog.set_level(logging.INFO, "responder.telling")
    service = await start_with()

    assert (await service.ask("users.get", cast.owner.id)).code is None

    assert [] == [each for each in caplog.records if each.name == "responder.telling"]


async def test_a_bug_is_an_internal_error(start_with, monkeypatch, caplog):
    """An error that no code expects is answered `internal`, and told in the log alone."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(Directory, "get", broken)
    service = await start_with()

    answer = await service.ask("users.get", "x")

    assert {"code": "internal", "message": "internal error"} == answer.json
    (record,) = [each for each in caplog.records if each.name == "responder.worker"]
    assert "a request to users.get failed" == record.getMessage()


async def test_what_is_not_answered_in_time_is_refused(create_database, template, cast, silent):
    """A worker that stops answers what it holds with `unavailable` when its time is over: lookups
    and tokens that wait to be verified.
    """
    url = await create_database(template=template[0])
    async with nats.running() as server:
        settings = {
            "DATABASE_URL": url,
            "NATS_URL": server.url,
            "RESPONDER_HTTP_LISTEN": "off",
            "RESPONDER_ADMIN_LISTEN": "off",
            "RESPONDER_DRAIN_TIMEOUT": "0.5",
            "RESPONDER_TIMEOUT": "30",
        }
        client = await nats_py.connect(server.url)
        holder = await asyncpg.connect(url)
        try:
            async with (
                answers(client, 2) as (inbox, said),
                holder.transaction(),
                serving(Settings.read({**settings, **silent})),
            ):
                await holder.execute("lock table users in access exclusive mode")
                await client.publish("users.get", cast.owner.id.encode(), inbox)
                await client.publish("users.get", b"x", inbox, headers=with_token())
                await client.request("$SRV.PING.users", timeout=30)  # received what came before
        finally:
            await holder.close()
            await client.close()

    assert ['{"code":"unavailable","message":"shutting down"}'] * 2 == said
