"""UsersClient and programs that answer in place of a worker, rightly or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from responder import wire
from responder.client import UsersClient
from responder.dev import nats
from responder.errors import InternalError, PayloadTooLargeError, UnavailableError
from responder.nats.connection import Connection, connected


@pytest.fixture
async def server() -> AsyncIterator[nats.NatsServer]:
    async with nats.running() as found:
        yield found


@pytest.fixture
async def worker(server) -> AsyncIterator[Connection]:
    """The connection of a program that stands in for a worker."""
    async with connected([server.url], name="test") as connection:
        yield connection


async def serve(worker: Connection, subject: str, answer) -> None:
    """Send what `answer` makes of each payload: the headers and the payload of a reply."""

    def receive(_: bytes, reply: bytes, __: bytes, payload: bytes) -> None:
        headers, body = answer(payload)
        worker.send(reply, body, headers)

    await worker.listen(subject, receive)
    await worker.flush()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"x"])
async def test_a_reply_of_another_program_is_passed_over(server, worker, body):
    """A reply that does not begin as a user does is not taken for a worker's."""
    await serve(worker, "users.get", lambda _: (b"", body))

    async with UsersClient.connect(server.url, timeout=0.2) as users:
        with pytest.raises(UnavailableError, match=r"something else answers on users\.get"):
            await users.get("x")


@pytest.mark.parametrize("body", [b'{"id":1}', b'{"id":', b'{"id":"x"}'])
async def test_a_reply_that_is_no_user_is_internal(server, worker, body):
    """A reply that begins as a user does and is none is an InternalError, of no library."""
    await serve(worker, "users.get", lambda _: (b"", body))

    async with UsersClient.connect(server.url) as users:
        with pytest.raises(InternalError, match="something else"):
            await users.get("x")


async def test_a_user_that_fits_into_no_message_is_an_error(server, worker):
    """Ids are asked for in ever smaller parts, down to one, whose error is raised."""
    asked: list[int] = []

    def refuse(payload: bytes) -> tuple[bytes, bytes]:
        asked.append(len(json.loads(payload)["ids"]))
        return wire.encode_error(PayloadTooLargeError("too large"))

    await serve(worker, "users.get_many", refuse)

    async with UsersClient.connect(server.url) as users:
        with pytest.raises(PayloadTooLargeError):
            await users.get_many([str(number) for number in range(8)])

    assert [8, 4, 2, 1] == asked
