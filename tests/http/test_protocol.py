"""What one connection of HTTP may send, and what it is answered: docs/http.md, Limits."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from responder.http import protocol
from responder.http.listener import listening
from tests.raw_http import Answer, RawClient, ask_once, connected, get
from tests.waiting import until

ADDRESS, SETTING = ("127.0.0.1", 0), "RESPONDER_HTTP_LISTEN"


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[str]:
    async with listening(app, ADDRESS, SETTING, drain_timeout=1, **options) as url:
        yield url


async def echo(scope: Any, _: Any, send: Any) -> None:
    """An app that answers what it was asked for."""
    body = b"%b %b?%b" % (scope["method"].encode(), scope["raw_path"], scope["query_string"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Gate:
    """An app that answers once it is opened, and counts its requests."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.opened = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await echo(scope, receive, send)


async def cut_off(client: RawClient, sent: bytes) -> None:
    """Send again and again, until the server has closed."""
    async with asyncio.timeout(60):
        with suppress(ConnectionError):
            while True:
                await client.send(sent)
                await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with served(echo) as url:
        yield url


# Requests on one connection


async def test_requests_sent_at_once_are_answered_in_order(url):
    """Each of a thousand requests that a client sends before it reads is answered, in order."""
    async with connected(url) as client:
        await client.send(b"".join(get(f"/{number}") for number in range(1000)))
        bodies = [(await client.answer()).body for _ in range(1000)]

    assert [f"GET /{number}?".encode() for number in range(1000)] == bodies


PIECES = (
    get("/one"),
    b"\r\n" + get("/two?x"),
    b"POST /three HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nGET /no HTTP/1.1\r\n\r\n",
    get("/four", method="HEAD"),
    b"PUT /five HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    get("/six", b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
    (
        b"POST /seven HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 4\r\n\r\n\r\n\r\n"
    ),
    get("http://x/eight?y"),
    get("/nine", b"Host: x\r\nConnection: close\r\n"),
)
EXPECTED = (
    b"GET /one?",
    b"GET /two?x",
    b"POST /three?",
    b"",
    b"PUT /five?",
    b"GET /six?",
    b"POST /seven?",
    b"GET /eight?y",
    b"GET /nine?",
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 10_000])
async def test_how_a_request_is_cut_into_packets_changes_nothing(url, size):
    """Requests of every kind, sent in pieces of any size, are answered as if sent one by one."""
    sent = b"".join(PIECES)
    async with connected(url) as client:
        for begin in range(0, len(sent), size):
            await client.send(sent[begin : begin + size])
            await asyncio.sleep(0)
        bodies = [
            (await client.answer(bodiless=piece.startswith(b"HEAD"))).body for piece in PIECES
        ]
        rest = await client.rest()

    assert list(EXPECTED) == bodies
    assert b"" == rest


async def test_one_request_of_a_connection_is_under_way_at_a_time():
    """While the first of many requests is being answered, the app has been given no other."""
    gate = Gate()
    async with served(gate) as url, connected(url) as client:
        await client.send(get("/") * 500)
        for _ in range(20):  # other connections are served meanwhile
            async with connected(url) as another:
                await another.send(get("/"))
                begun = gate.begun
                await until(lambda: gate.begun > begun)  # noqa: B023 - awaited at once
        begun = gate.begun
        gate.opened.set()
        for _ in range(500):
            await client.answer()

    assert 21 == begun


async def test_what_is_sent_too_early_stays_in_the_socket():
    """While a request is being answered, its client cannot send without end."""
    gate = Gate()
    async with served(gate) as url, connected(url) as other:
        at = httpx.URL(url)
        with socket.create_connection((at.host, at.port)) as client:
            client.setblocking(False)
            sent, turns = 0, 0
            while turns < 50:  # turns of the server in which nothing more could be sent
                try:
                    sent, turns = sent + client.send(get("/") * 2000), 0
                except BlockingIOError:
                    turns += 1
                assert sent < 50_000_000  # the buffers of the two sockets take some
                assert 400 == (await ask_once(url, b"-")).status
        gate.opened.set()
        await other.ask(get("/"))


