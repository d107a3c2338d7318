"""A key set is downloaded, kept fresh, and kept through outages of where it is from."""

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
from responder.tokens import key_source
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet
from responder.tokens.verifier import TokenVerifier

pytestmark = pytest.mark.heavy
INTERVAL = 0.2  # seconds between downloads, shorter than a service has it


def published(*mints: Mint, path: Path) -> bytes:
    """Return the key set of some keys, as Better Auth publishes it."""
    keys = []
    for mint in mints:
        mint.publish(path)
        keys += json.loads(path.read_bytes())["keys"]
    return json.dumps({"keys": keys}).encode()


@dataclass
class Endpoint:
    """Where a key set is downloaded from, and how it answers."""

    url: str = ""
    body: bytes = b""
    status: str = "200 OK"
    headers: str = ""
    slow: asyncio.Event | None = None  # where there is one, answers wait until it is set
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
async def verifying(location: str, *, refresh: float = 60) -> AsyncIterator[TokenVerifier]:
    issuer = TrustedIssuer(key_set_url=location, issuers=[ISSUER], audiences=[ISSUER], token_url="")
    source = key_source.KeySource(location, interval=INTERVAL, refresh=refresh)
    async with source.running():
        yield TokenVerifier(source, issuer)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening(Endpoint()) as found:
        yield found


