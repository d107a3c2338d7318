"""Permissions that are changed under a running service."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from responder.dev import nats
from responder.errors import UnavailableError
from responder.nats import denials
from responder.nats.connection import connected

PATIENCE = 60  # seconds
OURS = {"user": "worker", "password": "worker"}
ALL = ["users.>", "$SRV.>"]


def permitting(*subjects: str) -> str:
    """A server's configuration: to which subjects a worker may subscribe; tests may all."""
    listed = ", ".join(f'"{each}"' for each in subjects)
    permissions = f'{{ publish: ">", subscribe: [{listed}] }}'
    return f"""
        authorization {{ users = [
          {{ user: worker, password: worker, permissions: {permissions} }}
          {{ user: tests, password: tests }}
        ] }}
        no_auth_user: tests
    """


def permit(server: nats.NatsServer, *subjects: str) -> None:
    """Change that in a running server."""
    (server.directory / "nats-server.conf").write_text(permitting(*subjects))
    os.kill(server.pid, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _asked_for_soon(monkeypatch):
    monkeypatch.setattr(denials, "PAUSE", 0.1)


async def test_ready_follows_the_permissions(start_with, cast):
    """A subject that is denied is named by /ready, and answered again once it is permitted."""
    service = await start_with(
        config=permitting(*ALL),
        RESPONDER_ADMIN_LISTEN="127.0.0.1:0",
        NATS_USER="worker",
        NATS_PASSWORD="worker",
    )

    async def ready(text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in (await service.admin.get("/ready", timeout=PATIENCE)).text:
                await asyncio.sleep(0.02)

    await ready("ready\n")
    assert cast.owner.id == (await service.ask("users.get", cast.owner.id)).json["id"]

    permit(service.nats, "users.whoami", "$SRV.>")
    await ready("not ready: NATS does not permit to subscribe to users.by_email, users.get, ")

    permit(service.nats, "users.get", "users.by_email", "$SRV.>")
    await ready("not ready: NATS does not permit to subscribe to users.get_many, ")
    assert cast.owner.id == (await service.ask("users.get", cast.owner.id)).json["id"]

    permit(service.nats, *ALL)
    await ready("ready\n")
    assert (
        cast.owner.id
        == (await service.ask("users.get_many", {"ids": [cast.owner.id]})).json["users"][0]["id"]
    )


async def test_what_the_next_server_denies_is_known():
    """A subject that is denied only after a reconnect is named then, until it is permitted."""
    got = asyncio.Event()
    async with AsyncExitStack() as last, AsyncExitStack() as first:
        server = await first.enter_async_context(nats.running(config=permitting("users.>")))
        port = int(server.url.rpartition(":")[2])
        opening = connected([server.url], name="test", options=OURS, asks=False)
        connection = await last.enter_async_context(opening)
        await connection.listen("users.get", lambda *_: got.set(), queue="responder")
        await connection.check(PATIENCE)

        await first.aclose()
        again = nats.running(config=permitting("$SRV.>"), port=port)
        server = await first.enter_async_context(again)
        async with asyncio.timeout(PATIENCE):
            while connection.reconnects == 0:
                await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError, match=r"not permit to subscribe to users\.get"):
            await connection.check(PATIENCE)

        permit(server, "users.>")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await connection.check(PATIENCE)
                    break
                except UnavailableError:
                    await asyncio.sleep(0.02)
        connection.send(b"users.get", b"")
        async with asyncio.timeout(PATIENCE):
            await got.wait()


async def test_nothing_is_asked_for_again_once_it_ends(monkeypatch):
    """A worker that is about to end subscribes to nothing more, even if it is permitted now."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats.running(config=permitting("$SRV.>")))
        opening = connected([server.url], name="test", options=OURS, asks=False)
        connection = await stack.enter_async_context(opening)
        await connection.listen("users.get", lambda *_: None, queue="responder")
        with pytest.raises(UnavailableError, match="permit"):
            await connection.check(PATIENCE)
        asking = connection._client.denials._asking
        await connection.drain_listeners()

        assert asking is not None
        await asyncio.wait([asking], timeout=PATIENCE)
        assert asking.cancelled()
