"""The headers of a request are read, or the request is refused: subjects.md, Requests."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import ResponderError
from responder.headers import read_headers

SUBJECTS = ("get", "by_email", "org_list", "get_many")  # which services ask
EVERY_SUBJECT = pytest.mark.parametrize("subject", SUBJECTS)


@dataclass
class Raw:
    """A NATS client that sends what no library would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, subject, payload, block=None, *, reply):
        """Send a message, with these bytes as its headers."""
        if block is None:
            self.writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))
        else:
            size = len(block)
            self.writer.write(
                b"HPUB %b %b %d %d\r\n%b%b\r\n"
                % (subject, reply, size, size + len(payload), block, payload)
            )
        await self.writer.drain()

    async def ask(self, subject, payload, block=None, *, reply=b"_INBOX.raw"):
        """Send a request; return the headers of its reply and its body."""
        self.writer.write(b"SUB %b 1\r\nUNSUB 1 1\r\n" % reply)
        await self.send(subject, payload, block, reply=reply)
        while True:
            line = await self.reader.readline()
            if line.startswith((b"MSG ", b"HMSG ")):
                break
            assert not line.startswith(b"-ERR"), line
            assert line, "the server has closed the connection"
        verb, *_, size = line.split()
        content = await self.reader.readexactly(int(size) + 2)
        head = int(line.split()[-2]) if verb == b"HMSG" else 0
        return content[:head], content[head:-2]


@asynccontextmanager
async def raw(service):
    """Connect a raw client."""
    host, port = service.nats.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(
        b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,'
        b'"protocol":1}\r\n'
    )
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


UNDECODABLE = {
    "not-utf8": b"NATS/1.0\r\nX: \xff\r\n\r\n",
    "name-not-utf8": b"NATS/1.0\r\n\xff: x\r\n\r\n",
    "not-nats": b"HTTP/1.1\r\nX: y\r\n\r\n",
    "nats-2": b"NATS/2.0\r\nX: y\r\n\r\n",
    "garbage": b"\x00\x01\x02\xff",
    "no-version": b"X: y\r\n\r\n",
    "no-colon": b"NATS/1.0\r\nhello\r\n\r\n",
    "no-name": b"NATS/1.0\r\n: hello\r\n\r\n",
    "blank-before-the-colon": b"NATS/1.0\r\nAuthorization : Bearer x\r\n\r\n",
    "folded": b"NATS/1.0\r\nX: y\r\n Authorization: Bearer x\r\n\r\n",
    "empty": b"\r\n",
    "blank": b" ",
}


@pytest.mark.parametrize("block", UNDECODABLE.values(), ids=UNDECODABLE)
async def test_headers_that_cannot_be_decoded_are_invalid(people_service, cast, block):
    """A request whose headers cannot be decoded is invalid_request, whatever it asks for."""
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "invalid_request" == json.loads(body)["code"]


async def worker_connection(service):
    """Return the server's number of the worker's connection, which a reconnect would change."""
    ports = service.nats.directory / f"nats-server_{service.nats.pid}.ports"
    (url,) = json.loads(ports.read_text())["monitoring"]
    async with httpx.AsyncClient(trust_env=False) as client:
        connections = (await client.get(f"{url}/connz")).json()["connections"]
    (number,) = (each["cid"] for each in connections if each.get("name") == "responder")
    return number


async def test_headers_that_cannot_be_decoded_disturb_no_other(start_with, cast):
    """While such requests pour in, all others are answered, over the same connection."""
    service = await start_with(config='http: "127.0.0.1:-1"')
    before = await worker_connection(service)
    bad = list(product(SUBJECTS, UNDECODABLE.values(), range(20)))
    async with raw(service) as client:
        for subject, block, _ in bad:
            await client.send(f"users.{subject}".encode(), b"x", block, reply=b"_INBOX.nobody")
        answers = await asyncio.gather(
            *(service.ask("users.get", {"id": cast.owner.id}) for _ in range(300))
        )
        await client.ask(b"users.get", b"nobody")

    stats = (await service.ask("$SRV.STATS.users")).json
    assert [cast.owner.id] * 300 == [answer.json["id"] for answer in answers]
    assert len(bad) + 1 == sum(endpoint["num_errors"] for endpoint in stats["endpoints"])
    assert before == await worker_connection(service)


async def test_a_reply_subject_that_is_not_utf8_does_no_harm(start_with, cast):
    """A reply wanted on a subject of odd bytes is sent there, and the service lives on."""
    service = await start_with(config='http: "127.0.0.1:-1"')
    before = await worker_connection(service)
    async with raw(service) as client:
        payload = cast.owner.id.encode()
        bare = await client.ask(b"users.get", payload, reply=b"_INBOX.\xff\xfe")
        block = b"NATS/1.0\r\nX: y\r\n\r\n"
        with_headers = await client.ask(b"users.get", payload, block, reply=b"_INBOX.\xc3\x28")

    assert [cast.owner.id] * 2 == [json.loads(body)["id"] for _, body in (bare, with_headers)]
    assert before == await worker_connection(service)


