"""The NATS connection never goes deaf, whatever nats-py's read loop meets."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from math import inf
from typing import Any

import nats as nats_py
import psutil
import pytest
from nats.errors import Error

from responder.asking import NoRespondersError
from responder.dev import nats
from responder.errors import PayloadTooLargeError, RequestTimeoutError, UnavailableError
from responder.nats import login, unsent
from responder.nats.connection import connected
from responder.nats.pulse import BEATS
from tests.faults.proxy import Proxy
from tests.pausing import paused


@pytest.fixture
async def server():
    async with nats.running() as server:
        yield server


@pytest.fixture
async def connection(server):
    async with connected([server.url], name="test") as connection:
        yield connection


@pytest.fixture
async def other(server):
    client = await nats_py.connect(server.url)
    yield client
    await client.close()


async def echo(connection) -> None:
    """Answer on the subject `echo` with what was sent."""

    def receive(_: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        connection.send(reply, payload)

    await connection.listen("echo", receive)
    await connection.flush()


async def test_a_request_is_answered(connection):
    """ask() returns what a listener sends back."""
    await echo(connection)

    assert (b"", b"hello") == await connection.ask("echo", b"hello", timeout=30)


async def test_all_that_is_sent_in_one_turn_arrives_in_order(connection, other):
    """A thousand messages sent without waiting all arrive, in the order they were sent."""
    got: list[bytes] = []
    arrived = asyncio.Event()

    async def receive(message) -> None:
        got.append(message.data)
        if len(got) == 1000:
            arrived.set()

    await other.subscribe("many", cb=receive)
    await other.flush()
    await other.flush()  # the first one's PING overtakes the subscription

    for number in range(1000):
        connection.send(b"many", b"%d" % number)
    await asyncio.wait_for(arrived.wait(), 60)

    assert [b"%d" % number for number in range(1000)] == got


async def test_a_flush_comes_after_what_was_sent_before_it(connection, monkeypatch):
    """The PING of a flush is written behind all that waited (nats-py writes it in front)."""
    written = []
    writelines = connection._client._transport.writelines

    def spy(lines: list[bytes]) -> None:
        written.extend(lines)
        writelines(lines)

    monkeypatch.setattr(connection._client._transport, "write", written.append)
    monkeypatch.setattr(connection._client._transport, "writelines", spy)

    await connection.listen("late", lambda *_: None)
    connection.send(b"subject", b"message")
    await connection.flush()

    assert [b"SUB late", b"PUB subj", b"PING\r\n"] == [line[:8] for line in written]


async def test_that_there_is_no_listener_is_known_at_once(connection):
    """A request that reached no listener raises NoRespondersError, not a timeout."""
    with pytest.raises(NoRespondersError):
        await connection.ask("nowhere", b"", timeout=5)


async def test_silence_is_a_timeout(connection):
    """A listener that does not answer makes a RequestTimeoutError, and leaves nothing behind."""
    await connection.listen("silent", lambda *_: None)

    with pytest.raises(RequestTimeoutError):
        await connection.ask("silent", b"", timeout=0.05)

    assert {} == connection._requests


async def test_a_request_that_is_too_large_is_refused_before_it_is_sent(connection):
    """Payload and headers together over the server's limit would end the connection."""
    await echo(connection)

    with pytest.raises(PayloadTooLargeError):
        await connection.ask(
            "echo", b"x" * connection.limits.message, headers={"x": "y"}, timeout=30
        )

    assert (b"", b"still here") == await connection.ask("echo", b"still here", timeout=30)


async def test_a_receiver_that_raises_is_survived(connection):
    """An exception in a receiver is logged; the next message is received."""
    calls = []

    def receive(_: bytes, reply: bytes, __: bytes, payload: bytes) -> None:
        calls.append(payload)
        if payload == b"bad":
            raise ValueError
        connection.send(reply, b"fine")

    await connection.listen("fragile", receive)
    with pytest.raises(RequestTimeoutError):
        await connection.ask("fragile", b"bad", timeout=0.05)

    assert (b"", b"fine") == await connection.ask("fragile", b"good", timeout=30)


