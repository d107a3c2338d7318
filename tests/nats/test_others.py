"""What else answers on the subjects is never passed on, and is found (subjects.md, Who may answer).

A stream of JetStream over `users.>` acknowledges each request to its caller, which no permission of
the caller's keeps it from: it is what happens by accident.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import nats as nats_py
import nats.errors
import pytest
from nats.js.errors import APIError

from responder import UsersClient, checks
from responder.app import serving
from responder.asking import reply_on
from responder.checks.report import BROKEN
from responder.dev import nats as private_nats
from responder.endpoints import ENDPOINTS, GET
from responder.errors import NotFoundError, ResponderError, UnavailableError
from responder.nats.connection import connected
from responder.settings import Settings

SUBJECTS = (Path(__file__).parents[2] / "subjects.md").read_text()
ELSE = "something else answers on users.get"
PASSWORD = "pw-of-{}"


@pytest.fixture
def jetstream(tmp_path) -> str:
    """The configuration of a server with JetStream."""
    return f'jetstream {{ store_dir: "{tmp_path}" }}'


async def audit(client) -> None:
    """Make a stream that stores all requests, as an auditor might."""
    await client.jetstream().add_stream(name="AUDIT", subjects=["users.>"], storage="memory")


@asynccontextmanager
async def impostor(client, subject: str, *replies: bytes, headers=None):
    """A program that is no worker, and answers each request in its own way."""

    async def answer(message) -> None:
        for reply in replies:
            await client.publish(message.reply, reply, headers=headers)

    subscription = await client.subscribe(subject, cb=answer)
    await client.flush()
    await client.flush()  # the first one's PING overtakes the subscription
    yield
    await subscription.unsubscribe()


async def test_a_stream_beside_the_worker_changes_no_answer(start_with, jetstream, cast):
    """While a stream acknowledges each request, clients get the worker's answers and errors."""
    service = await start_with(
        config=jetstream, RESPONDER_HTTP_LISTEN="127.0.0.1:0", RESPONDER_ADMIN_LISTEN="127.0.0.1:0"
    )
    await audit(service.nc)
    stored = await service.nc.request("users.get", cast.owner.id.encode())
    names = [(await service.users.get(cast.owner.id)).name for _ in range(20)]
    bodies = [(await service.http.get(f"/api/v1/users/{cast.owner.id}")).json() for _ in range(20)]
    missing = await service.http.get("/api/v1/users/nobody")
    me = await service.http.get("/api/v1/me")

    assert b'{"stream":"AUDIT"' == stored.data[:17]  # the stream is the first to answer
    assert {cast.owner.name} == set(names)
    assert {cast.owner.id} == {body["id"] for body in bodies}
    assert (404, 401) == (missing.status_code, me.status_code)
    with pytest.raises(NotFoundError):
        await service.users.get("nobody")


async def test_a_stream_without_a_worker_is_unavailable(jetstream):
    """Where only a stream answers, client and bridge wait for a worker, and then say so."""
    async with private_nats.running(config=jetstream) as server:
        settings = Settings.read(
            {
                "NATS_URL": server.url,
                "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
                "RESPONDER_ADMIN_LISTEN": "off",
                "RESPONDER_HTTP_AUTH": "disabled",
                "RESPONDER_TIMEOUT": "0.3",
            }
        )
        async with (
            await nats_py.connect(server.url) as nc,
            serving(settings, worker=False) as running,
            UsersClient.connect(server.url, timeout=0.3) as users,
            httpx.AsyncClient(base_url=running.http_url or "", trust_env=False) as http,
        ):
            await audit(nc)
            answer = await http.get("/api/v1/users/x")
            with pytest.raises(UnavailableError, match=re.escape(ELSE)):
                await users.get("x")
            with pytest.raises(UnavailableError, match=r"answers on users\.whoami$"):
                await users.whoami()

    assert (503, "unavailable", ELSE) == (
        answer.status_code,
        answer.json()["code"],
        answer.json()["detail"],
    )


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"+ACK",
        b"{}",
        b'{"stream":"AUDIT","seq":7}',
        b'{"email":"x@example.com","id":"x"}',
        b'{"users":[]}',
        b'[{"id":"x"}]',
        b"\xff",
        b'{"code":"not_found","message":"no such user"}',
    ],
)
@pytest.mark.parametrize("headers", [None, {"Nats-Stream": "AUDIT"}, {"Status": "100"}])
async def test_what_is_not_ours_is_passed_over(people_service, reply, headers):
    """A reply that is neither an error of ours nor begins as a User does is waited past."""
    subject = "stranger.get"
    async with (
        connected([people_service.nats.url], name="test") as connection,
        impostor(people_service.nc, subject, reply, reply, b'{"id":"x"}', headers=headers),
    ):
        body = await reply_on(connection, subject, b"", timeout=30, begins=GET.begins)

    assert b'{"id":"x"}' == body