async def test_a_service_description_asked_for_on_odd_bytes_does_no_harm(people_service):
    """The same holds for $SRV."""
    async with raw(people_service) as client:
        _, body = await client.ask(
            b"$SRV.PING", b"", b"NATS/1.0\r\nX: \xff\r\n\r\n", reply=b"_INBOX.\xff\xfe"
        )

    assert "users" == json.loads(body)["name"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "rubbish",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ü" * 5_000,
    ],
)
async def test_traceparent_is_never_required(people_service, cast, value):
    """A trace that is absent, good or rubbish changes no answer."""
    headers = {"traceparent": value} if value is not None else None
    answer = await people_service.ask("users.get", {"id": cast.owner.id}, headers=headers)

    assert cast.owner.id == answer.json["id"]


async def test_other_headers_are_ignored(people_service, cast):
    """Headers of others, even repeated or empty or with a status, change no answer."""
    block = b"NATS/1.0 100 Idle\r\nX: 1\r\nx: 2\r\nNats-Service-Error-Code: 400\r\nEmpty:\r\n\r\n"
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert cast.owner.id == json.loads(body)["id"]


# A caller that sends a token is never answered as a service.

TOKENS = {
    "bearer": ("Authorization: Bearer a.b.c", "unavailable"),
    "any-case-of-the-name": ("authorization: Bearer a.b.c", "unavailable"),
    "capitals": ("AUTHORIZATION: Bearer a.b.c", "unavailable"),
    "any-case-of-the-scheme": ("aUthOrization: bearer a.b.c", "unavailable"),
    "no-blank-after-the-colon": ("Authorization:Bearer a.b.c", "unavailable"),
    "empty": ("Authorization:", "unauthenticated"),
    "blank": ("authorization:   ", "unauthenticated"),
    "no-token": ("Authorization: Bearer", "unauthenticated"),
    "blank-token": ("Authorization: Bearer  ", "unauthenticated"),
    "no-scheme": ("Authorization: a.b.c", "unauthenticated"),
    "another-scheme": ("Authorization: Basic eDp5", "unauthenticated"),
    "a-longer-scheme": ("Authorization: BearerToken a.b.c", "unauthenticated"),
    "another-blank": ("Authorization: Bearer\u00a0a.b.c", "unauthenticated"),
    "a-tab": ("Authorization: Bearer\ta.b.c", "unauthenticated"),
    "another-blank-before-the-token": ("Authorization: Bearer \u2003a.b.c", "unauthenticated"),
    "another-blank-behind-the-token": ("Authorization: Bearer a.b.c\u0085", "unauthenticated"),
    "two-tokens": ("Authorization: Bearer a.b.c a.b.c", "unauthenticated"),
    "repeated": (
        "Authorization: Bearer a.b.c\r\nAuthorization: Bearer a.b.c",
        "unauthenticated",
    ),
    "repeated-in-other-cases": (
        "Authorization: Bearer a.b.c\r\nX: y\r\nauthorization: Bearer a.b.c",
        "unauthenticated",
    ),
    "repeated-and-empty": ("Authorization: Bearer a.b.c\r\nauthorization:", "unauthenticated"),
}


@pytest.mark.parametrize(("lines", "code"), TOKENS.values(), ids=TOKENS)
@EVERY_SUBJECT
async def test_a_caller_with_a_token_is_never_a_service(
    people_service, requests, subject, lines, code
):
    """A token in any form is refused while there are no keys to verify it with."""
    block = f"NATS/1.0\r\n{lines}\r\n\r\n".encode()
    payload = json.dumps(requests[subject]).encode()
    async with raw(people_service) as client:
        _, body = await client.ask(f"users.{subject}".encode(), payload, block)

    assert code == json.loads(body).get("code")
    assert "a.b.c" not in body.decode()


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\nAuthorization: Bearer a.b.c\n\n",
        b"NATS/1.0\nAuthorization: Bearer a.b.c\r\n\r\n",
        b"NATS/1.0\r\nX: y\nAuthorization: Bearer a.b.c\r\n\r\n",
    ],
)
async def test_a_token_behind_odd_line_ends_is_never_overlooked(people_service, cast, block):
    """Lines that end as other readers of headers allow are refused, not passed over."""
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "code" in json.loads(body)


# Timeouts.


async def test_a_caller_may_want_its_answer_sooner(start_with, cast, locked):
    """The timeout a caller sends, in any case of its name, is when it is answered at the latest."""
    service = await start_with(RESPONDER_TIMEOUT="30")
    names = ("Responder-Timeout-Ms", "responder-timeout-ms", "RESPONDER-TIMEOUT-MS")
    now = asyncio.get_running_loop().time
    async with locked(service):
        start = now()
        answers = await asyncio.gather(
            *(service.ask("users.get", cast.owner.id, headers={name: "100"}) for name in names)
        )
        elapsed = now() - start

    assert [("timeout", "504")] * 3 == [
        (answer.code, answer.headers["Nats-Service-Error-Code"]) for answer in answers
    ]
    assert 0.09 < elapsed < 15  # the loop's time is in milliseconds


