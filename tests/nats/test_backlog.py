"""How old what arrives is: never older than it can be, and known where much is waiting."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import nats as nats_py
import pytest
from nats.aio.client import PING_PROTO

from responder.dev import nats
from responder.nats import hardened, turns
from responder.nats.backlog import INTERVAL, MUCH, Backlog
from responder.nats.connection import connected
from responder.nats.pulse import Pulse
from responder.nats.senders import half_a_share, sender
from tests.pausing import paused

MANY = 100_000


class Clock:
    """A backlog, and the time that it sees."""

    def __init__(self) -> None:
        self.now = 100.0
        self.backlog = Backlog(lambda: self.now)

    def read(self, size: int, *, after: float = 0.0) -> bool:
        self.now += after
        return self.backlog.begin(size)


def test_what_is_read_is_as_old_as_the_first_ping_without_pong():
    """While large reads go on the age grows, and with each PONG it is that of the next PING."""
    clock = Clock()

    sent = [clock.read(MUCH, after=after) for after in (0.0, INTERVAL / 2, INTERVAL, 0.1)]
    before = clock.backlog.age
    clock.backlog.end()
    after = clock.backlog.age

    assert [True, False, True, True] == sent
    assert pytest.approx(0.1 + 1.5 * INTERVAL) == before
    assert pytest.approx(0.1) == after


def test_what_comes_one_by_one_is_fresh():
    """A PONG that is late says nothing of small reads, nor of the first large one after them."""
    clock = Clock()
    clock.read(MUCH)

    ages = []
    for size in (100, MUCH):
        clock.read(size, after=1.0)
        ages.append(clock.backlog.age)

    assert [0.0, 0.0] == ages


def test_a_late_pong_does_not_make_a_small_read_look_old():
    """Of two PINGs the first is answered within a small read: what stands behind it is fresh."""
    clock = Clock()
    for after in (0.0, 1.0):
        clock.read(MUCH, after=after)
    clock.read(100, after=1.0)

    clock.backlog.end()

    assert 0.0 == clock.backlog.age


def test_nothing_is_older_than_the_moment_at_which_nothing_was_there():
    """A PING that waits in a busy server does not make look old what came after a pause."""
    clock = Clock()
    clock.read(MUCH)
    clock.now += 1.0
    clock.backlog.caught_up()

    clock.read(MUCH, after=0.25)

    assert 0.25 == clock.backlog.age


def test_another_connection_has_no_age():
    """What was measured on a connection says nothing of the next."""
    clock = Clock()
    clock.read(MUCH)
    clock.read(MUCH, after=1.0)

    clock.backlog.reset()

    assert 0.0 == clock.backlog.age
    assert clock.read(MUCH)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(b"_INBOX.abc.1", b"_INBOX.abc"), (b"_INBOX.abc.x.y", b"_INBOX.abc.x"), (b"plain", b"")],
)
def test_the_sender_of_a_reply_subject(reply, expected):
    """What comes before the last dot is that of a connection."""
    assert expected == sender(reply)


def test_half_a_share():
    """Of 2,000 requests from eleven senders half an equal share is 91."""
    assert 90 < half_a_share([1980, *[2] * 10]) < 91


# With a server.


async def test_a_backlog_is_seen_to_grow_old_and_to_pass():
    """What waits behind a receiver that takes its time is known to be old; once it is read, what
    comes next is fresh.
    """
    ages: list[float] = []
    async with nats.running() as server, connected([server.url], name="test") as connection:
        done = asyncio.Event()

        def receive(*message: bytes) -> None:
            ages.append(connection.backlog.age)
            if message[-1] == b"x" and len(ages) % 500 == 0:
                time.sleep(0.01)  # it is busy
            if message[-1] == b"last":
                done.set()

        await connection.listen("many", receive)
        await connection.flush()
        url = urlsplit(server.url)
        with socket.create_connection((url.hostname, url.port)) as client:
            await asyncio.to_thread(
                client.sendall, b"CONNECT {}\r\n" + b"PUB many 1\r\nx\r\n" * MANY
            )
            async with asyncio.timeout(60):
                while len(ages) < MANY:
                    await asyncio.sleep(0.01)
                client.sendall(b"PUB many 4\r\nlast\r\n")
                await done.wait()

    assert MANY + 1 == len(ages)
    assert max(ages) > 0.1
    assert 0.0 == ages[-1]


async def test_a_server_that_does_not_read_is_sent_only_so_much(monkeypatch, caplog):
    """What a server that stands still does not read is kept up to a bound, then dropped and
    counted; once it reads again, all is as before.
    """
    monkeypatch.setattr(hardened, "MAX_UNREAD", 1_000_000)
    async with nats.running() as server, connected([server.url], name="test") as connection:
        client = connection._client
        with paused(server.pid):
            async with asyncio.timeout(60):
                while not connection.lost["unread"]:
                    connection.send(b"nowhere", b"x" * 100_000)
                    connection.send_to_all([b"nowhere"], b"x", b"NATS/1.0\r\n\r\n")
                    assert client._unread + client._pending_data_size <= 1_000_000
                    await asyncio.sleep(0)
        await connection.flush()
        lost = connection.lost["unread"]
        connection.send(b"nowhere", b"x")
        await connection.flush()

    assert lost == connection.lost["unread"]
    assert "the NATS server does not read what is sent" in caplog.text


async def test_nothing_is_read_while_too_much_waits_to_leave(monkeypatch):
    """Requests whose answers would not leave are left to others, until they do."""
    got: list[bytes] = []
    async with nats.running() as server, connected([server.url], name="test") as connection:
        await connection.listen("few", lambda *message: got.append(message[-1]))
        await connection.flush()
        client = await nats_py.connect(server.url)
        monkeypatch.setattr(turns, "MANY_UNREAD", -1)
        for number in range(3):
            await client.publish("few", b"%d" % number)
            await client.flush()
            await asyncio.sleep(0.05)
        before = list(got)
        monkeypatch.undo()
        async with asyncio.timeout(60):
            while len(got) < 3:
                await asyncio.sleep(0.01)
        await client.close()

    assert [b"0"] == before
    assert [b"0", b"1", b"2"] == got


class Stream(asyncio.Transport):
    """Tells whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = True

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


