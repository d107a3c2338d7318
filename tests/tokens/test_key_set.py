"""Better Auth's key set: fetched, kept fresh, and kept through outages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from responder.dev.tokens import ISSUER, Mint
from responder.errors import UnauthenticatedError, UnavailableError
from responder.tokens import key_set as keys_module
from responder.tokens.identity import KeySet
from responder.tokens.key_set import Keys
from responder.tokens.verifier import Issuer, TokenVerifier

pytestmark = pytest.mark.heavy
INTERVAL = 0.2  # seconds between fetches, here


def published(*mints: Mint, path: Path) -> bytes:
    """The key set of some keys."""
    keys = []
    for mint in mints:
        mint.publish(path)
        keys += json.loads(path.read_bytes())["keys"]
    return json.dumps({"keys": keys}).encode()


@dataclass
class Endpoint:
    """A server for the key set that does what a test wants of it."""

    url: str = ""
    body: bytes = b""
    status: str = "200 OK"
    headers: str = ""
    slow: asyncio.Event | None = None  # answers once it is set
    asked: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.slow:
                await self.slow.wait()
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\n{self.headers}"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + self.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(endpoint: Endpoint, port: int = 0) -> AsyncIterator[Endpoint]:
    server = await asyncio.start_server(endpoint.answer, "127.0.0.1", port)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield endpoint
    finally:
        if endpoint.slow:
            endpoint.slow.set()
        server.close()


@asynccontextmanager
async def verifying(source: str, *, refresh: float = 60) -> AsyncIterator[TokenVerifier]:
    issuer = Issuer(key_set=source, issuers=[ISSUER], audiences=[ISSUER], advice="")
    async with Keys(source, interval=INTERVAL, refresh=refresh).running() as keys:
        yield TokenVerifier(keys, issuer)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening(Endpoint()) as found:
        yield found


async def until(true) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_new_key_is_found_by_its_first_token(endpoint, tmp_path):
    """A token of a key that did not exist at the last fetch verifies, however soon it comes."""
    old, new, newest = Mint(), Mint(), Mint()
    endpoint.body = published(old, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(old.token("ann"))
        for mints in ((old, new), (old, new, newest)):
            endpoint.body = published(*mints, path=tmp_path / "x")
            assert "ann" == (await tokens.verify(mints[-1].token("ann"))).user_id
        assert await tokens.verify(old.token("ann"))
        endpoint.body = published(newest, path=tmp_path / "x")
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(Mint().token("ann"))
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(old.token("ann"))


async def test_it_is_refreshed_by_itself(endpoint, tmp_path):
    """A key that was withdrawn is forgotten without anybody asking."""
    old, new = Mint(), Mint()
    endpoint.body = published(old, path=tmp_path / "x")
    async with verifying(endpoint.url, refresh=0.3) as tokens:
        assert await tokens.verify(old.token("ann"))
        first = tokens.keys.known
        endpoint.body = published(new, path=tmp_path / "x")
        await until(lambda: tokens.keys.known is not first)
        assert tokens.verify_now(new.token("ann"))


async def test_a_file_is_a_key_set_too(tmp_path):
    """From a file it is read again when a token needs a newer key."""
    mint, file = Mint(), tmp_path / "jwks.json"
    async with verifying(str(file)) as tokens:
        with pytest.raises(UnavailableError, match="no keys"):
            await tokens.verify(mint.token("ann"))
        mint.publish(file)
        assert await tokens.verify(mint.token("ann"))


async def test_closing_leaves_nobody_waiting(endpoint, tmp_path):
    """Whoever waits for newer keys when the verifier closes, or asks later, is told so."""
    endpoint.slow = asyncio.Event()
    async with verifying(endpoint.url) as tokens:
        await until(lambda: endpoint.asked == 1)
        waiting = [asyncio.create_task(tokens.verify(Mint().token("ann"))) for _ in range(3)]
        await asyncio.sleep(0)
        tokens.keys.known = KeySet(published(Mint(), path=tmp_path / "x"))
        waiting += [asyncio.create_task(tokens.verify(Mint().token("ann"))) for _ in range(3)]
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(UnavailableError):
            await tokens.verify(Mint().token("ann"))

    assert [UnavailableError] * 6 == [type(each) for each in found]


async def test_what_cannot_be_a_token_waits_for_no_keys(endpoint):
    """While no keys are known, what is no token, or huge, is refused at once and held in nobody's memory."""
    endpoint.slow = asyncio.Event()
    async with verifying(endpoint.url) as tokens:
        for each in ("session.token", "a.b." + "x" * 1_000_000):
            with pytest.raises(UnauthenticatedError, match=r"not a JWT|longer than"):
                await tokens.verify(each)


