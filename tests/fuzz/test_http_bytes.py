"""Whatever bytes arrive on both listeners, honest callers get right answers, and none is a bug."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress

import httpx
import pytest

from responder.dev.tokens import Mint
from responder.endpoints import ENDPOINTS, WRITES
from tests.fuzz.budget import TIMEOUT, Budget, chance
from tests.fuzz.honest import Honest
from tests.fuzz.mutation import cut, mutated
from tests.raw_http import PATIENCE, connected, get

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(TIMEOUT)]

ATTACKERS, ON_ADMIN = 24, 4
READ = 100_000  # bytes, of answers that are read at all
WORDS = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"%", b"%00", b"%2F", b"/", b"?", b"&"),
    *(
        b"=",
        b"#",
        b"+",
        b"\xff",
        b"\xa0",
        b"\xc3\xb6",
        b"GET ",
        b"HEAD / ",
        b"HTTP/1.0",
        b"\r\n\r\n",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n"),
    *(b"Host: y\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"traceparent: \r\n"),
    *(b"Expect: 100-continue\r\n", b"Authorization: Bearer x\r\n", b"Authorization: \r\n"),
    *(b"organizationId=x", b"id=x&", b"&limit=1", b"&cursor=", b"&role=x"),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00"),
]
# A status that a fuzzer cannot make happen but by a bug.
BUG = re.compile(rb"HTTP/1\.1 (?!200|204|307|4\d\d|503|504)\d{3} ")


def corpus(person: str, token: str) -> list[bytes]:
    """Return requests of every kind, all of them good."""
    head = f"Host: x\r\nAuthorization: Bearer {token}\r\n".encode()
    reads = [
        re.sub(r"\{\w+\}", person, route)
        for route in (*(each.route for each in ENDPOINTS if each.route), "/docs", "/openapi.json")
    ]
    writes = [
        get(prefix + write.path.replace("{id}", person), headers, method=write.method)
        for write in WRITES
        for prefix in ("", "/api/v1")
        for headers in (head, head + b"Content-Length: 0\r\n")
    ]
    bodies = (
        get("/users", head + b"Content-Length: 5\r\n", method="POST") + b"hello",
        get("/users", head + b"Transfer-Encoding: chunked\r\n", method="POST")
        + b"1\r\nx\r\n0\r\n\r\n",
    )
    probes = [get(path) for path in ("/", "/live", "/ready", "/metrics")]
    return [
        *(get(path, head, method=method) for path in reads for method in ("GET", "HEAD")),
        *(get(f"{path}?organizationId=x&%C3%B6=+", head) for path in reads),
        *(get(f"{path}?id={person}&id=x&limit=9&cursor=&role=x&role=y", head) for path in reads),
        *(
            get(path + query, head)
            for path in reads
            for query in (f"?id={person}&id=x", "?limit=9")
        ),
        *(*writes, *bodies, *probes),
    ]


async def attack(url: str, requests: list[bytes], numbers: random.Random) -> None:
    """Send some requests on a connection of its own, and look at what comes back, or do not."""
    sent = b"".join(
        mutated(numbers.choice(requests), numbers, WORDS) for _ in range(numbers.randrange(1, 8))
    )
    with suppress(ConnectionError):
        async with connected(url) as client:
            for piece in cut(sent, numbers):
                await client.send(piece)
            match numbers.randrange(3):
                case 0:
                    return
                case 1:
                    client.writer.transport.abort()
                case _:
                    client.writer.write_eof()
                    async with asyncio.timeout(PATIENCE):
                        answers = await client.reader.read(READ)
                    assert not BUG.search(answers), (sent, answers)
                    assert answers[:9] in (b"", b"HTTP/1.1 "), (sent, answers)


async def test_any_bytes_over_http(template, create_database, start, tmp_path, cast):
    """Requests with any bytes changed, cut anyhow and left anyhow, disturb no other request."""
    mint = Mint()
    service = await start(
        await create_database(template=template[0]),
        **mint.publish(tmp_path / "jwks.json"),
        RESPONDER_HTTP_AUTH="required",
        RESPONDER_TIMEOUT="10",
    )
    person, budget, attacks = cast.owner.id, Budget(), 0
    honest = Honest(
        *(service.users, service.http, service.admin, mint, person, cast.organization.id)
    )
    await honest.begin()
    requests = corpus(person, mint.token(person))

    async def go_on(number: int, url: httpx.URL) -> None:
        nonlocal attacks
        numbers = chance(f"http {number}")
        while budget.left:
            await attack(str(url), requests, numbers)
            attacks += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(honest.go_on(budget))
        for number in range(ATTACKERS):
            at = service.admin if number < ON_ADMIN else service.http
            group.create_task(go_on(number, at.base_url))

    metrics = (await service.admin.get("/metrics")).text
    print(f"{attacks} connections, {honest.asked} honest rounds")
    assert attacks > ATTACKERS
    assert honest.asked > 0
    assert 'status="500"' not in metrics
    assert not re.search(r'code="internal".* (?!0\.0$)', metrics, re.MULTILINE)
