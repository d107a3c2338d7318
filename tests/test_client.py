"""UsersClient and programs that answer in place of a worker, rightly or not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import nats as nats_py
import pytest
from nats.aio.msg import Msg

from responder import wire
from responder.client import UsersClient
from responder.dev import nats
from responder.errors import (
    InternalError,
    NotFoundError,
    PayloadTooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
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


# A connection that the application has


async def test_any_connection_of_nats_py_will_do(people_service, cast):
    """Every call works over a plain connection, which stays open and keeps its own requests."""
    users = UsersClient(people_service.nc)

    user = await users.get(cast.owner.id)
    answers = [
        await users.by_email(cast.owner.email),
        (await users.get_many([cast.owner.id, "nobody"])).users[0],
        *[each async for each in users.org_list(cast.organization.id) if each.id == user.id],
    ]
    page = await users.org_page(cast.organization.id, limit=1)
    following = await users.org_page(cast.organization.id, limit=1, cursor=page.next_cursor)
    with pytest.raises(UnauthenticatedError):
        await users.whoami()

    assert [user] * 3 == answers
    assert page.users != following.users
    assert b'"users"' in (await people_service.nc.request("$SRV.PING.users")).data


async def test_what_another_program_answers_first_is_passed_over(server):
    """A stream that acknowledges requests is not taken for a user: the worker's reply is."""
    nc = await nats_py.connect(server.url)
    users = UsersClient(nc, timeout=30)

    async def acknowledge(message: Msg) -> None:
        await message.respond(b'{"stream":"AUDIT","seq":7}')
        await message.respond(b'{"id":"x"}')

    await nc.subscribe("users.get", cb=acknowledge)
    with pytest.raises(InternalError):  # it began as a user does, and lacks the rest
        await users.get("x")
    await nc.close()


async def test_without_workers_the_answer_comes_soon(server):
    """A request that no worker takes is unavailable long before its timeout, and says where."""
    nc = await nats_py.connect(server.url)
    users = UsersClient(nc, prefix="acme.users", timeout=60)

    with pytest.raises(UnavailableError, match=r"no worker listens on acme\.users\.get"):
        await users.get("x")
    await nc.close()


async def test_a_closed_connection_is_told_at_once(server):
    """A client whose connection is closed does not wait for its timeout."""
    nc = await nats_py.connect(server.url)
    users = UsersClient(nc, timeout=60)
    await nc.close()

    for _ in range(2):
        with pytest.raises(UnavailableError, match="the connection to NATS is closed"):
            await users.get("x")


async def test_a_token_of_any_length_leaves_the_connection_alone(server):
    """A request with more headers than NATS permits is refused here, and the next one is sent."""
    nc = await nats_py.connect(server.url)
    users = UsersClient(nc, timeout=60)

    with pytest.raises(PayloadTooLargeError):
        await users.on_behalf_of("a" * nc.max_payload).get("x")
    with pytest.raises(UnavailableError, match="no worker listens"):
        await users.get("x")
    await nc.close()


async def test_another_event_loop_is_told_at_once(server):
    """A client that is used in a loop other than its connection's does not wait for its timeout."""
    async with UsersClient.connect(server.url, timeout=60) as users:
        with pytest.raises(UnavailableError, match="no worker listens"):
            await users.get("x")
        with pytest.raises(RuntimeError, match="in the event loop of its connection"):
            await asyncio.to_thread(asyncio.run, users.get("x"))


async def test_one_string_is_no_list_of_ids(server):
    """`get_many("abc")` is an error of the program, and not a request for a, b and c."""
    async with UsersClient.connect(server.url) as users:
        with pytest.raises(TypeError, match="a list of ids"):
            await users.get_many("abc")


TRACE = {"traceparent": "00-1-2-01", "tracestate": "a=1,b=2"}


async def test_a_request_may_have_a_timeout_and_headers_of_its_own(server, worker):
    """What a call says holds for that call; the worker hears both."""
    heard: list[dict[str, list[str]]] = []

    def receive(_: bytes, reply: bytes, headers: bytes, __: bytes) -> None:
        heard.append(wire.decode_headers(headers))
        worker.send(reply, *reversed(wire.encode_error(NotFoundError("no such user"))))

    await worker.listen("users.get", receive)
    await worker.flush()

    async with UsersClient.connect(server.url, timeout=60, name="shop") as users:
        speaking = users.on_behalf_of("a.b.c\r\nX-Admin: yes")
        with pytest.raises(NotFoundError):
            await speaking.get("x", timeout=0.5, headers=TRACE)

    (headers,) = heard
    assert [[each] for each in TRACE.values()] == [headers[each] for each in TRACE]
    assert ["Bearer a.b.c X-Admin: yes"] == headers["authorization"]
    assert int(headers["responder-timeout-ms"][0]) <= 500
    assert "x-admin" not in headers


async def test_any_option_of_nats_py_is_passed_on(server):
    """A name and callbacks of the application's own are taken."""
    closed = asyncio.Event()

    async def note() -> None:
        closed.set()

    async with UsersClient.connect(server.url, name="shop", closed_cb=note):
        assert not closed.is_set()
    await asyncio.wait_for(closed.wait(), 60)


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ("nats://127.0.0.1:1", "NATS is out of reach: 127.0.0.1:1: Connection refused"),
        ("tls://{}", "TLS is asked for"),
    ],
)
async def test_why_nats_is_out_of_reach_is_told(server, servers, said):
    """Connecting ends with the reason, in words."""
    address = server.url.removeprefix("nats://")
    with pytest.raises(UnavailableError, match=said):
        async with UsersClient.connect(servers.format(address), timeout=3):
            pass


async def test_a_host_and_a_port_are_a_url(server):
    """As for the nats CLI, a server may be given without a scheme."""
    async with UsersClient.connect(server.url.removeprefix("nats://"), timeout=60) as users:
        with pytest.raises(UnavailableError, match="no worker listens"):
            await users.get("x")


async def test_a_server_that_says_nothing_is_named():
    """What takes a connection and says nothing is out of reach, and the message says where."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}: no answer"):
            async with UsersClient.connect(f"nats://127.0.0.1:{port}", timeout=0.5):
                pass


@pytest.mark.parametrize("servers", [[], "", "http://127.0.0.1:8080", ["nats://a", ""]])
async def test_what_is_no_url_of_nats_is_told_at_once(servers):
    """Wrong servers are an error of the program; none at all does not keep it busy for ever."""
    with pytest.raises(ValueError, match="servers: expected nats:// URLs"):
        async with UsersClient.connect(servers):
            pass
