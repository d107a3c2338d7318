"""What a NATS server says is understood, however the bytes are cut and whatever they hold."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from responder.nats.protocol import MAX_LINE, Parser


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def receive(self, *message: object) -> None:
        self.told.append(message)

    async def _process_ping(self) -> None:
        self.told.append("ping")

    async def _process_pong(self) -> None:
        self.told.append("pong")

    async def _process_err(self, err_msg: str) -> None:
        self.told.append(err_msg)

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(info)


def told(*pieces: bytes) -> list[Any]:
    """What a listener is told of the pieces."""

    async def run() -> list[Any]:
        listener = Listener()
        parser = Parser(listener)
        for piece in pieces:
            await parser.parse(piece)
        return listener.told

    return asyncio.run(run())


WORDS = st.binary(min_size=1, max_size=20).filter(lambda word: not set(word) & set(b" \t\r\n"))
MESSAGES = st.tuples(
    st.integers(1, 10**9), WORDS, st.one_of(st.just(b""), WORDS), st.binary(), st.binary()
)


def spoken(sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    """A message as the server sends it."""
    words = [b"HMSG" if headers else b"MSG", subject, b"%d" % sid, *([reply] if reply else [])]
    if headers:
        words.append(b"%d" % len(headers))
    words.append(b"%d" % (len(headers) + len(payload)))
    return b" ".join(words) + b"\r\n" + headers + payload + b"\r\n"


@given(messages=st.lists(MESSAGES, max_size=4), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_messages_of_any_bytes_cut_anywhere(messages, cuts):
    """Every message arrives whole and once, with its words as they were, line feeds and all."""
    stream = b"PING\r\n".join(spoken(*message) for message in messages)
    ends = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(ends)]

    heard = [each for each in told(*pieces) if each != "ping"]

    assert messages == heard


@given(
    messages=st.lists(st.one_of(st.just(b"PING"), MESSAGES), max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=6),
    most=st.integers(1, 40),
)
def test_messages_are_taken_in_order_while_others_wait(messages, cuts, most):
    """What has to wait for the read loop holds up what comes after it, and nothing else."""
    stream = b"".join(
        b"PING\r\n" if message == b"PING" else spoken(*message) for message in messages
    )
    pauses = {cut: pause for cut, pause in cuts if cut < len(stream)}
    ends = [0, *sorted(pauses), len(stream)]

    async def run() -> list[Any]:
        listener = Listener()
        parser = Parser(listener)
        waiting = b""
        for start, end in itertools.pairwise(ends):
            waiting += parser.take(stream[start:end])
            while waiting and pauses.get(end, True):  # the read loop has its turn
                await parser.parse(waiting[:most])
                waiting = waiting[most:]
        return listener.told

    assert [each if each != b"PING" else "ping" for each in messages] == asyncio.run(run())


def test_control_lines():
    """PING, PONG, INFO and errors are told from each other, and +OK says nothing."""
    stream = b"INFO {\"a\":1}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Stale Connection'\r\n"

    assert [{"a": 1}, "ping", "pong", "'stale connection'"] == told(stream)


@pytest.mark.parametrize(
    "line",
    [b"MSG a\r\n", b"MSG a b c\r\n", b"HMSG a 1 2\r\n", b"HELLO\r\n", b"x" * (MAX_LINE + 1)],
)
def test_what_no_server_says_is_an_error(line):
    """Anything else ends the connection, rather than being waited out."""
    with pytest.raises(ProtocolError):
        told(line)


def test_a_reset_forgets_what_had_arrived():
    """After a reconnect the rest of an old message is not taken for the start of a new one."""

    async def run() -> list[Any]:
        listener = Listener()
        parser = Parser(listener)
        await parser.parse(b"MSG a 1 5\r\nhe")
        parser.reset()
        await parser.parse(b"PING\r\n")
        return listener.told

    assert ["ping"] == asyncio.run(run())
