"""A key set is downloaded, kept fresh, and kept through outages of where it is from."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import pairwise
from time import monotonic, time

import httpx
import pytest

from responder.dev.tokens import ISSUER, Mint
from responder.errors import UnauthenticatedError, UnavailableError
from responder.tokens import key_source, verifier
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet
from responder.tokens.verifier import TokenVerifier
from tests.certificates import certify
from tests.key_sets import Endpoint, listening, published
from tests.signing import ED, KID, P256, claims, jwk, key_set, sign
from tests.waiting import until

pytestmark = pytest.mark.heavy
INTERVAL = 0.2  # seconds between downloads, shorter than a service has it


@asynccontextmanager
async def verifying(location: str, *, refresh: float = 60) -> AsyncIterator[TokenVerifier]:
    issuer = TrustedIssuer(key_set_url=location, issuers=[ISSUER], audiences=[ISSUER], token_url="")
    source = key_source.KeySource(location, interval=INTERVAL, refresh=refresh)
    async with source.running():
        yield TokenVerifier(source, issuer)


def forger_of(mint: Mint) -> Mint:
    """A mint with a key of its own, under the id of another's."""
    forger = Mint()
    forger._id = mint._id
    return forger


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


async def test_a_key_replaced_under_its_id_is_found_by_its_first_token(endpoint, tmp_path):
    """A token of a key that has taken the id of another verifies, and the old key's no more."""
    mints = [Mint() for _ in range(3)]
    for each in mints:
        each._id = "1"
    endpoint.body = published(mints[0], path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mints[0].token("ann"))
        for old, new in pairwise(mints):
            endpoint.body = published(new, path=tmp_path / "x")
            assert "ann" == (await tokens.verify(new.token("ann"))).user_id
            with pytest.raises(UnauthenticatedError, match="signature"):
                await tokens.verify(old.token("ann"))


async def test_a_key_of_another_algorithm_replaces_one_under_its_id(endpoint):
    """A token whose algorithm is not that of the known key verifies once its key is published."""
    endpoint.body = key_set(jwk(ED, kid=KID)).document
    token = sign(
        claims(iss=ISSUER, aud=ISSUER, iat=0, exp=int(time()) + 60),
        {"alg": "ES256", "kid": KID},
        key=P256,
        algorithm="ES256",
    )
    async with verifying(endpoint.url) as tokens:
        with pytest.raises(UnauthenticatedError, match="alg"):
            await tokens.verify(token)
        endpoint.body = key_set(jwk(P256, kid=KID)).document
        assert await tokens.verify(token)


