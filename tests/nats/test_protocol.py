"""What a NATS server says is understood, however the bytes are cut and whatever they hold."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from responder.nats.backlog import Backlog
from responder.nats.protocol import MAX_LINE, Parser


class Listener:
    """Writes down what it is told."""

    def __init__(self, full: Collection[int] = ()) -> None:
        self.told: list[Any] = []
        self.refused: list[tuple[int, bytes]] = []
        self.full = full  # the subscriptions that have no room
        self.spare = 0  # how many of those who are spared there is room for
        self.spared: list[bytes] = []  # the reply subjects of the others
        self.measuring = 0  # how many PONGs are those of measurements
        self.backlog = Backlog(lambda: 0.0)

    def receive(self, sid: int, *message: bytes) -> bool:
        self.told.append((sid, *message))
        if self.backlog.sparing and self.spare:
            self.spare -= 1
            return False
        if self.backlog.sparing:
            self.spared.append(message[1])
        return sid in self.full

    def refuse(self, sid: int, replies: list[bytes]) -> None:
        self.refused += [(sid, reply) for reply in replies]

    def receive_pong(self) -> bool:
        self.measuring -= 1
        return self.measuring >= 0

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


# Refused unread: subscription 7 has no room, 8 has.

FULL, ROOMY = 7, 8
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"MSG evil 7 victim 0\r\n\r\n", b"\r\nMSG evil 7 victim 2\r\nxx", b"PONG\r\n"]
    ),
)
REQUESTS = st.tuples(
    st.sampled_from([FULL, ROOMY]),
    st.booleans(),
    st.sampled_from([b"", b"NATS/1.0\r\n\r\n"]),
    PAYLOADS,
)


def received(listener: Listener, pieces: list[bytes]) -> Listener:
    """The listener, once it was told of pieces that were read one by one."""

    async def run() -> None:
        parser = Parser(listener)
        for piece in pieces:
            await parser.parse(parser.take(piece))

    asyncio.run(run())
    return listener


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces."""
    ends = [0, *sorted(each % (len(stream) + 1) for each in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


@given(requests=st.lists(REQUESTS, max_size=12), cuts=st.lists(st.integers(0, 2000), max_size=4))
def test_what_is_refused_unread_is_refused_once(requests, cuts):
    """However the bytes are cut and whatever payloads hold: each request to a full subscription is
    received or refused, once; each to another is received; and nothing else is ever refused.
    """
    replies = [
        b"_INBOX.%d.%d" % (number % 3, number) if wanted else b""
        for number, (_, wanted, _, _) in enumerate(requests)
    ]
    stream = b"".join(
        spoken(sid, b"users.get", reply, headers, payload)
        for (sid, _, headers, payload), reply in zip(requests, replies, strict=True)
    )

    listener = received(Listener([FULL]), cut(stream, cuts))

    of_full = [message[2] for message in listener.told if message[0] == FULL and message[2]]
    of_full += [reply for sid, reply in listener.refused if sid == FULL]
    sent = [
        (sid, b"users.get", reply, headers, payload)
        for (sid, _, headers, payload), reply in zip(requests, replies, strict=True)
    ]
    assert sorted(each[2] for each in sent if each[0] == FULL and each[2]) == sorted(of_full)
    assert {FULL} >= {sid for sid, _ in listener.refused}
    # What wants no reply is received, unless it came with what was refused.
    assert [each for each in sent if each[0] == ROOMY] == [
        each for each in listener.told if each[0] == ROOMY
    ]
    assert set(listener.told) <= set(sent)


def asked(number: int, payload: bytes = b"x", headers: bytes = b"") -> bytes:
    """A request to the full subscription, from the one sender of many."""
    return spoken(FULL, b"users.get", b"_INBOX.a.%d" % number, headers, payload)


def test_a_payload_that_looks_like_a_message_is_passed_over():
    """A sender cannot have us publish to another's subject by what a payload holds."""
    trap = b"\r\nMSG users.get 7 victim 1\r\nx\r\n"

    listener = received(Listener([FULL]), [asked(0) + asked(1, trap) + asked(2, trap, b"NATS/1.0")])

    assert [(FULL, b"_INBOX.a.1"), (FULL, b"_INBOX.a.2")] == listener.refused


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\n\r\n"])
def test_what_wants_no_reply_is_not_refused(headers):
    """The sizes in its line are not taken for a reply subject; what follows is refused still."""
    silent = spoken(FULL, b"users.get", b"", headers, b"x")

    listener = received(Listener([FULL]), [asked(0) + silent + asked(1)])

    assert [(FULL, b"_INBOX.a.1")] == listener.refused


def test_a_pong_amid_what_is_refused():
    """That of a measurement is taken in its place, and what follows is looked at anew; any other
    waits, with all that follows.
    """
    stream = asked(0) + asked(1) + b"PONG\r\n" + asked(2) + asked(3) + b"PONG\r\n" + asked(4)
    listener = Listener([FULL])
    listener.measuring = 1
    parser = Parser(listener)

    rest = parser.take(stream)

    assert [(FULL, b"_INBOX.a.%d" % number) for number in (1, 3)] == listener.refused
    assert b"PONG\r\n" + asked(4) == rest


@pytest.mark.parametrize("room", [0, 1, 2])
def test_those_who_send_little_are_spared(room):
    """Of what comes with a flood, the requests of others than its sender are received, up to one
    for which there is no room.
    """
    flood = [asked(number) for number in range(50)]
    others = [spoken(FULL, b"users.get", b"_INBOX.b.%d" % n, b"", b"x") for n in range(3)]
    listener = Listener([FULL])
    listener.spare = room

    received(listener, [b"".join([*flood[:25], *others, *flood[25:]])])

    spared = [b"_INBOX.b.%d" % number for number in range(3)]
    of_flood = [b"_INBOX.a.%d" % number for number in range(1, 50)]
    assert [b"_INBOX.a.0", *spared[: room + 1]] == [each[2] for each in listener.told]
    assert sorted(of_flood + spared[room + 1 :]) == sorted(each[1] for each in listener.refused)


def test_those_who_send_little_of_another_kind_are_spared():
    """What comes with a flood for another subscription is spared, unless it is a flood itself."""
    flood = [asked(number) for number in range(50)]
    other = [spoken(ROOMY, b"users.org_list", b"_INBOX.b.%d" % n, b"", b"x") for n in range(3)]
    more = [spoken(ROOMY, b"users.org_list", b"_INBOX.a.%d" % n, b"", b"x") for n in range(50)]
    listener = Listener([FULL])

    received(listener, [b"".join([*flood, other[0], *more, *other[1:]])])

    assert [b"_INBOX.b.0", b"_INBOX.b.1", b"_INBOX.b.2"] == listener.spared
    assert not listener.backlog.sparing


def test_those_who_send_little_are_spared_in_a_read_of_their_own():
    """A small read after a flood tells of no flood; its sender sends little all the same."""
    flood = b"".join(asked(number) for number in range(50))
    others = b"".join(spoken(FULL, b"users.get", b"_INBOX.b.%d" % n, b"", b"x") for n in range(3))
    listener = Listener([FULL])
    listener.spare = 2

    received(listener, [flood, others])

    assert [b"_INBOX.b.%d" % number for number in range(3)] == [
        each[2] for each in listener.told[1:]
    ]
    assert {b"_INBOX.a"} == {each[1].rpartition(b".")[0] for each in listener.refused}


def test_reply_subjects_of_all_forms_are_refused():
    """With a dot or without, with headers or without, each is refused by its very name."""
    replies = [b"plain", b"_INBOX.a.b.1", b"_INBOX.a.1", b".x", b"x.", b"7"]
    stream = b"".join(
        spoken(FULL, subject, reply, headers, b"x")
        for subject in (b"users.get", b"users")
        for reply in replies
        for headers in (b"", b"NATS/1.0\r\n\r\n")
    )

    listener = received(Listener([FULL]), [asked(0) + stream])

    of_all = sorted(replies * 4)
    told = [each[2] for each in listener.told[1:]]
    assert of_all == sorted(told + [each[1] for each in listener.refused])


def test_the_next_read_begins_anew():
    """What comes with a later read is received, and may be refused again."""
    listener = received(Listener([FULL]), [asked(0) + asked(1), asked(2) + asked(3)])

    assert [b"_INBOX.a.0", b"_INBOX.a.2"] == [each[2] for each in listener.told]