async def test_a_caller_may_not_wait_longer_than_the_worker_allows(start_with, cast, locked):
    """A timeout beyond the worker's is cut to it."""
    service = await start_with(RESPONDER_TIMEOUT="0.3")
    now = asyncio.get_running_loop().time
    async with locked(service):
        start = now()
        answer = await service.ask(
            "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": "60000"}
        )
        elapsed = now() - start

    assert "timeout" == answer.code
    assert elapsed < 30


async def test_a_generous_timeout_is_fine(people_service, cast):
    """A timeout of many years is one of the worker."""
    answer = await people_service.ask(
        "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": "9" * 12}
    )

    assert cast.owner.id == answer.json["id"]


@pytest.mark.parametrize("value", ["0", "00"])
async def test_a_caller_who_has_given_up_is_told_so(people_service, cast, value):
    """With no time left the answer is timeout."""
    answer = await people_service.ask(
        "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": value}
    )

    assert "timeout" == answer.code


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-1", "+1", "1.5", "1e3", "0x10", "1_000", "1 000", "٣", "²", "9" * 400, "NaN"],
)
async def test_a_timeout_that_is_no_number_is_invalid(people_service, cast, value):
    """Anything but a whole number of milliseconds is invalid_request, and names the header."""
    block = f"NATS/1.0\r\nresponder-timeout-ms: {value}\r\n\r\n".encode()
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    answer = json.loads(body)
    assert "invalid_request" == answer.get("code")
    assert "Responder-Timeout-Ms" in answer["message"]


async def test_two_timeouts_are_invalid(people_service, cast):
    """A repeated timeout is invalid_request, even with the same value and in another case."""
    block = b"NATS/1.0\r\nResponder-Timeout-Ms: 1000\r\nresponder-timeout-ms: 1000\r\n\r\n"
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "invalid_request" == json.loads(body).get("code")


LOG_EVERYTHING = """
do $$ begin
    execute format('alter database %I set log_min_duration_statement = 0', current_database());
end $$
"""


async def test_work_whose_caller_has_given_up_never_reaches_postgresql(
    start_with, cast, postgres, locked
):
    """What has expired while it waited for a connection is not looked up any more."""
    service = await start_with(LOG_EVERYTHING, RESPONDER_CONNECTIONS="1")
    async with locked(service):
        first = asyncio.create_task(service.ask("users.get", "the first in line"))
        await service.nc.flush()
        sooner = {"Responder-Timeout-Ms": "50"}
        given_up = await asyncio.gather(
            service.ask("users.get", "given-up-at-once", {"Responder-Timeout-Ms": "0"}),
            service.ask("users.by_email", "given-up@example.com", sooner),
            service.ask("users.org_list", "given-up-list", sooner),
            service.ask("users.get_many", {"ids": ["given-up-many"]}, sooner),
        )
    await first
    last = await service.ask("users.get", "the last in line")

    log = postgres.log.read_text()
    assert ["timeout"] * 4 == [answer.code for answer in given_up]
    assert "not_found" == last.code
    assert "the last in line" in log
    assert "given-up" not in log


LINES = (
    "Authorization: Bearer a.b-c_d",
    "authorization: Bearer a.b",
    "Authorization: bearer a.b",
    "Authorization: Bearer  a.b",
    "Authorization: Bearer a b",
    "Authorization: Basic a",
    "Authorization: Bearer \x1f",
    "Authorization: Bearer \xe4",
    "traceparent: 00-1-2-01",
    "traceparent:",
    "Responder-Timeout-Ms: 1950",
    "Responder-Timeout-Ms: 0",
    "Responder-Timeout-Ms: 00",
    "Responder-Timeout-Ms: -1",
    "Responder-Timeout-Ms: \u0661",
    "Responder-Timeout-Ms: 1234567890123",
    "X: y",
    "no header",
    "",
)


def read(block: bytes) -> object:
    try:
        return read_headers(block)
    except ResponderError as error:
        return type(error), error.message


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=4),
    first=st.sampled_from(["NATS/1.0", "NATS/1.0 ", "NATS/1.0 503", "NATS/1.1"]),
    between=st.sampled_from(["\r\n", "\n", "\r"]),
    end=st.sampled_from(["\r\n\r\n", "\r\n", "\n\n", ""]),
)
def test_the_quick_and_the_long_way_of_reading_headers_agree(lines, first, between, end):
    """What clients send usually is read in one step, and never as anything else."""
    block = (between.join([first, *lines]) + end).encode()
    quick = read(block)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("responder.headers._COMMON", re.compile(rb"(?!)"))
        long = read(block)

    assert long == quick
