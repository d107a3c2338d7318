"""Whatever is published on the subjects, or said by a server, honest callers get right answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from responder import wire
from responder.app import serving
from responder.client import UsersClient
from responder.dev import nats
from responder.dev.tokens import Mint
from responder.endpoints import ENDPOINTS
from responder.errors import RequestTimeoutError, UnavailableError
from responder.settings import Settings
from tests.fuzz.budget import TIMEOUT, Budget, chance
from tests.fuzz.honest import Honest
from tests.fuzz.mutation import cut, mutated

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(TIMEOUT)]

ATTACKERS = 6
_numbers = itertools.count()
PATIENCE = 60  # seconds
CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}'
    b"\r\n"
)
WORDS = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b'"', b"{", b"}", b"[", b"]", b",", b"null"),
    *(b"\xff", b"\xc2\xa0", b"\\ud800", b"\\u0000", b"1e999", b"-1", b"NATS/1.0", b"NATS/1.0 503"),
    *(b"Authorization: Bearer x\r\n", b"authorization:\r\n", b"Responder-Timeout-Ms: 0\r\n"),
    *(
        b"Responder-Timeout-Ms: x\r\n",
        b"traceparent: \xff\r\n",
        b'"organization_id":"x",',
        b'"ids":[]',
    ),
    *(
        b"MSG users.get 1 1\r\nx\r\n",
        b"Nats-Service-Error-Code: 404\r\n",
        b"[" * 5000,
        b"x" * 60_000,
    ),
]
SERVED = [f"users.{each.name}".encode() for each in ENDPOINTS]
OTHERS = (
    *(b"$SRV.PING", b"$SRV.INFO.users", b"$SRV.STATS.users", b"$SRV.PING.users.x", b"users"),
    *(b"users.nothing", b"users.get.x", b"USERS.get"),
)
# Where a reply may be wanted that nobody waits for; the server passes each of them on.
ODD = (
    *(
        b"users.get",
        b"users.whoami",
        b"$SRV.PING",
        b"_INBOX.\xff\xfe",
        b"_INBOX.\x0c",
        b"a..b",
        b">",
    ),
    *(b".", b"users.*", b"_INBOX." + b"x" * 3000, b"$JS.API.INFO", b"$SYS.REQ.SERVER.PING"),
)


@dataclass
class Attacker:
    """A connection to the server, on which requests are sent, and their replies counted."""

    url: str
    requests: list[bytes]  # payloads
    blocks: list[bytes]  # of headers
    numbers: random.Random
    sent: int = 0
    inbox: bytes = b""  # of the present connection
    expected: dict[bytes, bytes] = field(default_factory=dict)  # requests, by reply subject

    async def attack(self, budget: Budget) -> None:
        """Send, and read what comes back, until the time is over."""
        while budget.left:
            host, port = self.url.removeprefix("nats://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            self.expected.clear()
            self.inbox = b"_INBOX.fuzz%d" % next(_numbers)
            try:
                await reader.readline()
                writer.write(CONNECT + b"SUB %b.* 1\r\n" % self.inbox)
                while budget.left:
                    broken = self._send(writer)
                    await writer.drain()
                    try:
                        async with asyncio.timeout(PATIENCE):
                            await self._read(reader, to_the_end=broken)
                    except TimeoutError:
                        pytest.fail(f"no answer to {self.expected}, {broken}")
                    if broken:
                        break
            except ConnectionError:
                pass
            finally:
                writer.close()

    def _send(self, writer: asyncio.StreamWriter) -> bool:
        """Send some requests; tell whether the server will take offence."""
        numbers, messages = self.numbers, []
        for _ in range(numbers.randrange(1, 20)):
            odd = numbers.random() < 0.1
            subject = numbers.choice((*SERVED, *OTHERS) if odd else SERVED)
            reply = numbers.choice(ODD) if odd else self._inbox()
            payload = mutated(numbers.choice(self.requests), numbers, WORDS)
            block = mutated(numbers.choice(self.blocks), numbers, WORDS)
            if numbers.random() < 0.4 or not block:
                head = b"PUB %b %b %d\r\n" % (subject, reply, len(payload))
                block = b""
            else:
                sizes = (len(block), len(block) + len(payload))
                head = b"HPUB %b %b %d %d\r\n" % (subject, reply, *sizes)
            messages.append(head + block + payload + b"\r\n")
            if reply in self.expected:
                self.expected[reply] = messages[-1]
            self.sent += 1
        broken = numbers.random() < 0.02
        if broken:
            size = numbers.choice((0, 1, 7, 10**7, 10**12))
            messages.append(b"HPUB users.get %b %d 5\r\nNATS/1.0\r\n\r\n" % (self._inbox(), size))
        data = b"".join(messages)
        for piece in cut(data, numbers):
            writer.write(piece)
        return broken

    def _inbox(self) -> bytes:
        reply = b"%b.%d" % (self.inbox, self.sent)
        self.expected[reply] = b""
        return reply

    async def _read(self, reader: asyncio.StreamReader, *, to_the_end: bool) -> None:
        """Read until every request has its reply, or until the server has closed."""
        while self.expected or to_the_end:
            line = await reader.readline()
            if not line or line.startswith(b"-ERR"):
                assert to_the_end, line
                return
            if not line.startswith((b"MSG ", b"HMSG ")):
                continue
            words = line.split()
            size = int(words[-1])
            content = await reader.readexactly(size + 2)
            assert b"Nats-Service-Error-Code: 500" not in content
            if to_the_end:
                continue
            assert words[1] in self.expected, line  # one reply to each
            del self.expected[words[1]]


def payloads(person: str, email: str, organization: str) -> list[bytes]:
    """Return good payloads of every kind."""
    return [
        *(each.encode() for each in (person, email, organization)),
        *(
            json.dumps(each).encode()
            for each in (
                {"id": person, "organizationId": organization},
                {"email": email},
                {"organizationId": organization, "limit": 3, "cursor": "x"},
                {"ids": [person, "nobody", "\ud800"]},
                {},
            )
        ),
        b"",
    ]


def blocks(token: str) -> list[bytes]:
    """Return good blocks of headers of every kind."""
    return [
        b"NATS/1.0\r\n\r\n",
        *(
            wire.encode_headers(each)
            for each in (
                {"Authorization": f"Bearer {token}"},
                {wire.TIMEOUT: "1500", wire.TRACEPARENT: "00-x"},
                {"Authorization": f"Bearer {token}", wire.TIMEOUT: "900"},
            )
        ),
    ]


async def misanswer(url: str, numbers: random.Random, budget: Budget) -> None:
    """Answer every request in a worker's place with what no worker says."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    begins = [each.begins for each in ENDPOINTS]
    good = [*(each + b'"x"}' for each in begins), b'{"stream":"AUDIT","seq":7}', b""]
    writer.write(CONNECT + b"SUB users.* 1\r\n")
    while budget.left:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                line = await reader.readline()
        words = line.split()
        if words[:1] not in ([b"MSG"], [b"HMSG"]):
            continue
        await reader.readexactly(int(words[-1]) + 2)
        reply = words[3]
        if len(words) < 5 or not reply.startswith(b"_INBOX.") or b"fuzz" in reply:
            continue
        payload = mutated(numbers.choice(good), numbers, WORDS)
        # A block that nats-py cannot read costs its client the connection, whoever has sent it.
        value = bytes(numbers.choices(range(33, 127), k=numbers.randrange(60)))
        block = b"NATS/1.0\r\nX: %b\r\n\r\n" % value if numbers.random() < 0.5 else b""
        if any(payload.startswith(each) for each in begins):
            continue  # an impostor, whom permissions keep out
        if block:
            sizes = (len(block), len(block) + len(payload))
            writer.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (reply, *sizes, block, payload))
        else:
            writer.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload))
        await writer.drain()
    writer.close()