async def test_keys_and_codes_of_a_newer_worker_are_tolerated(people_service):
    """A value with more keys is a value; an error with an unknown code keeps code and number."""
    new = {"Nats-Service-Error": "slower", "nats-service-error-CODE": "429", "X": "y"}
    body = b'{"code":"too_many_requests","message":"slower","retryAfter":1}'
    async with (
        connected([people_service.nats.url], name="test") as connection,
        impostor(people_service.nc, "newer.get", body, headers=new),
        impostor(people_service.nc, "newer.list", b'{"users":[],"nextCursor":null,"total":0}'),
    ):
        with pytest.raises(ResponderError, match="slower") as raised:
            await reply_on(connection, "newer.get", b"", timeout=30, begins=GET.begins)
        listed = await reply_on(connection, "newer.list", b"", timeout=30, begins=b'{"users":')

    assert ("too_many_requests", 429) == (raised.value.code, raised.value.number)
    assert b'"total":0' in listed


async def test_that_no_program_listens_is_still_known_at_once(people_service):
    """The server's own answer that there is no listener is nobody's, and not waited past."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with UsersClient.connect(people_service.nats.url, prefix="nowhere", timeout=30) as users:
        with pytest.raises(UnavailableError, match="no worker listens"):
            await users.get("x")

    assert loop.time() - start < 10


# check


async def check(server, **variables: str):
    return await checks.check(
        Settings.read({"NATS_URL": server.url, "RESPONDER_HTTP_AUTH": "disabled", **variables})
    )


def broken(report) -> list[tuple[str, str]]:
    """The message and remedy of each broken finding about NATS."""
    return [
        (each.message, each.remedy)
        for each in report.findings
        if (each.check, each.severity) == ("nats", BROKEN)
    ]


async def test_check_finds_a_stream(start_with, jetstream, cast):
    """A stream over the subjects is broken: it stores requests, tokens included."""
    service = await start_with(config=jetstream)
    good = broken(await check(service.nats))
    await audit(service.nc)
    report = await check(service.nats)

    ((message, remedy),) = broken(report)
    assert [] == good
    assert 'stream "AUDIT" answers on ' in message
    assert all(each.subject("users") in message for each in ENDPOINTS)
    assert "stored there, and with them their Authorization headers" in message
    assert "subjects.md, Who may answer" in remedy
    assert "1 answer on users.>" == report.servers["workers"]


async def test_check_finds_any_other_program_and_prints_nothing_of_its_own_raw(people_service):
    """A program on one subject is found there, and a stream's name is shown without controls."""
    name = b'{"stream":"x\\u001b[2J\\nbroken"}'
    described = (
        b'{"type":"io.nats.micro.v1.info_response","name":"users",'
        b'"endpoints":[null,{"subject":7},{"subject":"x;$(id).get"},{"subject":"x\\n.get"}]}'
    )
    async with private_nats.running() as server, await nats_py.connect(server.url) as nc:
        async with impostor(nc, "users.get_many", b"hello"):
            program = broken(await check(server))
        async with impostor(nc, "users.whoami", name), impostor(nc, "$SRV.INFO.users", described):
            report = await check(server)

    ((message, _),) = program
    ((named, _),) = broken(report)
    assert message.startswith("something else answers on users.get_many: ")
    assert '"x?[2J?broken" answers on users.whoami' in named
    assert "0 answer on users.>" == report.servers["workers"]