async def until(true) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_new_key_is_found_by_its_first_token(endpoint, tmp_path):
    """A token of a key that is newer than the last download verifies, however soon it arrives."""
    old, new, newest = Mint(), Mint(), Mint()
    endpoint.body = published(old, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert "ann" == (await tokens.verify(old.token("ann"))).user_id
        for mints in ((old, new), (old, new, newest)):
            endpoint.body = published(*mints, path=tmp_path / "x")
            assert "ann" == (await tokens.verify(mints[-1].token("ann"))).user_id
        assert "ann" == (await tokens.verify(old.token("ann"))).user_id
        endpoint.body = published(newest, path=tmp_path / "x")
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(Mint().token("ann"))
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(old.token("ann"))


async def test_a_key_set_is_refreshed_by_itself(endpoint, tmp_path):
    """A key that was withdrawn is forgotten, though no token asks for a newer one."""
    old, new = Mint(), Mint()
    endpoint.body = published(old, path=tmp_path / "x")
    async with verifying(endpoint.url, refresh=0.3) as tokens:
        assert "ann" == (await tokens.verify(old.token("ann"))).user_id
        first = tokens.key_source.key_set
        endpoint.body = published(new, path=tmp_path / "x")
        await until(lambda: tokens.key_source.key_set is not first)
        assert "ann" == tokens.verify_now(new.token("ann")).user_id


async def test_a_key_set_may_be_a_file(tmp_path):
    """The file is read again when a token needs a newer key."""
    mint, file = Mint(), tmp_path / "jwks.json"
    async with verifying(str(file)) as tokens:
        with pytest.raises(UnavailableError, match="no keys"):
            await tokens.verify(mint.token("ann"))
        mint.publish(file)
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id


async def test_closing_answers_tokens_that_wait(endpoint, tmp_path):
    """Tokens that wait for newer keys when the verifier closes are refused as unavailable; so are
    later ones.
    """
    endpoint.slow = asyncio.Event()
    async with verifying(endpoint.url) as tokens:
        await until(lambda: endpoint.asked == 1)
        waiting = [asyncio.create_task(tokens.verify(Mint().token("ann"))) for _ in range(3)]
        await asyncio.sleep(0)
        tokens.key_source.key_set = KeySet(published(Mint(), path=tmp_path / "x"))
        waiting += [asyncio.create_task(tokens.verify(Mint().token("ann"))) for _ in range(3)]
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(UnavailableError):
            await tokens.verify(Mint().token("ann"))

    assert [UnavailableError] * 6 == [type(each) for each in found]


async def test_text_that_cannot_be_a_token_does_not_wait(endpoint):
    """While no keys are known, text that is no token, or is huge, is refused at once."""
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
    "too much": {"body": b" " * (key_source.MAX_SIZE + 1)},
    "what it calls compressed": {"headers": "Content-Encoding: gzip\r\n", "body": b"xxxx"},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_known_keys_outlast_a_bad_answer(endpoint, tmp_path, caplog, bad):
    """While no key set comes, known keys verify tokens, and the log has one warning."""
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        for name, value in bad.items():
            setattr(endpoint, name, value)
        for _ in range(2):
            with pytest.raises(UnauthenticatedError, match="kid"):
                await tokens.verify(Mint().token("ann"))
        asked = endpoint.asked

        assert 3 == asked == tokens.key_source.downloads
        assert 2 == tokens.key_source.failures
        assert tokens.key_source.warning()
        assert "bob" == (await tokens.verify(mint.token("bob"))).user_id
        endpoint.status, endpoint.headers = "200 OK", ""
        endpoint.body = published(mint, path=tmp_path / "x")
        await until(lambda: tokens.key_source.warning() is None)
    told = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert 1 == len(told)
    assert "127.0.0.1" not in caplog.text


async def test_known_keys_outlast_an_outage(tmp_path):
    """Without any keys a token is unavailable; once known, they verify while the server is down."""
    mint = Mint()
    endpoint = Endpoint(body=published(mint, path=tmp_path / "x"))
    async with listening(endpoint):
        port = int(endpoint.url.split(":")[2].split("/")[0])
    async with verifying(endpoint.url) as tokens:
        with pytest.raises(UnavailableError, match="no keys"):
            await tokens.verify(mint.token("ann"))
        async with listening(endpoint, port):
            assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(Mint().token("ann"))
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        assert tokens.key_source.warning()


async def test_a_slow_download_delays_no_other_token(endpoint, tmp_path, monkeypatch):
    """While a token waits for a download, tokens of known keys verify at once."""
    monkeypatch.setattr(key_source, "TIMEOUT", 0.5)
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        endpoint.slow = asyncio.Event()
        waiting = asyncio.create_task(tokens.verify(Mint().token("ann")))
        await until(lambda: endpoint.asked == 2)
        ticks, longest, last = 0, 0.0, monotonic()
        while not waiting.done():
            await asyncio.sleep(0.005)
            user = f"user {ticks}"
            assert user == (await tokens.verify(mint.token(user))).user_id
            longest, last, ticks = max(longest, monotonic() - last), monotonic(), ticks + 1
        with pytest.raises(UnauthenticatedError, match="kid"):
            await waiting

        assert ticks > 10
        assert longest < 0.25
        assert "the key set cannot be fetched: no answer in time" == tokens.key_source.warning()


async def test_a_flood_of_unknown_keys_is_one_download_per_interval(endpoint, tmp_path):
    """However many tokens with unknown key ids arrive, downloads stay an interval apart."""
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    strangers = [Mint().token("ann") for _ in range(300)]
    async with verifying(endpoint.url) as tokens:
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        start = monotonic()
        for _ in range(3):
            found = await asyncio.gather(
                *(tokens.verify(each) for each in strangers), return_exceptions=True
            )
            assert {UnauthenticatedError} == {type(each).__mro__[1] for each in found}
        intervals = (monotonic() - start) / INTERVAL

    assert endpoint.asked - 1 <= intervals + 1


@pytest.fixture
async def keyed_service(endpoint, tmp_path, template, create_database, start):
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


async def test_a_flood_of_unknown_keys_delays_no_other_request(keyed_service, cast, endpoint):
    """While tokens of unknown keys wait, requests with a known key or no token are answered."""
    service, mint = keyed_service
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
    assert endpoint.asked - asked <= took / key_source.INTERVAL + 1


async def test_a_flood_of_bad_signatures_delays_no_other_request(keyed_service, cast):
    """A request without a token is answered before most of the tokens sent ahead of it."""
    service, mint = keyed_service
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


async def test_an_outage_of_the_key_set_shows(keyed_service, cast, endpoint):
    """Metrics and /ready tell of the outage, and the service stays ready."""
    service, mint = keyed_service
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


async def test_a_token_waits_no_longer_than_its_caller(keyed_service, cast, endpoint):
    """A token whose key does not come within the caller's timeout is answered `unavailable`."""
    service, _ = keyed_service
    endpoint.slow = asyncio.Event()
    stranger = {
        "Authorization": f"Bearer {Mint().token('x')}",
        "Responder-Timeout-Ms": "400",
    }
    answers = await asyncio.gather(
        *(service.ask("users.get", cast.owner.id, stranger) for _ in range(20))
    )

    assert {"unavailable"} == {each.code for each in answers}