async def test_any_requests_and_replies_over_nats(template, create_database, start, tmp_path, cast):
    """Requests of any bytes get one reply each, foreign replies none; no other is disturbed."""
    mint = Mint()
    service = await start(
        await create_database(template=template[0]),
        **mint.publish(tmp_path / "jwks.json"),
        RESPONDER_TIMEOUT="10",
    )
    person, budget = cast.owner, Budget()
    honest = Honest(
        *(service.users, service.http, service.admin, mint, person.id, cast.organization.id)
    )
    await honest.begin()
    attackers = [
        Attacker(
            service.nats.url,
            payloads(person.id, person.email, cast.organization.id),
            blocks(mint.token(person.id)),
            chance(f"nats {number}"),
        )
        for number in range(ATTACKERS)
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(honest.go_on(budget))
        group.create_task(misanswer(service.nats.url, chance("replies"), budget))
        for each in attackers:
            group.create_task(each.attack(budget))

    metrics = (await service.admin.get("/metrics")).text
    print(f"{sum(each.sent for each in attackers)} requests, {honest.asked} honest rounds")
    assert all(each.sent for each in attackers)
    assert honest.asked > 0
    assert not re.search(r'code="internal".* (?!0\.0$)', metrics, re.MULTILINE)


# What a server says.

SAID = [
    *(b"PING\r\n", b"+OK\r\n", b"INFO"),  # the last as it was, with what a newer server adds
    *(b"MSG users.get 999999 3\r\nabc\r\n", b"MSG a.\xff\x0cb 999998 r\x0b 0\r\n\r\n"),
    *(
        b"HMSG users.get 999999 r 4 6\r\n\xff\r\nzab\r\n",
        b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
    ),
]
NEVER_SAID = [
    *(b"HELLO\r\n", b"MSG a b c\r\n", b"HMSG a 1 9 3\r\n", b"MSG a 1 -5\r\n", b"\0\xff" * 20),
    *(b"INFO {\r\n", b"INFO []\r\n", b"-ERR 'Stale Connection'\r\n", b"-ERR 'x\xff'\r\n", b"\r\n"),
]


@dataclass
class Between:
    """Stands between responder and its server: cuts what the server says, and says more."""

    server: str
    numbers: random.Random
    said: list[bytes]
    odds: float = 0.0

    async def connected(self, reader: Any, writer: Any) -> None:
        """Pass bytes on in both directions, until one of the two closes."""
        host, port = self.server.removeprefix("nats://").split(":")
        there, back = await asyncio.open_connection(host, int(port))
        onward = asyncio.create_task(self._onward(reader, back))
        try:
            await self._backward(there, writer)
        except (OSError, EOFError):
            pass
        finally:
            onward.cancel()
            await asyncio.gather(onward, return_exceptions=True)
            writer.close()
            back.close()

    async def _onward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def _backward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        writer.write(b"INFO %b\r\n" % json.dumps(info).encode())
        while line := await reader.readline():
            message = line
            if line.startswith((b"MSG ", b"HMSG ")):
                message += await reader.readexactly(int(line.split()[-1]) + 2)
            if self.numbers.random() < self.odds:
                said = self.numbers.choice(self.said)
                newer = json.dumps({**info, "unknown": [1, {"a": None}]}).encode()
                message += b"INFO %b\r\n" % newer if said == b"INFO" else said
            for piece in cut(message, self.numbers):
                writer.write(piece)
                await writer.drain()
                if self.odds:
                    await asyncio.sleep(0)


@asynccontextmanager
async def behind(url: str, keys: dict[str, str], numbers: random.Random, said: list[bytes]):
    """A service whose server is heard through something, and its honest callers."""
    async with nats.running() as server:
        between = Between(server.url, numbers, said)
        listener = await asyncio.start_server(between.connected, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        settings = Settings.read(
            {
                "DATABASE_URL": url,
                "NATS_URL": f"nats://127.0.0.1:{port}",
                "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
                "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
                "RESPONDER_TIMEOUT": "10",
                **keys,
            }
        )
        async with (
            listener,
            serving(settings) as running,
            UsersClient.connect(server.url, timeout=10) as users,
            httpx.AsyncClient(base_url=running.http_url or "", trust_env=False) as http,
            httpx.AsyncClient(base_url=running.admin_url or "", trust_env=False) as admin,
        ):
            yield between, users, http, admin


async def test_any_pieces_and_lines_of_a_server(template, create_database, tmp_path, cast):
    """However a server's words are cut, and whatever else it may say, every answer is right."""
    mint, budget = Mint(), Budget(0.5)
    url = await create_database(template=template[0])
    keys = mint.publish(tmp_path / "jwks.json")
    async with behind(url, keys, chance("server"), SAID) as (between, users, http, admin):
        honest = Honest(users, http, admin, mint, cast.owner.id, cast.organization.id)
        await honest.begin()
        between.odds = 0.3
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(honest.go_on(budget))
        between.odds = 0

    print(f"{honest.asked} honest rounds")
    assert honest.asked > 0


async def test_what_no_server_says(template, create_database, tmp_path, cast):
    """A server that says what none does costs its connection, and no wrong answer."""
    mint, budget = Mint(), Budget(0.5)
    url = await create_database(template=template[0])
    keys = mint.publish(tmp_path / "jwks.json")
    async with behind(url, keys, chance("no server"), NEVER_SAID) as (between, users, http, admin):
        honest = Honest(users, http, admin, mint, cast.owner.id, cast.organization.id)
        await honest.begin()
        between.odds, answered = 0.1, 0
        async with UsersClient.connect(between.server, timeout=0.3) as hasty:
            while budget.left:
                with suppress(UnavailableError, RequestTimeoutError):
                    assert honest.right["service"] == await hasty.get(cast.owner.id)
                    answered += 1
        between.odds = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(UnavailableError, RequestTimeoutError):
                    await users.get(cast.owner.id)
                    if (await admin.get("/ready")).status_code == 200:
                        break
        await honest.begin()

    print(f"{answered} answers")