BAD = {
    "an error": {"status": "500 Internal Server Error"},
    "not found": {"status": "404 Not Found"},
    "a redirect": {"status": "302 Found", "headers": "Location: /elsewhere\r\n"},
    "rubbish": {"body": b"<html>"},
    "bytes": {"body": bytes(range(256))},
    "nothing": {"body": b""},
    "an empty set": {"body": b'{"keys": []}'},
    "too much": {"body": b" " * (keys_module.MAX_SIZE + 1)},
    "what it calls compressed": {"headers": "Content-Encoding: gzip\r\n", "body": b"xxxx"},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_keys_outlast_a_bad_answer(endpoint, tmp_path, caplog, bad):
    """Whatever comes instead of a key set, known keys serve on, and it is told once."""
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        for name, value in bad.items():
            setattr(endpoint, name, value)
        for _ in range(2):
            with pytest.raises(UnauthenticatedError, match="kid"):
                await tokens.verify(Mint().token("ann"))
        asked = endpoint.asked

        assert 3 == asked == tokens.keys.fetches
        assert 2 == tokens.keys.failures
        assert tokens.keys.warn()
        assert await tokens.verify(mint.token("bob"))
        endpoint.status, endpoint.headers = "200 OK", ""
        endpoint.body = published(mint, path=tmp_path / "x")
        await until(lambda: tokens.keys.warn() is None)
    told = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert 1 == len(told)
    assert "127.0.0.1" not in caplog.text


async def test_keys_outlast_the_endpoint(tmp_path):
    """While nobody listens known keys serve; without any the answer is unavailable; then all is well."""
    mint = Mint()
    endpoint = Endpoint(body=published(mint, path=tmp_path / "x"))
    async with listening(endpoint):
        port = int(endpoint.url.split(":")[2].split("/")[0])
    async with verifying(endpoint.url) as tokens:
        with pytest.raises(UnavailableError, match="no keys"):
            await tokens.verify(mint.token("ann"))
        async with listening(endpoint, port):
            assert await tokens.verify(mint.token("ann"))
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(Mint().token("ann"))
        assert await tokens.verify(mint.token("ann"))
        assert tokens.keys.warn()


async def test_a_slow_endpoint_stalls_nobody(endpoint, tmp_path, monkeypatch):
    """While the key set is on its way the loop runs, and tokens of known keys verify at once."""
    monkeypatch.setattr(keys_module, "TIMEOUT", 0.5)
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        endpoint.slow = asyncio.Event()
        waiting = asyncio.create_task(tokens.verify(Mint().token("ann")))
        await until(lambda: endpoint.asked == 2)
        ticks, longest, last = 0, 0.0, monotonic()
        while not waiting.done():
            await asyncio.sleep(0.005)
            assert await tokens.verify(mint.token(f"user {ticks}"))
            longest, last, ticks = max(longest, monotonic() - last), monotonic(), ticks + 1
        with pytest.raises(UnauthenticatedError, match="kid"):
            await waiting

        assert ticks > 10
        assert longest < 0.25
        assert "the key set cannot be fetched: no answer in time" == tokens.keys.warn()


async def test_a_flood_of_unknown_keys_is_one_fetch_per_interval(endpoint, tmp_path):
    """However many tokens with unknown key ids come, fetches stay an interval apart."""
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    strangers = [Mint().token("ann") for _ in range(300)]
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        start = monotonic()
        for _ in range(3):
            found = await asyncio.gather(
                *(tokens.verify(each) for each in strangers), return_exceptions=True
            )
            assert {UnauthenticatedError} == {type(each).__mro__[1] for each in found}
        intervals = (monotonic() - start) / INTERVAL

    assert endpoint.asked - 1 <= intervals + 1


@pytest.fixture
async def flooded(endpoint, tmp_path, template, create_database, start):
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    service = await start(
        await create_database(template=template[0]),
        RESPONDER_JWKS_URL=endpoint.url,
        RESPONDER_JWT_ISSUER=ISSUER,
        RESPONDER_JWT_AUDIENCE=ISSUER,
        RESPONDER_HTTP_AUTH="required",
    )
    return service, mint


async def test_services_do_not_feel_a_flood(flooded, cast, endpoint):
    """While strangers' tokens wait for newer keys, requests without a token are answered before them."""
    service, mint = flooded
    owner = {"Authorization": f"Bearer {mint.token(cast.owner.id)}"}
    assert cast.owner.id == (await service.ask("users.get", cast.owner.id, owner)).json["id"]
    asked = endpoint.asked
    headers = [{"Authorization": f"Bearer {Mint().token('x')}"} for _ in range(200)]
    start = monotonic()
    flood = [asyncio.create_task(service.ask("users.get", cast.owner.id, each)) for each in headers]
    for _ in range(200):
        assert cast.owner.id == (await service.ask("users.get", cast.owner.id)).json["id"]
        assert cast.owner.id == (await service.ask("users.get", cast.owner.id, owner)).json["id"]
    answers = await asyncio.gather(*flood)
    took = monotonic() - start

    assert {"unauthenticated"} == {each.code for each in answers}
    assert endpoint.asked - asked <= took / keys_module.INTERVAL + 1


async def test_services_do_not_feel_a_flood_of_bad_signatures(flooded, cast):
    """A signature costs as much as many lookups: requests that need none are answered in between."""
    service, mint = flooded
    head, _, signature = mint.token(cast.owner.id).rpartition(".")
    flood = 500
    answers: list[str] = []
    done = asyncio.Event()

    async def take(message) -> None:
        code = message.headers and message.headers["Nats-Service-Error-Code"]
        answers.append(code or json.loads(message.data)["id"])
        if len(answers) > flood:
            done.set()

    inbox = service.nc.new_inbox()
    await service.nc.subscribe(inbox, cb=take)
    for number in range(flood):
        bad = f"{head}.{signature[:40]}{number:06}{signature[46:]}"
        headers = {"Authorization": f"Bearer {bad}"}
        await service.nc.publish("users.get", b"x", reply=inbox, headers=headers)
    await service.nc.publish("users.get", cast.owner.id.encode(), reply=inbox)
    await asyncio.wait_for(done.wait(), 10)

    assert flood == answers.count("401")
    assert answers.index(cast.owner.id) < flood / 5


async def test_an_outage_of_the_key_set_shows(flooded, cast, endpoint):
    """Metrics and readiness tell of it; the service stays ready."""
    service, mint = flooded
    endpoint.status = "503 Service Unavailable"
    stranger = {"Authorization": f"Bearer {Mint().token('x')}"}
    assert "unauthenticated" == (await service.ask("users.whoami", "", stranger)).code

    ready = await service.admin.get("/ready")
    metrics = (await service.admin.get("/metrics")).text
    owner = {"Authorization": f"Bearer {mint.token(cast.owner.id)}"}

    assert 200 == ready.status_code
    assert "ready\nwarning: the key set cannot be fetched: HTTP status 503\n" == ready.text
    assert "responder_key_set_failures_total 1.0" in metrics
    assert "responder_key_set_keys 1.0" in metrics
    assert cast.owner.id == (await service.ask("users.get", cast.owner.id, owner)).json["id"]


async def test_tokens_that_wait_in_vain_are_answered(flooded, cast, endpoint):
    """A token whose key does not come in its caller's time is answered `unavailable`."""
    service, _ = flooded
    endpoint.slow = asyncio.Event()
    stranger = {
        "Authorization": f"Bearer {Mint().token('x')}",
        "Responder-Timeout-Ms": "400",
    }
    answers = await asyncio.gather(
        *(service.ask("users.get", cast.owner.id, stranger) for _ in range(20))
    )

    assert {"unavailable"} == {each.code for each in answers}