async def test_a_late_pong_does_not_make_it_deaf(connection):
    """A PONG that is no longer waited for is passed over (nats-py would stop reading)."""
    await echo(connection)
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    gone.cancel()

    await connection._client._send_ping(gone)
    await connection.flush()

    assert (b"", b"hear me") == await connection.ask("echo", b"hear me", timeout=30)
    assert 0 == connection._client.stats["reconnects"]


async def test_whatever_ends_the_read_loop_is_followed_by_a_reconnect(connection, monkeypatch):
    """When nats-py stops reading for an unforeseen reason, the connection is made anew."""
    await echo(connection)
    parse = connection._client._ps.parse

    async def fail(data: bytes = b"") -> None:
        monkeypatch.setattr(connection._client._ps, "parse", parse)
        raise RuntimeError

    monkeypatch.setattr(connection._client._ps, "parse", fail)
    with suppress(RequestTimeoutError, UnavailableError, Error):
        await connection.ask("echo", b"lost", timeout=0.2)
    async with asyncio.timeout(60):
        while connection._client.stats["reconnects"] == 0 or not connection._client.is_connected:
            await asyncio.sleep(0.01)

    assert (b"", b"again") == await connection.ask("echo", b"again", timeout=30)


async def test_what_is_sent_before_a_new_connection_is_read_leaves_by_it(
    connection, other, monkeypatch
):
    """A reply that is sent just after a reconnect is not written to the connection that is gone."""
    got = await other.subscribe("news")
    await other.flush()
    client, gate = connection._client, asyncio.Event()
    read_loop = client._read_loop

    async def read_later() -> None:
        await gate.wait()
        await read_loop()

    monkeypatch.setattr(client, "_read_loop", read_later)
    await client.force_reconnect()
    async with asyncio.timeout(60):
        while client.stats["reconnects"] == 0 or not client.is_connected or client._pending:
            await asyncio.sleep(0.01)

    connection.send(b"news", b"here")
    message = await got.next_msg(timeout=10)

    assert b"here" == message.data
    gate.set()


async def test_closing_while_there_is_no_server():
    """While there is no server, what waits to be sent is given up, and closing is no error."""
    async with AsyncExitStack() as stack:
        async with nats.running() as server:
            connection = await stack.enter_async_context(connected([server.url], name="test"))
        async with asyncio.timeout(60):
            while connection._client.is_connected:
                await asyncio.sleep(0.01)

        connection.send(b"nowhere", b"never")

    assert connection._client.is_closed


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("odd", [b"\v", b"\f", b"\x1c", b"\xff", b"\x00"])
async def test_a_reply_subject_with_odd_bytes_disturbs_no_other(connection, server, size, odd):
    """Bytes that are no text, or white space but for the server, are parts of a subject."""
    await echo(connection)
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"CONNECT {}\r\nPUB echo a%bb %d\r\n%b\r\nPING\r\n" % (odd, size, b"x" * size))
    while await reader.readline() != b"PONG\r\n":
        pass

    assert (b"", b"hear me") == await connection.ask("echo", b"hear me", timeout=30)
    assert 0 == connection._client.stats["reconnects"]
    writer.close()


async def test_a_message_larger_than_the_server_allows_is_not_sent(connection):
    """It is dropped, with a line in the log: the server would close the connection."""
    await echo(connection)

    connection.send(b"nowhere", b"x" * (connection.limits.message + 1))

    assert (b"", b"still here") == await connection.ask("echo", b"still here", timeout=30)
    assert 0 == connection._client.stats["reconnects"]


async def test_being_denied_a_subject_is_known():
    """A connection that may not listen to what it wants says so when it is checked."""
    config = (
        'authorization { users = [{user: a, password: a, permissions: {subscribe: "_INBOX.>"}}] }'
    )
    options = {"user": "a", "password": "a"}
    async with (
        nats.running(config=config) as server,
        connected([server.url], name="test", options=options) as connection,
    ):
        await connection.check(2)
        await connection.listen("users.get", lambda *_: None, queue="responder")
        await connection.flush()

        with pytest.raises(UnavailableError, match="permit"):
            await connection.check(2)