async def test_a_key_set_in_another_order_forgets_no_token(endpoint, tmp_path):
    """While the keys are the same, tokens are remembered, whatever the document looks like."""
    mints = [Mint(), Mint()]
    endpoint.body = published(*mints, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        token = mints[0].token("ann")
        known = await tokens.verify(token)
        endpoint.body = b" " + published(*reversed(mints), path=tmp_path / "x")
        with pytest.raises(UnauthenticatedError, match="kid"):
            await tokens.verify(Mint().token("ann"))

        assert known is tokens.verify_now(token)


async def test_a_flood_of_bad_signatures_is_one_download_per_interval(endpoint, tmp_path):
    """However many tokens their keys have not signed, downloads stay an interval apart."""
    mint = Mint()
    forger = forger_of(mint)
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        start = monotonic()
        for _ in range(3):
            found = await asyncio.gather(
                *(tokens.verify(forger.token(f"user {each}")) for each in range(100)),
                return_exceptions=True,
            )
            assert {"the signature does not verify"} == {str(each) for each in found}
        intervals = (monotonic() - start) / INTERVAL

    assert endpoint.asked - 1 <= intervals + 1


async def test_a_bad_signature_is_refused_while_the_key_set_hangs(endpoint, tmp_path, monkeypatch):
    """A token that its key has not signed is `unauthenticated`, whatever the key set does."""
    monkeypatch.setattr(verifier, "PATIENCE", 0.3)
    mint = Mint()
    forger = forger_of(mint)
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        endpoint.slow = asyncio.Event()
        with pytest.raises(UnauthenticatedError, match="signature"):
            await tokens.verify(forger.token("ann"))


async def test_a_new_key_is_not_refused_while_the_key_set_cannot_be_fetched(endpoint, tmp_path):
    """A good token whose key is new is `unavailable` in an outage, and verifies after it."""
    old, new = Mint(), Mint()
    forger = forger_of(old)
    endpoint.body = published(old, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(old.token("ann"))
        endpoint.status, endpoint.body = "503 Oops", published(old, new, path=tmp_path / "x")
        with pytest.raises(UnavailableError, match="the key set cannot be fetched"):
            await tokens.verify(new.token("ann"))
        with pytest.raises(UnauthenticatedError, match="signature"):
            await tokens.verify(forger.token("ann"))
        assert await tokens.verify(old.token("bob"))
        endpoint.status = "200 OK"

        assert "ann" == (await tokens.verify(new.token("ann"))).user_id


async def test_few_bad_signatures_wait_for_a_newer_key(endpoint, tmp_path):
    """While as many tokens wait as may, others whose key did not sign them are refused at once."""
    mint = Mint()
    forger = forger_of(mint)
    endpoint.body = published(mint, path=tmp_path / "x")
    async with verifying(endpoint.url) as tokens:
        assert await tokens.verify(mint.token("ann"))
        endpoint.slow = asyncio.Event()
        waiting = [asyncio.create_task(tokens.verify(forger.token(f"{n}"))) for n in range(300)]
        await until(lambda: sum(each.done() for each in waiting) == 300 - verifier.MAX_DOUBTED)
        endpoint.slow.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)

    assert {"the signature does not verify"} == {str(each) for each in found}


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
    async with asyncio.timeout(60):
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
    """While no key set comes, known keys verify tokens, and the log has one warning, that
    names the address without what may be secret.
    """
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    location = endpoint.url.replace("//", "//u:hunter2@") + "?key=hunter2"
    async with verifying(location) as tokens:
        assert "ann" == (await tokens.verify(mint.token("ann"))).user_id
        for name, value in bad.items():
            setattr(endpoint, name, value)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="cannot be fetched"):
                await tokens.verify(Mint().token("ann"))
        asked = endpoint.asked

        assert 3 == asked == tokens.key_source.downloads
        assert 2 == tokens.key_source.failures
        assert tokens.key_source.warning()
        assert "bob" == (await tokens.verify(mint.token("bob"))).user_id
        endpoint.status, endpoint.headers = "200 OK", ""
        endpoint.body = published(mint, path=tmp_path / "x")
        await until(lambda: tokens.key_source.warning() is None)
    ours = [each for each in caplog.records if each.name.startswith("responder.tokens")]
    told = [each for each in ours if each.levelno == logging.WARNING]
    assert 1 == len(told)
    assert f" from {endpoint.url}: " in told[0].getMessage()
    assert "hunter2" not in caplog.text


async def problem(endpoint: Endpoint, path: str = "") -> str:
    """Return what is told of a download that does not succeed."""
    with pytest.raises(ValueError, match=r".") as raised:
        KeySet(await key_source.download(endpoint.url + path))
    return key_source.describe(raised.value)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip "])
async def test_a_key_set_compressed_though_refused_is_read(endpoint, tmp_path, encoding):
    """What a proxy compresses with gzip, although we refuse it, is the key set all the same."""
    document = published(Mint(), path=tmp_path / "x")
    endpoint.body, endpoint.headers = gzip.compress(document), f"Content-Encoding: {encoding}\r\n"

    assert document == await key_source.download(endpoint.url)
    assert "accept-encoding: identity\r\n" in endpoint.request.lower()


BOMB = gzip.compress(b" " * 200_000_000, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "told"),
    [
        ("br", b"xxxx", "compressed, though that was refused"),
        ("zstd", b"xxxx", "compressed, though that was refused"),
        ("gzip, gzip", b"xxxx", "compressed, though that was refused"),
        ("gzip", b"xxxx", "compressed, and damaged"),
        ("gzip", b'{"keys": []}', "compressed, and damaged"),
        ("gzip", gzip.compress(b'{"keys": []}', mtime=0)[:-4], "compressed, and cut off"),
        ("gzip", b"", "compressed, and cut off"),
        ("gzip", BOMB, f"more than {key_source.MAX_SIZE} bytes"),
    ],
)
async def test_a_compression_that_cannot_be_read_is_named(endpoint, encoding, body, told):
    """Another compression, a damaged document, and one that is huge are told apart."""
    endpoint.body, endpoint.headers = body, f"Content-Encoding: {encoding}\r\n"

    assert len(body) < key_source.MAX_SIZE
    assert told == await problem(endpoint)