async def test_a_client_that_goes_away_is_worked_for_no_more():
    """A request whose connection is lost is given up."""
    gate = Gate()
    async with served(gate) as url, connected(url) as client:
        await client.send(get("/"))
        await until(lambda: gate.begun == 1)
        # This resets the connection; a bare close is no more than the end of sending.
        linger = struct.pack("ii", 1, 0)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.writer.transport.abort()
        await until(lambda: gate.cancelled == 1)


async def test_a_client_that_has_stopped_sending_is_answered():
    """A client that closes its side after its request, as `nc -N` does, still gets the answer."""
    gate = Gate()
    async with served(gate) as url, connected(url) as client:
        await client.send(get("/"))
        client.writer.write_eof()
        await until(lambda: gate.begun == 1)
        gate.opened.set()
        answer = await client.answer()
        rest = await client.rest()

    assert (200, "close") == (answer.status, answer.header("connection"))
    assert b"" == rest


async def test_a_turn_of_the_loop_has_few_requests():
    """Of many requests that arrive at once some begin in each turn of the loop, and all are served.

    What else is to be done in the process, for NATS and for operators, is done in between.
    """
    loop, turn, over = asyncio.get_running_loop(), 0, asyncio.Event()
    begun: Counter[int] = Counter()

    def count() -> None:
        nonlocal turn
        turn += 1
        if not over.is_set():
            loop.call_soon(count)

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        begun[turn] += 1
        await echo(scope, receive, send)

    async with served(noted) as url, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(url)) for _ in range(400)]
        with ExitStack() as gone:
            at = httpx.URL(url)
            for _ in range(100):
                sock = gone.enter_context(socket.create_connection((at.host, at.port)))
                sock.send(get("/gone"))
            for each in clients:
                os.write(each.writer.get_extra_info("socket").fileno(), get("/") * 3)
        count()
        answers = [await each.answer() for each in clients for _ in range(3)]
    over.set()

    assert [b"GET /?"] * 1200 == [each.body for each in answers]
    assert max(begun.values()) <= protocol.AT_ONCE


# Heads


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/" + b"a" * 8191, 200),
        (b"/" + b"a" * 8192, 414),
        (b"/?" + b"a&" * 4095, 200),
        (b"/?" + b"a&" * 30_000, 414),
        (b"/" + b"%01" * 20_000, 414),
        (b"http://x/" + b"a" * 8192, 414),
        (b"/" + b"a" * 500_000, 414),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE", "UNSUBSCRIBE"])
async def test_a_target_over_8_kb_is_414(url, target, status, method):
    """A target of 8,192 bytes is served; a longer one is uri_too_long, and ends the connection."""
    async with connected(url) as client:
        answer = await client.ask(get(target, method=method))

        if status == 200:
            assert 200 == answer.status
        else:
            assert (414, "uri_too_long") == answer.problem
            assert "close" == answer.header("connection")
            assert b"" == await client.rest()


async def test_a_target_without_end_is_refused_while_it_arrives(url):
    """A target is refused as soon as it is too long, whether or not its end ever comes."""
    async with connected(url) as client:
        answer = await client.ask(b"GET /" + b"a" * 9000)

        assert (414, "uri_too_long") == answer.problem
        assert b"" == await client.rest()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"X: y\r\n" * 120, 200),
        (b"X: y\r\n" * 130, 413),
        (b"X: y\r\n" * 16_000, 413),
        (b"X: " + b"y" * 60_000 + b"\r\n", 200),
        (b"X: " + b"y" * 66_000 + b"\r\n", 413),
        (b"X: " + b"y" * 2_000_000 + b"\r\n", 413),
        (b"y" * 66_000 + b": X\r\n", 413),
    ],
)
async def test_headers_are_bounded(url, headers, status):
    """Headers of more than 64 kB or 128 lines are refused, and the answer arrives."""
    async with connected(url) as client:
        answer = await client.ask(get("/", b"Host: x\r\n" + headers))

        assert status == answer.status
        if status != 200:
            assert (413, "payload_too_large") == answer.problem
            assert b"" == await client.rest()