async def test_reading_ends_once_it_has_taken_its_time(monkeypatch):
    """Large reads go on for a while, in which what is too much is refused; then others have turns,
    and there is reading again.
    """
    stream = Stream()
    times = [100.0, 100.0 + turns.READING / 2, 100.0 + 2 * turns.READING]
    clock = iter(times)
    monkeypatch.setattr(turns, "perf_counter", lambda: next(clock))
    pulse = Pulse(10, ask=asyncio.Event().set, give_up=asyncio.Event().set)
    pulse.stop()
    connection = turns.Turns(stream, Backlog(lambda: 0.0), pulse)

    read = []
    for _ in times:
        connection.read(MUCH)
        read.append(stream.read)
    rested = 0
    while not stream.read:
        await asyncio.sleep(0)
        rested += 1

    assert [True, True, False] == read
    assert turns.RESTING < rested <= turns.RESTING + 1


async def test_a_ping_that_was_not_sent_is_not_sent_to_the_next_server():
    """After a reconnect no PONG arrives but those that are waited for."""
    async with nats.running() as first:
        port = int(first.url.rpartition(":")[2])
        opening = connected([first.url], name="test")
        connection = await opening.__aenter__()
        await connection.listen("echo", lambda _, reply, *__: connection.send(reply, b"back"))
    client: Any = connection._client
    pongs: list[int] = []  # for each PONG, how many are waited for
    process_pong = client._process_pong

    async def counted() -> None:
        pongs.append(len(client._pongs))
        await process_pong()

    client._process_pong = counted
    try:
        async with asyncio.timeout(60):
            while client.is_connected:
                await asyncio.sleep(0.01)
        client._append(PING_PROTO)
        async with nats.running(port=port), asyncio.timeout(60):
            while not client.is_connected:
                await asyncio.sleep(0.01)
            await connection.ask("echo", b"", timeout=10)
    finally:
        await opening.__aexit__(None, None, None)

    assert 0 not in pongs