SET = "to be set as RESPONDER_JWKS_URL"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_redirect_is_named(endpoint, status):
    """Each status that leads elsewhere is told as a redirect."""
    endpoint.status, endpoint.headers = f"{status} Moved", "Location: /iam/jwks\r\n"

    assert f"HTTP status {status}, a redirect to /iam/jwks, {SET}" == await problem(endpoint)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://b.example/jwks", f"a redirect to https://b.example/jwks, {SET}"),
        (
            "https://u:hunter2@B.example:443/a?token=hunter2#hunter2",
            f"a redirect to https://b.example/a, {SET}",
        ),
        ("//u:hunter2@b.example/jwks?x", f"a redirect to http://b.example/jwks, {SET}"),
        ("/iam/jwks?token=hunter2", f"a redirect to /iam/jwks, {SET}"),
        ("../elsewhere", f"a redirect to /elsewhere, {SET}"),
        ("https://b.example/\x1b[2J", f"a redirect to https://b.example/%1B[2J, {SET}"),
        (f"https://b.example/{'x' * 999}", f"a redirect to https://b.example/{'x' * 178}, {SET}"),
        ("http://u:hunter2@[::1/", f"a redirect, {SET}"),
        ("javascript:hunter2", f"a redirect, {SET}"),
        ("file:///hunter2", f"a redirect, {SET}"),
    ],
)
async def test_a_redirect_is_not_followed(endpoint, location, told):
    """Where a redirect leads is told without what may be secret, and nothing is fetched there."""
    endpoint.url = endpoint.url.replace("http://", "http://v:hunter2@")
    endpoint.status, endpoint.headers = "308 Permanent", f"Location: {location}\r\n"

    assert f"HTTP status 308, {told}" == await problem(endpoint)
    assert 1 == endpoint.asked


@pytest.mark.parametrize(("status", "headers"), [(300, ""), (304, "Location: /x\r\n"), (308, "")])
async def test_a_status_that_leads_nowhere_is_no_redirect(endpoint, status, headers):
    """Without a target there is only the status to tell."""
    endpoint.status, endpoint.headers = f"{status} X", headers

    assert f"HTTP status {status}" == await problem(endpoint)


async def test_a_download_says_whose_it_is(endpoint, tmp_path):
    """The request names responder and its version, for those who read the issuer's log."""
    endpoint.body = published(Mint(), path=tmp_path / "x")
    await key_source.download(endpoint.url.replace("http:", "HTTP:"))

    assert f"User-Agent: better-auth-responder/{version('better-auth-responder')}\r\n".lower() in (
        endpoint.request.lower()
    )


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
        with pytest.raises(UnavailableError, match="cannot be fetched"):
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
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0.005)
            user = f"user {ticks}"
            assert user == (await tokens.verify(mint.token(user))).user_id
            ticks += 1
        with pytest.raises(UnavailableError, match="cannot be fetched"):
            await waiting

        assert ticks > 1  # else one of them has waited for the download
        said = f"the key set cannot be fetched from {endpoint.url}: no answer in time"
        assert said == tokens.key_source.warning()


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
    await asyncio.wait_for(done.wait(), 60)

    # Where the machine is busy some are refused before they are looked at.
    assert {"401", "503", cast.owner.id} >= set(answers)
    assert answers[: answers.index(cast.owner.id)].count("401") < flood / 5


async def test_a_certificate_that_is_not_trusted_is_said(tmp_path):
    """A key set that is served with a certificate of its own is known by the words of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(tmp_path))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        with pytest.raises(httpx.ConnectError) as refused:
            await key_source.download(url)

    assert "its certificate is not accepted: self-signed certificate" == key_source.describe(
        refused.value
    )


async def test_an_outage_of_the_key_set_shows(keyed_service, cast, endpoint):
    """Metrics and /ready tell of the outage, and the service stays ready."""
    service, mint = keyed_service
    endpoint.status = "503 Service Unavailable"
    stranger = {"Authorization": f"Bearer {Mint().token('x')}"}
    assert "unavailable" == (await service.ask("users.whoami", "", stranger)).code

    ready = await service.admin.get("/ready")
    metrics = (await service.admin.get("/metrics")).text
    owner = {"Authorization": f"Bearer {mint.token(cast.owner.id)}"}

    assert 200 == ready.status_code
    said = f"the key set cannot be fetched from {endpoint.url}: HTTP status 503"
    assert f"ready\nwarning: {said}\n" == ready.text
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