async def test_headers_without_end_are_refused_while_they_arrive(url):
    """A head is refused as soon as it is too large, whether or not its end ever comes."""
    async with connected(url) as client:
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 11_000)

    assert (413, "payload_too_large") == answer.problem


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\nhOST: z\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x@y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\xa0\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a-b_c.example:8080\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: b%C3%BCcher.example\r\n\r\n", 200),
    ],
)
async def test_a_request_names_one_host(url, request_, status):
    """No Host in HTTP/1.1, more than one, or one that is none is 400 (RFC 9112, 3.2)."""
    answer = await ask_once(url, request_)

    assert status == answer.status
    if status != 200:
        assert (400, "invalid_request") == answer.problem
        assert "Host" in answer.json["detail"]


NO_HTTP = (
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
)


@pytest.mark.parametrize("sent", NO_HTTP)
async def test_what_is_no_http_is_a_problem_and_ends_the_connection(url, sent):
    """What cannot be read as a request is 400, and nothing behind it is taken for one."""
    async with connected(url) as client:
        answer = await client.ask(sent + get("/smuggled"))

        assert (400, "invalid_request") == answer.problem
        assert b"" == await client.rest()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello",
        b"SSH-2.0-x",
        b"GETTING-ON-WITH-IT-FOR-EVER-AND-EVER",
    ],
)
async def test_another_protocol_is_refused_at_once(url, sent):
    """A client that speaks TLS, for one, is told before the time for a head has passed."""
    async with connected(url) as client:
        answer = await client.ask(sent)

    assert (400, "invalid_request") == answer.problem


async def test_a_good_request_after_a_bad_one_of_another_client_is_answered(url):
    """What one connection sends wrongly disturbs no other."""
    for bad in (*NO_HTTP, *PIECES, get("/" + "a" * 9000), b"GET / HT"):
        async with connected(url) as client:
            await client.send(bad)
            answer = await ask_once(url, get("/good"))

            assert b"GET /good?" == answer.body


def mutated(sent: bytes, chance: random.Random) -> bytes:
    """Requests with some bytes changed, left out, or doubled."""
    changed = bytearray(sent)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(changed))
        length = chance.choice((1, 1, 2, 5, 40))
        part = bytes(changed[at : at + length])
        changed[at : at + length] = chance.choice(
            (b"", part * 2, bytes([chance.randrange(256)]), b"\r\n", b" ", b":", b"\0", b"%")
        )
    return bytes(changed)


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_sent_is_answered_with_whole_answers(url, seed):
    """Requests with any bytes changed, cut anyhow, get answers, and disturb no other client."""
    chance = random.Random(seed)
    pieces = [piece for piece in (*PIECES, *NO_HTTP) if not piece.startswith(b"HEAD")]
    async with connected(url) as honest:
        for _ in range(40):
            sent = b"".join(
                mutated(chance.choice(pieces), chance) for _ in range(chance.randrange(1, 6))
            )
            async with connected(url) as client:
                with suppress(ConnectionError):
                    while sent:
                        size = chance.choice((1, 3, 20, 500))
                        await client.send(sent[:size])
                        sent = sent[size:]
                    client.writer.write_eof()
                answers = []
                with suppress(ConnectionError):
                    answers = await client.answers()
            good = await honest.ask(get("/honest"))

            assert {200, 400, 413, 414} >= {answer.status for answer in answers}
            assert b"GET /honest?" == good.body


# Bodies