async def test_a_server_that_hangs_is_out_of_reach(connection, server):
    """A server that does not answer is known when the connection is checked, in that time."""
    with paused(server.pid), pytest.raises(UnavailableError, match="out of reach"):
        await connection.check(0.2)

    await connection.check(5)


async def test_the_server_that_restarts_is_found_again():
    """After the server is gone and back, listeners listen as before."""
    async with nats.running() as first:
        port = int(first.url.rpartition(":")[2])
        opening = connected([first.url], name="test")
        connection = await opening.__aenter__()
        await echo(connection)
    try:
        async with nats.running(port=port):
            async with asyncio.timeout(60):
                while not connection._client.is_connected:
                    await asyncio.sleep(0.01)

            assert (b"", b"back") == await connection.ask("echo", b"back", timeout=30)
    finally:
        await opening.__aexit__(None, None, None)


async def test_a_server_of_which_nothing_is_heard_is_given_up(server, other, caplog):
    """Where nothing passes for as long as requests are waited for, they are refused at once. What
    was on its way is not delivered when the network is well again, and all works as before.
    """
    got: list[bytes] = []
    port = int(server.url.rpartition(":")[2])
    async with (
        Proxy(port).listening() as proxy,
        connected([f"nats://127.0.0.1:{proxy.port}"], name="test", silence=1) as connection,
    ):
        await echo(connection)
        await connection.listen("stale", lambda *message: got.append(message[-1]))
        await connection.flush()
        proxy.hold()
        connection.send(b"stale", b"theirs")
        await other.publish("stale", b"ours")
        async with asyncio.timeout(60):
            while connection._client.is_connected:
                await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError, match="out of reach"):
            await connection.ask("echo", b"", timeout=60)
        proxy.heal()
        async with asyncio.timeout(60):
            while not connection._client.is_connected:
                await asyncio.sleep(0.01)
        answer = await connection.ask("echo", b"hello", timeout=10)

    assert (b"", b"hello") == answer
    assert [] == got
    assert "lost the connection to NATS: nothing was heard of it for 1 s" in caplog.text


async def test_an_attempt_that_hangs_leaves_no_socket(server, monkeypatch):
    """Of those who did not answer in time no connection stays open."""
    monkeypatch.setattr(login, "MIN_PAUSE", 0.0)
    monkeypatch.setattr(login, "MAX_PAUSE", 0.0)
    async with (
        Proxy(int(server.url.rpartition(":")[2])).listening() as proxy,
        connected([f"nats://127.0.0.1:{proxy.port}"], name="test") as connection,
    ):
        client: Any = connection._client
        client.options["connect_timeout"] = 0.05
        proxy.hold()
        proxy.reset()
        async with asyncio.timeout(60):
            while client._current_server.reconnects < 10:
                await asyncio.sleep(0.01)
        open_now = [each.raddr[1:] for each in psutil.Process().net_connections()]
        proxy.heal()

    assert open_now.count((proxy.port,)) <= 1


async def test_a_server_that_says_nothing_by_itself_is_not_given_up(server):
    """Silence is no sign of death where a PING is answered."""
    asked = 0
    async with connected([server.url], name="test", silence=1) as connection:
        pulse = connection._client.pulse
        ask = pulse._ask

        def counted() -> None:
            nonlocal asked
            asked += 1
            ask()

        pulse._ask = counted
        async with asyncio.timeout(60):
            while asked < BEATS:
                await asyncio.sleep(0.01)

        assert connection.is_connected
        assert 0 == connection.reconnects


async def test_an_outage_keeps_nothing_that_is_too_late(server):
    """What was to be sent while there was no server is sent to the next one only within its time,
    and what says no time is not.
    """
    got: list[bytes] = []
    async with Proxy(int(server.url.rpartition(":")[2])).listening() as proxy:
        async with connected([f"nats://127.0.0.1:{proxy.port}"], name="test") as connection:
            await connection.listen("many", lambda *message: got.append(message[-1]))
            await connection.flush()
            proxy.hold()
            proxy.reset()
            async with asyncio.timeout(60):
                while connection._client.is_connected:
                    await asyncio.sleep(0.01)
            now = asyncio.get_running_loop().time()
            connection.send(b"many", b"early", b"", now + 60)
            connection.send(b"many", b"late", b"", now + 0.01)
            connection.send(b"many", b"whenever")
            await asyncio.sleep(0.02)
            proxy.heal()
            async with asyncio.timeout(60):
                while not connection._client.is_connected:
                    await asyncio.sleep(0.01)
            await connection.flush()
        lost = connection.lost["not_connected"]

    assert [b"early"] == got
    assert 2 == lost