async def test_check_disturbs_nothing(service):
    """It asks each subject once, in vain, without a query and without a row being read."""
    await check(service.nats)
    stats = (await service.ask("$SRV.STATS.users")).json

    assert {1} == {each["num_requests"] for each in stats["endpoints"]}
    assert {"invalid_request", "unauthenticated"} == {
        each["last_error"] for each in stats["endpoints"]
    }


async def test_that_check_may_not_ask_is_not_good():
    """Where NATS does not permit to ask, who answers is not known, and that is said."""
    config = """authorization { users = [{ user: w, password: w, permissions: {
        subscribe: ["users.*", "$SRV.>", "_INBOX.>"], publish: ["_INBOX.>", "$SRV.>"] } }] }"""
    async with private_nats.running(config=config) as server:
        report = await check(server, NATS_USER="w", NATS_PASSWORD="w")
    async with private_nats.running(config=config.replace("$SRV.>", "$SRV.PING.*")) as server:
        uncounted = await check(server, NATS_USER="w", NATS_PASSWORD="w")

    ((message, remedy),) = broken(report)
    assert "0 answer on users.>" == report.servers["workers"]
    assert uncounted.servers["workers"].endswith("does not permit to publish to $SRV.INFO.users")
    assert "is not known: NATS does not permit to ask there" in message
    assert "Permit to publish to users.*" in remedy


# The permissions of subjects.md.


@pytest.fixture
async def guarded(jetstream):
    """A server with the permissions that subjects.md shows; its passwords are PASSWORD's."""
    ((config),) = re.findall(r"```conf\n(.*?)```", SUBJECTS, re.DOTALL)
    config = re.sub(r'user: "?(\w+)"?, password: "…"', r'user: "\1", password: "pw-of-\1"', config)
    assert "…" not in config
    async with private_nats.running(config=f"{jetstream}\n{config}") as server:
        yield server


@asynccontextmanager
async def as_user(server, name: str):
    """Connect as a user; yields the client and what NATS has not permitted to it."""
    denied: list[str] = []

    async def note(error: Exception) -> None:
        denied.append(str(error))

    client = await nats_py.connect(
        server.url, user=name, password=PASSWORD.format(name), error_cb=note
    )
    try:
        yield client, denied
    finally:
        await client.close()


async def test_with_the_permissions_of_the_document_nothing_else_answers(guarded):
    """A service may ask, and may neither listen on the subjects, nor reply, nor make a stream."""
    async with as_user(guarded, "service") as (client, denied):
        await client.subscribe("users.get")
        await client.subscribe("users.>")
        await client.publish("_INBOX.another", b'{"id":"x"}')
        await client.flush()
        await client.flush()
        with suppress(nats.errors.TimeoutError, APIError):
            await client.jetstream(timeout=0.5).add_stream(name="AUDIT", subjects=["users.>"])
    async with as_user(guarded, "operator") as (client, _):
        streams = await client.jetstream().streams_info()

    refused = " ".join(denied)
    assert [] == streams
    for subject in ("users.get", "users.>", "_INBOX.another", "$JS.API.STREAM.CREATE.AUDIT"):
        assert f'"{subject.lower()}"' in refused


async def test_with_the_permissions_of_the_document_all_works(
    guarded, create_database, template, cast
):
    """With them worker and bridge answer, services are answered, and `check` finds nothing."""
    settings = Settings.read(
        {
            "DATABASE_URL": await create_database(template=template[0]),
            "NATS_URL": guarded.url,
            "NATS_USER": "responder",
            "NATS_PASSWORD": PASSWORD.format("responder"),
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_ADMIN_LISTEN": "off",
            "RESPONDER_HTTP_AUTH": "disabled",
        }
    )
    async with (
        serving(settings) as running,
        httpx.AsyncClient(base_url=running.http_url or "", trust_env=False) as http,
        as_user(guarded, "service") as (client, denied),
    ):
        over_http = await http.get(f"/api/v1/users/{cast.owner.id}")
        over_nats = await client.request("users.get", cast.owner.id.encode(), timeout=30)
        found = await client.request("$SRV.INFO.users", timeout=30)
        report = await checks.check(settings)

    assert cast.owner.id == over_http.json()["id"]
    assert over_nats.data == over_http.content
    assert b'"users"' in found.data
    assert [] == denied
    assert [] == [each for each in report.findings if each.check == "nats"]
    assert report.good