@pytest.mark.parametrize(
    ("headers", "body", "goes_on"),
    [
        (b"Content-Length: 60000\r\n", b"x" * 60_000, True),
        (b"Content-Length: 1000000\r\n", b"x" * 1_000_000, False),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", False),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n", False),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n", b"", False),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_body_is_dropped(url, method, headers, body, goes_on):
    """The answer does not wait for the body; after one that is large or in chunks it is the last.

    What follows the body is another request, or nothing; the body itself never is one.
    """
    async with connected(url) as client:
        await client.send(get("/", b"Host: x\r\n" + headers, method=method))
        answer = await client.answer()
        await client.send(body)
        if goes_on:
            second = await client.ask(get("/second"))
            assert b"GET /second?" == second.body
        else:
            assert "close" == answer.header("connection")
            client.writer.write_eof()
            assert b"" == await client.rest()

    assert f"{method} /?".encode() == answer.body


async def test_a_body_without_end_is_not_read_for_ever(url):
    """A client that goes on sending after its last answer is cut off."""
    async with connected(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        answer = await client.answer()
        await cut_off(client, b"x" * 65536)

    assert 200 == answer.status


# Time


async def test_a_head_arrives_in_time_or_not_at_all(monkeypatch):
    """Clients that send no head, or a part of one, the first or a later one, are closed."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)
    async with served(echo) as url, connected(url) as patient:
        await patient.ask(get("/"))
        for sent in (b"", b"GET / HTTP/1.1\r\nHost:", b"\r\n\r\n", b"GET /"):
            async with connected(url) as client:
                await client.send(sent)
                assert b"" == await client.rest()
        async with connected(url) as client:
            await client.ask(get("/"))
            await client.send(b"GET / HT")
            assert b"" == await client.rest()
        assert b"GET /again?" == (await patient.ask(get("/again"))).body


async def test_a_body_arrives_in_time_or_not_at_all(monkeypatch):
    """A client that never sends the body that it has announced is closed."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)
    async with served(echo) as url, connected(url) as client:
        await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")

        assert b"" == await client.rest()


async def test_an_idle_connection_is_closed_after_a_while():
    """A connection is kept between two requests, and not for ever."""
    async with served(echo, keep_alive=0.2) as url, connected(url) as client:
        assert b"GET /?" == (await client.ask(get("/"))).body
        assert b"GET /?" == (await client.ask(get("/"))).body
        assert b"" == await client.rest()


async def test_an_answer_that_is_not_taken_is_not_kept_for_ever():
    """A client that does not read its answer is closed like an idle one."""
    sent = asyncio.Event()

    async def large(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})
        sent.set()

    async with served(large, keep_alive=0.2) as url, connected(url) as client:
        transport: Any = client.writer.transport
        transport.pause_reading()
        await client.send(get("/"))
        await sent.wait()
        await cut_off(client, b"\r\n")


# Apps


async def silent(_: Any, __: Any, ___: Any) -> None:
    """An app that answers nothing."""


async def failing(_: Any, __: Any, ___: Any) -> None:
    """An app with a bug."""
    raise ValueError


async def forging(_: Any, __: Any, send: Any) -> None:
    """An app that lets a line break into a header."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\r\nset-cookie: z")]}
    )
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("app", [silent, failing, forging])
async def test_an_app_that_does_not_answer_is_an_internal_error(app):
    """Whatever an app does, its request is answered."""
    async with served(app) as url, connected(url) as client:
        answers = [await client.ask(get("/")) for _ in range(2)]

    assert [(500, "internal")] * 2 == [answer.problem for answer in answers]


async def test_an_app_that_is_cancelled_is_a_problem():
    """A request that is still under way when the time for the shutdown has passed is told so."""
    gate = Gate()
    async with AsyncExitStack() as clients:
        async with served(gate) as url:
            client = await clients.enter_async_context(connected(url))
            await client.send(get("/"))
            await until(lambda: gate.begun == 1)
        answer = await client.answer()

    assert (503, "unavailable") == answer.problem


def has_what_every_answer_has(answer: Answer) -> bool:
    return (
        answer.header("cache-control") == "no-store"
        and answer.header("x-content-type-options") == "nosniff"
        and str(answer.header("date")).endswith(" GMT")
    )


@pytest.mark.parametrize(
    "request_",
    [*PIECES, *NO_HTTP, b"hello", get("/" + "a" * 9000), get("/", b"X: y\r\n" * 200)],
)
async def test_every_answer_has_the_headers_that_every_answer_has(url, request_):
    """No answer is stored on the way, none is taken for another type, and each has a date."""
    async with connected(url) as client:
        await client.send(request_)

        assert has_what_every_answer_has(await client.answer(bodiless=request_.startswith(b"HEAD")))


@pytest.mark.parametrize("app", [silent, failing])
async def test_every_failure_has_the_headers_that_every_answer_has(app):
    """The same holds where the app fails."""
    async with served(app) as url:
        assert has_what_every_answer_has(await ask_once(url, get("/")))