async def test_an_outage_keeps_only_so_much(monkeypatch, caplog):
    """What is sent while there is no server waits for one, up to a bound; the rest is dropped."""
    monkeypatch.setattr(unsent, "MAX_UNSENT", 1000)
    async with nats.running() as first:
        port = int(first.url.rpartition(":")[2])
        opening = connected([first.url], name="test")
        connection = await opening.__aenter__()
        got: list[bytes] = []
        await connection.listen("many", lambda *message: got.append(message[-1]))
    try:
        async with asyncio.timeout(60):
            while connection._client.is_connected:
                await asyncio.sleep(0.01)
        for number in range(100):
            connection.send(b"many", b"%100d" % number, b"", inf)
        async with nats.running(port=port), asyncio.timeout(60):
            while not connection._client.is_connected:
                await asyncio.sleep(0.01)
            await connection.flush()
    finally:
        await opening.__aexit__(None, None, None)

    assert 1 < len(got) < 10
    assert [b"%100d" % number for number in range(len(got))] == got
    assert "too much to send already" in caplog.text


async def test_rotated_credentials_do_not_close_it_for_good():
    """Thrown out because its password was changed, it comes back with the new one."""
    config = 'authorization {{ users = [{{user: a, password: "{}"}}] }}'
    passwords = ["old"]
    options = {"user": "a", "password": lambda: passwords[-1]}
    async with (
        nats.running(config=config.format("old")) as server,
        connected([server.url], name="test", options=options) as connection,
    ):
        await echo(connection)
        file = server.directory / "nats-server.conf"
        file.write_text(file.read_text().replace('"old"', '"new"'))
        passwords.append("new")
        os.kill(server.pid, signal.SIGHUP)

        async with asyncio.timeout(60):
            while (
                connection._client.stats["reconnects"] == 0 or not connection._client.is_connected
            ):
                await asyncio.sleep(0.01)
        assert (b"", b"hello") == await connection.ask("echo", b"hello", timeout=30)


async def test_a_server_that_is_not_there_is_waited_for_only_so_long():
    """Connecting with patience raises UnavailableError when it runs out."""
    with pytest.raises(UnavailableError):
        async with connected(["nats://127.0.0.1:1"], name="test", patience=0.2):
            pass


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"", "it does not answer as a NATS server does"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not answer as a NATS server does"),
        (b"INFO {\r\n", "it does not answer as a NATS server does"),
        (None, "Connection refused"),
    ],
)
async def test_what_is_no_nats_server_is_said_in_words(greeting, words):
    """Not by the name of an exception."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other_server:
        port = other_server.sockets[0].getsockname()[1]
        if greeting is None:
            other_server.close()
        with pytest.raises(UnavailableError) as refused:
            async with connected([f"nats://127.0.0.1:{port}"], name="test", patience=2):
                pass

    assert f"NATS is out of reach: 127.0.0.1:{port}: {words}" == refused.value.message


@pytest.mark.parametrize("said", [b"INFO {}\r\n", b"nothing\r\n"], ids=["good", "bad"])
async def test_a_cancellation_at_the_moment_of_an_answer_is_heeded(said):
    """Cancelled as a server answers, connecting ends, whatever that server says."""
    opening: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        opening[0].cancel()
        while data := await reader.read(2**16):
            if b"PING" in data:
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def connect() -> None:
            async with connected([f"nats://127.0.0.1:{port}"], name="test"):
                await asyncio.Event().wait()

        opening.append(asyncio.create_task(connect()))
        done, _ = await asyncio.wait(opening, timeout=10)

    assert done
    assert opening[0].cancelled()
