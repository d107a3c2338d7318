"""The HTTP bridge and the admin listener answer as docs/http.md and the OpenAPI document say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import signal
import socket
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import nats as nats_py
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

import responder
from responder.app import Running, serving
from responder.asking import Asker
from responder.dev import nats, postgres, tables
from responder.dev.tokens import Mint
from responder.errors import BY_CODE, SettingsError
from responder.http.bridge import Bridge
from responder.http.listener import bind, listening
from responder.inbox import Inbox
from responder.settings import Settings
from tests.ports import free_port
from tests.raw_http import ask_once, connected, get

ODD_IDS = ("a/b", "a+b", "..", "email", "jörg", "%41", "a b", "a?b")
ODD_EMAILS = ("a+b@odd.example", "a/b@odd.example", "jörg@odd.example", "%2b@odd.example")
PASSWORD = "swordfish-of-the-superuser"
FIRST_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Listeners:
    """What of a responder talks HTTP."""

    running: Running
    nats: nats.NatsServer
    http: httpx.AsyncClient
    admin: httpx.AsyncClient


@dataclass(frozen=True)
class Raw:
    """An HTTP answer as it was on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def listeners(
    *, worker: bool = False, server: nats.NatsServer | None = None, **variables: str
) -> AsyncIterator[Listeners]:
    """Run a responder, by default a lone bridge, and a NATS server unless one is given."""
    if server is None:
        async with (
            nats.running() as own,
            listeners(worker=worker, server=own, **variables) as found,
        ):
            yield found
        return
    settings = Settings.read(
        {
            "NATS_URL": server.url,
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
            "RESPONDER_HTTP_AUTH": "disabled",
            **variables,
        }
    )
    async with (
        serving(settings, worker=worker) as running,
        httpx.AsyncClient(base_url=running.http_url or "", trust_env=False) as http,
        httpx.AsyncClient(base_url=running.admin_url or "", trust_env=False) as admin,
    ):
        yield Listeners(running, server, http, admin)


async def send(base: object, line: bytes, headers: bytes = b"", body: bytes = b"") -> Raw:
    """Send exactly these bytes, and read until the connection is closed."""
    url = httpx.URL(str(base))
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            writer.write(
                line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n" + body
            )
            answer = await reader.read()
        finally:
            writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    match = FIRST_LINE.match(first)
    assert match, answer
    pairs = [each.decode().split(": ", 1) for each in lines]
    return Raw(int(match[1]), {name.lower(): value for name, value in pairs}, rest)


async def eventually(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Ask until the status is the one expected, or too much time has passed."""
    deadline = time.monotonic() + 30
    while True:
        response = await client.get(path)
        if response.status_code == status:
            return response
        assert time.monotonic() < deadline, response.text
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def odd(template, create_database) -> AsyncIterator[Listeners]:
    """A responder whose people have ids and emails that are hard to write in a URL."""
    url = await create_database(template=template[0])
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(
            'insert into users (id, name, email, "emailVerified") values ($1, $1, $2, true)',
            [(each, f"{number}@odd.example") for number, each in enumerate(ODD_IDS)]
            + [(f"odd-{number}", each) for number, each in enumerate(ODD_EMAILS)],
        )
    finally:
        await connection.close()
    async with listeners(worker=True, DATABASE_URL=url) as found:
        yield found


@pytest.fixture(scope="module")
async def lone() -> AsyncIterator[Listeners]:
    """A bridge without any worker, patient for a third of a second."""
    async with listeners(RESPONDER_TIMEOUT="0.3") as found:
        yield found


@pytest.fixture(scope="module")
async def strict(people_service) -> AsyncIterator[httpx.AsyncClient]:
    """A bridge that requires tokens, before the demo people."""
    bridge = Bridge(asker(people_service), auth_required=True)
    async with (
        listening(bridge, ("127.0.0.1", 0), "RESPONDER_HTTP_LISTEN", drain_timeout=1) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def keyed(people_service, start_for_module, tmp_path_factory) -> httpx.AsyncClient:
    """A bridge before a worker that can verify tokens."""
    mint, keys = Mint(), tmp_path_factory.mktemp("keys") / "jwks.json"
    service = await start_for_module(
        people_service.url,
        **mint.publish(keys),
        RESPONDER_HTTP_AUTH="required",
    )
    client: httpx.AsyncClient = service.http
    return client


@pytest.fixture(scope="module")
async def contract(people_service) -> dict[str, Any]:
    """The OpenAPI document, as served."""
    document: dict[str, Any] = (await people_service.http.get("/openapi.json")).json()
    return document


@pytest.fixture(scope="module")
async def page(people_service) -> httpx.Response:
    """The page at /docs, as served."""
    response: httpx.Response = await people_service.http.get("/docs")
    return response


def shaped(contract: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """A validator for a schema of the document, formats included."""
    return Draft202012Validator(
        {"components": contract["components"], **schema},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


# Users


async def test_a_user_is_answered_by_id(people_service, cast):
    """GET /api/v1/users/:id answers what users.get answers."""
    expected = (await people_service.ask("users.get", cast.owner.id)).json

    response = await people_service.http.get(f"/api/v1/users/{cast.owner.id}")

    assert (200, "application/json") == (response.status_code, response.headers["content-type"])
    assert expected == response.json()


async def test_a_user_is_answered_by_email(people_service, cast):
    """GET /api/v1/users/email/:email answers the user with that email, in any case."""
    expected = (await people_service.ask("users.get", cast.viewer.id)).json

    response = await people_service.http.get(f"/api/v1/users/email/{cast.viewer.email.upper()}")

    assert expected == response.json()


@pytest.mark.parametrize("by", ["id", "email"])
async def test_the_query_names_the_organization(people_service, cast, by):
    """?organizationId= chooses the membership that the answer reports."""
    person = cast.two_organizations
    path = f"/api/v1/users/{person.id}" if by == "id" else f"/api/v1/users/email/{person.email}"

    answers = [
        (await people_service.http.get(path, params=params)).json()["organizationId"]
        for params in (
            {},
            {"organizationId": cast.second_organization.id},
            {"organizationId": "nowhere"},
        )
    ]

    assert [cast.organization.id, cast.second_organization.id, None] == answers


async def test_head_has_the_headers_of_get_and_no_body(people_service, cast):
    """HEAD answers every GET route with the same status and headers, and without a body."""
    for path in (
        f"/api/v1/users/{cast.owner.id}",
        f"/api/v1/users/email/{cast.owner.email}",
        "/api/v1/users/nobody",
        f"/api/v1/users?id={cast.owner.id}",
        f"/api/v1/users/{cast.owner.id}/memberships",
        f"/api/v1/organizations/{cast.organization.id}/users?limit=2",
        "/openapi.json",
        "/docs",
        "/nothing",
    ):
        get, head = [
            await send(people_service.running.http_url, f"{method} {path}".encode())
            for method in ("GET", "HEAD")
        ]

        assert get.status == head.status
        assert get.headers | {"date": ""} == head.headers | {"date": ""}
        assert str(len(get.body)) == head.headers["content-length"]
        assert b"" == head.body


# Lists


async def test_many_users_are_answered_by_their_ids(people_service, cast):
    """GET /api/v1/users?id=…&id=… answers what users.get_many answers."""
    ids = [cast.two_organizations.id, "a&b=c d+é", cast.owner.id, cast.owner.id, ""]
    organization = cast.second_organization.id
    for more in ({}, {"organizationId": organization}):
        expected = (await people_service.ask("users.get_many", {"ids": ids, **more})).json

        response = await people_service.http.get("/api/v1/users", params={"id": ids, **more})

        assert (200, expected) == (response.status_code, response.json())
        assert ["a&b=c d+é", ""] == expected["missing"]


async def test_up_to_a_hundred_ids_are_answered(people_service):
    """A hundred ids are answered, and one more is 400, as is none."""
    for count in (1, 100):
        ids = [str(number) for number in range(count)]
        response = await people_service.http.get("/api/v1/users", params={"id": ids})
        assert ids == response.json()["missing"]
    for count in (0, 101):
        response = await people_service.http.get("/api/v1/users", params={"id": ["x"] * count})
        assert "id: " in (await problem(response, "invalid_request", 400))["detail"]


async def walked(http: httpx.AsyncClient, path: str, **parameters: str) -> list[Any]:
    """All that a list has, a page at a time."""
    found: list[Any] = []
    while True:
        answer = (await http.get(path, params=parameters)).json()
        cursor = answer.pop("nextCursor")
        ((_, page),) = answer.items()
        found += page
        if cursor is None:
            return found
        assert len(page) == int(parameters["limit"])
        parameters["cursor"] = cursor


async def test_memberships_are_answered_by_the_user(people_service, cast):
    """GET /api/v1/users/:id/memberships answers what users.memberships answers, page by page."""
    id_ = cast.two_organizations.id
    expected = (await people_service.ask("users.memberships", id_)).json["memberships"]
    path = f"/api/v1/users/{id_}/memberships"

    assert expected == await walked(people_service.http, path, limit="1")
    assert expected == await walked(people_service.http, path)
    assert 2 == len(expected)


async def test_an_organization_s_users_are_answered(people_service, cast):
    """GET /api/v1/organizations/:id/users answers what users.org_list answers, page by page."""
    request = {"organizationId": cast.organization.id, "limit": 500}
    expected = (await people_service.ask("users.org_list", request)).json["users"]
    path = f"/api/v1/organizations/{cast.organization.id}/users"

    assert expected == await walked(people_service.http, path, limit="50")
    assert expected == await walked(people_service.http, path, limit="500")
    assert expected[:100] == (await people_service.http.get(path)).json()["users"]


async def test_an_organization_s_users_are_answered_by_role(people_service, cast):
    """?role= may be repeated: it is the list that users.org_list takes, and is as long at most."""
    path = f"/api/v1/organizations/{cast.organization.id}/users"
    for roles in (["owner"], ["owner", "viewer"], ["no such role"], ["x"] * 20):
        request = {"organizationId": cast.organization.id, "limit": 500, "roles": roles}
        expected = (await people_service.ask("users.org_list", request)).json

        response = await people_service.http.get(path, params={"role": roles, "limit": 500})

        assert expected == response.json()
        assert {each["orgRole"] for each in expected["users"]} <= set(roles)
    response = await people_service.http.get(path, params={"role": ["x"] * 21})
    assert "role: " in (await problem(response, "invalid_request", 400))["detail"]


async def test_what_is_said_to_be_an_email_is_one(odd):
    """/users/email/… is always an email; an id that is `email` is escaped to have memberships."""
    refused = await send(odd.running.http_url, b"GET /api/v1/users/email/memberships")
    escaped = await send(odd.running.http_url, b"GET /api/v1/users/%65mail/memberships")

    await problem(refused, "not_found", 404)
    assert (200, b'{"memberships":[],"nextCursor":null}') == (escaped.status, escaped.body)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("users", "id: required"),
        ("users?organizationId=x", "id: required"),
        ("users?ids=x", "ids"),
        ("users?id=x&limit=1", "limit"),
        ("users?id=x&cursor=x", "cursor"),
        ("users?id=x&organizationId=x&organizationId=x", "organizationId"),
        ("users/x/memberships?organizationId=x", "organizationId"),
        ("users/x/memberships?id=x", "id"),
        ("users/x/memberships?limit=1&limit=1", "limit"),
        ("users/x/memberships?cursor=x&cursor=x", "cursor"),
        ("users/x/memberships?cursor=x", "cursor: not one"),
        ("organizations/x/users?organizationId=x", "organizationId"),
        ("organizations/x/users?cursor=", "cursor: not one"),
        ("organizations/x/users?roles=x", "roles"),
        ("users/x/memberships?role=x", "role"),
        *(
            (f"{path}?limit={limit}", "limit: expected a number from 1 to 500")
            for path in ("users/x/memberships", "organizations/x/users")
            for limit in (
                "",
                "x",
                "0",
                "-1",
                "501",
                "1.0",
                "1e2",
                "+5",
                "%205",
                "%D9%A3",
                "9" * 5000,
            )
        ),
    ],
)
async def test_a_list_is_asked_for_as_its_route_says(people_service, target, named):
    """A parameter that a list has not, one too many, and a limit that is no number are 400."""
    response = await send(people_service.running.http_url, f"GET /api/v1/{target}".encode())

    assert named in (await problem(response, "invalid_request", 400))["detail"]


# Problems


async def problem(response: httpx.Response | Raw, code: str, number: int) -> dict[str, Any]:
    """The body of an error, after a look at what every error has in common."""
    status = response.status if isinstance(response, Raw) else response.status_code
    body: dict[str, Any] = response.json if isinstance(response, Raw) else response.json()
    assert "application/problem+json" == response.headers["content-type"]
    assert "no-store" == response.headers["cache-control"]
    assert "nosniff" == response.headers["x-content-type-options"]
    assert (number, number, code) == (status, body["status"], body["code"])
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    return body


async def test_an_unknown_user_is_a_problem(people_service):
    """A user that does not exist is 404 not_found."""
    for path in ("/api/v1/users/nobody", "/api/v1/users/email/nobody@example.com"):
        await problem(await people_service.http.get(path), "not_found", 404)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/v1",
        "/api/v1/users/",
        "/api/v1/users/email/",
        "/api/v1/users/a/b",
        "/api/v1/users/a/memberships/",
        "/api/v1/organizations/a",
        "/api/v1/organizations/a/users/b",
        "/api/v1/users/a/",
        "/api/v1/users/email/a/b",
        "/api/v1//users/a",
        "//api/v1/users/a",
        "/API/v1/users/a",
        "/api/v1/users/../users/a",
        "/docs/",
    ],
)
async def test_an_unknown_route_is_a_problem(people_service, path):
    """A path that is no route, empty and .. segments among them, is 404 not_found."""
    response = await send(people_service.running.http_url, f"GET {path}".encode())

    body = await problem(response, "not_found", 404)
    assert "no such route" == body["detail"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("organisationId=x", "organisationId"),
        ("organizationid=x", "organizationid"),
        ("organizationId=x&limit=1", "limit"),
        ("limit", "limit"),
        ("organizationId=x&organizationId=x", "organizationId"),
        ("organizationId=x&organizationId=y", "organizationId"),
        ("organizationId=%FF", "query"),
    ],
)
async def test_a_wrong_query_is_a_problem(people_service, cast, query, named):
    """An unknown, repeated or undecodable query parameter is 400, and the answer names it."""
    for path in (f"/api/v1/users/{cast.owner.id}", f"/api/v1/users/email/{cast.owner.email}"):
        response = await send(people_service.running.http_url, f"GET {path}?{query}".encode())

        assert named in (await problem(response, "invalid_request", 400))["detail"]


@pytest.mark.parametrize(
    ("path", "methods", "allow"),
    [
        ("/api/v1/users/x", ("POST", "PUT", "OPTIONS", "PURGE"), "DELETE, GET, HEAD, PATCH"),
        ("/api/v1/users/email/x", ("POST", "PATCH", "DELETE"), "GET, HEAD"),
        ("/api/v1/users", ("PUT", "PATCH"), "GET, HEAD, POST"),
        ("/api/v1/users/x/memberships", ("POST", "DELETE"), "GET, HEAD"),
        ("/api/v1/users/email/memberships", ("POST",), "GET, HEAD"),
        ("/api/v1/organizations/x/users", ("POST",), "GET, HEAD"),
        ("/users", ("GET", "DELETE"), "POST"),
        ("/users/x", ("GET", "POST"), "DELETE, PATCH"),
        ("/openapi.json", ("POST",), "GET, HEAD"),
        ("/docs", ("DELETE",), "GET, HEAD"),
    ],
)
async def test_a_method_that_a_route_has_not_is_405(people_service, path, methods, allow):
    """405 says in Allow which methods the route has."""
    for method in methods:
        response = await people_service.http.request(method, path)

        assert (405, allow) == (response.status_code, response.headers["allow"])
        if method != "HEAD":
            await problem(response, "method_not_allowed", 405)


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"FETCH /docs", b""),
        (b"GET docs", b""),
        ("GET /api/v1/users/jörg".encode(), b""),
        (b"GET /api/v1/users/x?organizationId=\xff", b""),
        (b"GET /docs", b"no colon\r\n"),
    ],
)
async def test_what_is_not_http_is_a_problem(people_service, line, headers):
    """Even what cannot be read as a request is answered like any other error."""
    await problem(
        await send(people_service.running.http_url, line, headers), "invalid_request", 400
    )


async def test_no_worker_is_503_at_once(lone):
    """Without a worker the answer is 503 with Retry-After, well before the timeout of a request."""
    async with listeners() as patient:
        start = time.monotonic()
        response = await patient.http.get("/api/v1/users/x")
        took = time.monotonic() - start

    await problem(response, "unavailable", 503)
    assert int(response.headers["retry-after"]) > 0
    assert took < patient_timeout() / 2


def patient_timeout() -> float:
    return Settings.read({}).timeout


async def test_a_silent_worker_is_504(lone):
    """A worker that does not answer in time is 504 timeout."""

    async def ignore(_: Any) -> None:
        return

    async with await nats_py.connect(lone.nats.url) as nc:
        await nc.subscribe("users.get", cb=ignore)
        await nc.flush()
        response = await lone.http.get("/api/v1/users/x")

    await problem(response, "timeout", 504)


async def test_the_worker_s_errors_keep_their_numbers(lone):
    """Every code of subjects.md, Errors, has its own number and message over HTTP, too."""
    codes = iter(BY_CODE.values())

    async def refuse(message: Any) -> None:
        error = next(codes)
        await nc.publish(
            message.reply,
            json.dumps({"code": error.code, "message": "words of the worker"}).encode(),
            headers={
                "Nats-Service-Error": "words of the worker",
                "Nats-Service-Error-Code": str(error.number),
            },
        )

    async with await nats_py.connect(lone.nats.url) as nc:
        await nc.subscribe("users.by_email", cb=refuse)
        await nc.flush()
        for error in BY_CODE.values():
            response = await lone.http.get("/api/v1/users/email/x")

            body = await problem(response, error.code, error.number)
            assert "words of the worker" == body["detail"]
            assert (error.number in {401, 403}) is ("www-authenticate" in response.headers)
            assert (error.number == 503) is ("retry-after" in response.headers)


async def test_the_request_over_nats_carries_what_http_said(lone):
    """The bridge passes on key, organization, token and trace, and how long the answer may take."""
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def answer(message: Any) -> None:
        asked.set_result(message)
        await nc.publish(message.reply, b'{"id":"as it is"}')

    async with await nats_py.connect(lone.nats.url) as nc:
        await nc.subscribe("users.get", cb=answer)
        await nc.flush()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        response = await lone.http.get(
            "/api/v1/users/x",
            params={"organizationId": "y z"},
            headers=[
                ("Authorization", "Bearer a.b.c"),
                ("Traceparent", trace),
                ("Tracestate", "a=1"),
                ("Tracestate", "b=2,c=3"),
            ],
        )

    message = await asked
    assert b'{"id":"as it is"}' == response.content
    assert {"id": "x", "organizationId": "y z"} == json.loads(message.data)
    passed_on = [message.headers[key] for key in ("Authorization", "traceparent", "tracestate")]
    assert ["Bearer a.b.c", trace, "a=1,b=2,c=3"] == passed_on
    assert 0 < int(message.headers["Responder-Timeout-Ms"]) <= 300


async def test_the_subject_prefix_is_a_setting():
    """A bridge with another prefix asks the workers of that prefix."""

    async def answer(message: Any) -> None:
        await nc.publish(message.reply, b'{"id":"x"}')

    async with (
        listeners(RESPONDER_SUBJECT_PREFIX="people.v2") as bridge,
        await nats_py.connect(bridge.nats.url) as nc,
    ):
        await nc.subscribe("people.v2.get", cb=answer)
        await nc.flush()
        response = await bridge.http.get("/api/v1/users/x")

    assert 200 == response.status_code


# Writes


GONE = [
    ("POST", "/users", "create-user"),
    ("PATCH", "/users/x", "set-role"),
    ("DELETE", "/users/x", "remove-user"),
]


@pytest.mark.parametrize("prefix", ["/api/v1", ""])
@pytest.mark.parametrize(("method", "path", "successor"), GONE)
async def test_a_write_is_gone_and_names_its_successor(
    people_service, prefix, method, path, successor
):
    """A write is 410 and names Better Auth's endpoint, with or without /api/v1, with any body."""
    response = await people_service.http.request(method, prefix + path, json={"role": "admin"})

    body = await problem(response, "gone", 410)
    assert f"POST /api/auth/admin/{successor}" == body["successor"]
    assert "link" not in response.headers


async def test_a_write_links_its_successor_where_better_auth_is_known():
    """With BETTER_AUTH_URL a 410 has an absolute Link, below /api/auth or the path of that URL."""
    async with nats.running() as server:
        for url, base in (
            ("https://auth.example.com", "https://auth.example.com/api/auth"),
            ("https://auth.example.com/", "https://auth.example.com/api/auth"),
            ("https://auth.example.com/api/auth", "https://auth.example.com/api/auth"),
            ("http://localhost:3000/internal/login/", "http://localhost:3000/internal/login"),
        ):
            async with listeners(server=server, BETTER_AUTH_URL=url) as bridge:
                await links(bridge.http, base)


async def links(http: httpx.AsyncClient, base: str) -> None:
    """Look at the successors of all writes."""
    for method, path, successor in GONE:
        for prefix in ("/api/v1", ""):
            response = await http.request(method, prefix + path)

            body = await problem(response, "gone", 410)
            link = f'<{base}/admin/{successor}>; rel="successor-version"'
            assert link == response.headers["link"]
            assert f"POST {httpx.URL(base).path}/admin/{successor}" == body["successor"]


@pytest.mark.parametrize(("method", "path", "_successor"), GONE)
async def test_a_write_needs_no_token_to_be_gone(strict, method, path, _successor):
    """410 is answered without a token even where reading needs one."""
    await problem(await strict.request(method, f"/api/v1{path}"), "gone", 410)


async def test_a_large_body_does_not_cost_the_answer(people_service):
    """A write with a body far larger than a packet gets its 410, not a reset connection."""
    body = b"x" * 1_000_000
    length = b"Content-Length: %d\r\n" % len(body)

    response = await send(people_service.running.http_url, b"POST /api/v1/users", length, body)

    await problem(response, "gone", 410)


# Tokens, as far as the bridge has to do with them


async def test_without_a_token_reading_is_401_where_one_is_required(strict):
    """Reading without a token is 401 with a challenge; the documents are open."""
    response = await strict.get("/api/v1/users/x")

    await problem(response, "unauthenticated", 401)
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert [200, 200] == [
        (await strict.get(each)).status_code for each in ("/docs", "/openapi.json")
    ]


@pytest.mark.parametrize(
    "headers",
    [
        b"Authorization: Basic dXNlcg==\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization: \r\n",
        b"Authorization: \xff\r\n",
        b"Authorization: Bearer\xa0a.b.c\r\n",
        b"Authorization: Bearer\x85a.b.c\r\n",
        b"Authorization: Bearer\xc2\xa0a.b.c\r\n",
        b"Authorization: Bearer\ta.b.c\r\n",
        b"Authorization: Bearer \xa0a.b.c\r\n",
        b"Authorization: Bearer a.b.c\xa0\r\n",
        b"Authorization: Bearer a.b.c a.b.c\r\n",
        b"Authorization: Bearer a.b.c\r\nAuthorization: Bearer a.b.c\r\n",
        b"Authorization: Bearer a.b.c\r\nauthorization: Basic x\r\n",
    ],
)
async def test_a_malformed_token_is_401_where_none_is_required(people_service, cast, headers):
    """What is sent as Authorization is never ignored: any other form than one token is 401."""
    line = f"GET /api/v1/users/{cast.owner.id}".encode()

    response = await send(people_service.running.http_url, line, headers)

    await problem(response, "unauthenticated", 401)
    assert response.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/users/%zz",
        "/api/v1/users/%FF",
        "/api/v1/users/email/%zz",
        "/api/v1/users/x?unknown=x",
        "/api/v1/me?organizationId=x&organizationId=x",
        f"/api/v1/me?{'a&' * 1000}",
    ],
)
async def test_without_a_token_nothing_is_looked_at(strict, target):
    """Where a token is required its absence is what is wrong, whatever else is."""
    response = await send(strict.base_url, f"GET {target}".encode())

    await problem(response, "unauthenticated", 401)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic x"}, {"Authorization": f"Bearer {'x' * 16_385}"}],
)
async def test_what_the_bridge_can_refuse_reaches_no_worker(lone, headers):
    """A request that no worker would answer is refused even where there is no worker."""
    response = await lone.http.get("/api/v1/me", headers=headers)

    await problem(response, "unauthenticated", 401)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, False),
        ({"Authorization": "Basic dXNlcg=="}, False),
        ({"Authorization": "Bearer"}, True),
        ({"Authorization": "bearer not-a-jwt"}, True),
    ],
)
async def test_only_who_knows_the_scheme_is_told_what_is_wrong(keyed, headers, told):
    """A challenge has an error code if a bearer token was sent, else none (RFC 6750, section 3)."""
    response = await keyed.get("/api/v1/me", headers=headers)

    assert 401 == response.status_code
    assert told is ('error="invalid_token"' in response.headers["www-authenticate"])


async def test_a_token_is_never_taken_for_none(people_service, cast):
    """A token that cannot be verified does not get the answer that no token would get."""
    response = await people_service.http.get(
        f"/api/v1/users/{cast.owner.id}", headers={"Authorization": "Bearer a.b.c"}
    )

    await problem(response, "unavailable", 503)


async def test_a_huge_header_is_a_problem(people_service, cast):
    """A token that does not fit into a NATS message is 413, and harms no other caller."""
    path = f"/api/v1/users/{cast.owner.id}"
    headers = {"Authorization": f"Bearer {'a' * 1_100_000}"}

    await problem(await people_service.http.get(path, headers=headers), "payload_too_large", 413)
    assert 200 == (await people_service.http.get(path)).status_code


async def test_tokens_cannot_be_required_without_keys():
    """With tokens required and no keys known nothing starts, and the error names the variable."""
    with pytest.raises(SettingsError, match=r"^BETTER_AUTH_URL: "):
        async with listeners(
            worker=True,
            DATABASE_URL="postgres://app@127.0.0.1:1/app",
            RESPONDER_HTTP_AUTH="required",
        ):
            pass


# Paths


@pytest.mark.parametrize(
    ("written", "id_"),
    [
        (b"a%2Fb", "a/b"),
        (b"a%2fb", "a/b"),
        (b"a+b", "a+b"),
        (b"a%2Bb", "a+b"),
        (b"a%20b", "a b"),
        (b"a%3Fb", "a?b"),
        (b"..", ".."),
        (b"%2E%2e", ".."),
        (b"email", "email"),
        (b"j%C3%B6rg", "jörg"),
        (b"%2541", "%41"),
    ],
)
async def test_an_id_in_a_path_is_split_raw_and_decoded_once(odd, written, id_):
    """An id arrives as it was meant, however it was escaped, and .. is nothing special."""
    response = await send(odd.running.http_url, b"GET /api/v1/users/" + written)

    assert (200, id_) == (response.status, response.json.get("id"))


@pytest.mark.parametrize(
    ("written", "email"),
    [
        (b"a+b@odd.example", "a+b@odd.example"),
        (b"a%2Bb%40odd.example", "a+b@odd.example"),
        (b"a%2Fb@odd.example", "a/b@odd.example"),
        (b"J%C3%96rg@odd.example", "jörg@odd.example"),
        (b"%252b@odd.example", "%2b@odd.example"),
    ],
)
async def test_an_email_in_a_path_is_split_raw_and_decoded_once(odd, written, email):
    """An email arrives as it was meant: + is a plus, %2F a slash, and nothing is decoded twice."""
    response = await send(odd.running.http_url, b"GET /api/v1/users/email/" + written)

    assert (200, email) == (response.status, response.json.get("email"))


async def test_every_demo_email_is_found(people_service):
    """An email escaped as a browser escapes it is found, whatever it holds."""
    rows = await people_service.database.fetch("select id, email from users order by id limit 40")

    for row in rows:
        response = await people_service.http.get(f"/api/v1/users/email/{quote(row['email'], '')}")
        assert row["id"] == response.json()["id"]


@pytest.mark.parametrize("written", [b"%FF", b"a%C3", b"%ED%A0%80", b"%zz", b"%", b"a%2"])
async def test_a_path_that_is_not_utf_8_is_a_problem(odd, written):
    """Bytes that are not UTF-8, and a % that escapes nothing, are 400."""
    for prefix in (b"/api/v1/users/", b"/api/v1/users/email/"):
        response = await send(odd.running.http_url, b"GET " + prefix + written)

        await problem(response, "invalid_request", 400)


@pytest.mark.parametrize("written", [b"a%00b", b"%0D%0AX: y", b"%F0%9F%8E%B8", b"a" * 8_000])
async def test_what_cannot_be_an_id_or_an_email_is_not_found(odd, written):
    """A NUL, line breaks or very much of anything are no user's id and no user's email."""
    written = written.replace(b" ", b"%20")
    for prefix in (b"/api/v1/users/", b"/api/v1/users/email/"):
        await problem(
            await send(odd.running.http_url, b"GET " + prefix + written), "not_found", 404
        )


async def test_an_impossible_organization_matches_nothing(people_service, cast):
    """An organization id that cannot exist leaves the four organization fields null."""
    response = await people_service.http.get(f"/api/v1/users/{cast.owner.id}?organizationId=a%00b")

    assert (200, None) == (response.status_code, response.json()["organizationId"])


# Every answer


async def test_nothing_is_stored_on_the_way(people_service, cast):
    """Every answer, of whatever kind, forbids caches to keep it."""
    user = f"/api/v1/users/{cast.owner.id}"
    requests = [
        ("GET", user),
        ("HEAD", user),
        ("GET", f"/api/v1/users/email/{cast.owner.email}"),
        ("GET", "/api/v1/users/nobody"),
        ("GET", f"{user}?limit=1"),
        ("GET", "/api/v1/users/%FF"),
        ("PUT", user),
        ("DELETE", user),
        ("GET", "/nothing"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("FETCH", user),
    ]
    for method, path in requests:
        response = await send(people_service.running.http_url, f"{method} {path}".encode())

        assert (method, path, "no-store") == (method, path, response.headers.get("cache-control"))


@pytest.mark.parametrize(
    "request_",
    [
        get("/live"),
        get("/docs", method="HEAD"),
        get("/api/v1/users/%zz"),
        get("/api/v1/me"),
        get("/users", method="POST"),
        get("/metrics", method="DELETE"),
        get("/live", b""),
        get("/live", b"Host: x\r\nHost: x\r\n"),
        get("/" + "a" * 9000),
        get("/live", b"Host: x\r\n" * 200),
        b"FETCH / HTTP/1.1\r\n\r\n",
    ],
)
async def test_both_listeners_say_with_every_answer_how_it_is_to_be_taken(people_service, request_):
    """No answer of either is to be stored, or taken for another type than it says."""
    for url in (people_service.running.http_url, people_service.running.admin_url):
        async with connected(url) as client:
            await client.send(request_)
            answer = await client.answer(bodiless=request_.startswith(b"HEAD"))

        assert "no-store" == answer.header("cache-control")
        assert "nosniff" == answer.header("x-content-type-options")


@pytest.mark.parametrize("headers", [b"", b"Host: x\r\nHost: x\r\n", b"Host: /\r\n"])
async def test_both_listeners_want_one_host(people_service, headers):
    """A request of HTTP/1.1 names exactly one host, else it is 400."""
    for url in (people_service.running.http_url, people_service.running.admin_url):
        answer = await ask_once(url, get("/live", headers))

        assert (400, "invalid_request") == answer.problem


async def test_a_refusal_of_the_protocol_is_what_the_document_says(people_service, contract):
    """An answer that no route has given is described like any other."""
    routes = [item["get"]["responses"] for item in contract["paths"].values() if "get" in item]
    assert all("414" in responses for responses in routes)
    for request_ in (get("/" + "a" * 9000), get("/", b""), get("/", b"Host: x\r\n" * 200)):
        answer = await ask_once(people_service.running.http_url, request_)

        shaped(contract, contract["components"]["schemas"]["Problem"]).validate(answer.json)


async def test_parameters_are_bounded(people_service, cast):
    """More than 128 parameters are refused for their number."""
    path = f"/api/v1/users/{cast.owner.id}"
    for count, word in ((128, "unknown"), (129, "128"), (4000, "128")):
        response = await people_service.http.get(f"{path}?{'&'.join('a' * count)}")

        assert word in (await problem(response, "invalid_request", 400))["detail"]


async def test_logs_show_the_route_and_never_who_was_asked_for(people_service, cast, caplog):
    """At debug level every request leaves a line with the route's template, and no email or id."""
    caplog.set_level(logging.DEBUG)
    for path in (
        f"/api/v1/users/email/{cast.viewer.email}",
        f"/api/v1/users/{cast.viewer.id}?organizationId={cast.organization.id}",
        f"/api/v1/users/email/{cast.viewer.email}?wrong={cast.viewer.email}",
        f"/api/v1/users/email/%zz{cast.viewer.email}",
        f"/nothing/{cast.viewer.email}",
        f"/\xff{cast.viewer.email}",
    ):
        await send(people_service.running.http_url, f"GET {path}".encode("latin-1"))

    told = [each.getMessage() for each in caplog.records if each.name == "responder.telling"]
    lines = [re.sub(r" \d+\.\d ms$", "", each) for each in told if each.startswith("GET ")]
    assert [
        "GET /api/v1/users/email/{email} 200",
        "GET /api/v1/users/{id} 200",
        "GET /api/v1/users/email/{email} 400",
        "GET /api/v1/users/email/{email} 400",
        "GET none 404",
    ] == lines
    for secret in (cast.viewer.email, cast.viewer.id, cast.organization.id):
        assert secret not in caplog.text


# The contract for machines


def operations(contract: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation of a document: path, method, description."""
    for path, item in contract["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


async def test_the_document_is_openapi_3_1(contract):
    """The document is valid, its references and schemas included."""
    OpenAPIV31SpecValidator(contract).validate()


async def test_a_bug_is_an_internal_error(people_service, caplog):
    """An error that no code expects is 500, and told in the log alone."""
    bridge = Bridge(Asker(transport=Broken()), auth_required=False)
    async with (
        listening(bridge, ("127.0.0.1", 0), "SETTING", drain_timeout=1) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        response = await http.get("/api/v1/users/x")

    assert "internal error" == (await problem(response, "internal", 500))["detail"]
    assert "hunter2" not in response.text
    assert "a request to /api/v1/users/{id} failed" in caplog.messages


class Broken:
    async def ask(self, *_: object, **__: object) -> tuple[bytes, bytes]:
        raise RuntimeError("hunter2")


def asker(service) -> Asker:
    return Asker(transport=Inbox(service.nc))


async def test_the_document_has_every_route(contract, people_service):
    """Every route and method that the bridge answers is in the document, and no other."""
    bridge = Bridge(asker(people_service), auth_required=False)
    served = {
        (route.template, method.lower())
        for route in bridge._routes
        for method in route.methods
        if route.template not in {"/", "/openapi.json", "/docs"}
    }

    assert served == {(path, method) for path, method, _ in operations(contract)}


async def test_every_example_can_be_sent(contract, people_service):
    """Each operation, sent with its examples, is answered as the document says."""
    for path, method, operation in operations(contract):
        examples: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for parameter in operation["parameters"]:
            if "example" in parameter:  # no cursor is good for long
                examples[parameter["in"]][parameter["name"]] = parameter["example"]

        response = await people_service.http.request(
            method, path.format(**examples["path"]), params=examples["query"]
        )

        # Without a token there is no caller to tell of; `responder dev` prints tokens.
        expected = 401 if path.endswith("/me") else 200 if method in {"get", "head"} else 410
        assert (path, expected) == (path, response.status_code)
        described = operation["responses"][str(response.status_code)]
        for name in described.get("headers", ()):
            if name != "Link":  # only where Better Auth's address is known
                assert name in response.headers
        if method != "head":
            schema = described["content"][response.headers["content-type"]]["schema"]
            shaped(contract, schema).validate(response.json())


async def test_examples_are_of_their_schema(contract):
    """The examples in the document are what its schemas describe."""
    for name, schema in contract["components"]["schemas"].items():
        assert schema["examples"]
        for example in schema["examples"]:
            shaped(contract, {"$ref": f"#/components/schemas/{name}"}).validate(example)
    for _, _, operation in operations(contract):
        for parameter in operation["parameters"]:
            if "example" in parameter:
                shaped(contract, parameter["schema"]).validate(parameter["example"])


async def test_users_are_what_the_document_says(contract, people_service, cast):
    """Real users of every kind validate against the User schema, which has all 14 keys."""
    user = contract["components"]["schemas"]["User"]
    assert 14 == len(user["properties"])
    assert set(user["properties"]) == set(user["required"])
    validator = shaped(contract, {"$ref": "#/components/schemas/User"})
    for person in (cast.owner, cast.temporarily_banned, cast.banned, cast.guest, cast.painted):
        answer = (await people_service.http.get(f"/api/v1/users/{person.id}")).json()

        assert set(user["properties"]) == answer.keys()
        validator.validate(answer)
        assert not validator.is_valid(answer | {"banned": None})


# The page


class Page(HTMLParser):
    """What a page loads, runs and wears."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            self.attributes.add(name)
            if name in {"href", "src", "srcset", "action", "data", "poster", "background"}:
                self.links.append(value or "")
        if tag in self.inline:
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.inline[self._inside].append(data)


async def test_the_root_leads_to_the_page(people_service):
    """GET / leads to the page, also behind a proxy that shows it below a path."""
    response = await people_service.http.get("/")

    assert (307, "docs") == (response.status_code, response.headers["location"])
    followed = await people_service.http.get("/", follow_redirects=True)
    assert (200, "/docs") == (followed.status_code, followed.url.path)


async def test_the_page_loads_nothing_from_elsewhere(page):
    """The page at /docs refers to its own origin only."""
    found = Page(page.text)

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert ["openapi.json"] == found.links
    for forbidden in (r"(https?:)?//\w", r"@import", r"url\(", r"\bimport\b"):
        assert not re.search(forbidden, re.sub(r"^\s*//.*$", "", page.text, flags=re.MULTILINE))


async def test_the_page_may_do_only_what_it_does(page):
    """The page's Content-Security-Policy lets its own script and style run, and nothing else."""
    found = Page(page.text)
    policy = dict(
        each.strip().partition(" ")[::2]
        for each in page.headers["content-security-policy"].split(";")
    )

    def hashed(kind: str) -> str:
        (text,) = found.inline[kind]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return f"'sha256-{digest}'"

    assert {
        "default-src": "'none'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "script-src": hashed("script"),
        "style-src": hashed("style"),
    } == policy
    # The policy would silently switch these off.
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]


async def test_the_page_writes_text_only(page):
    """What the service answers cannot become markup or code of the page."""
    (script,) = Page(page.text).inline["script"]

    assert "textContent" in script
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in script


def test_the_page_is_shipped():
    """Every file beside the modules that the package reads is part of a built package."""
    package = Path(responder.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["responder"]
    for path in package.rglob("*"):
        name = str(path.relative_to(package))
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            assert (name, True) == (name, any(fnmatch(name, each) for each in patterns))


# The admin listener, and where both listen


async def test_a_whole_responder_is_live_and_ready(people_service):
    """/live and /ready are 200 while PostgreSQL and NATS answer."""
    answers = [(await people_service.admin.get(each)).status_code for each in ("/live", "/ready")]

    assert [200, 200] == answers


async def test_what_operators_see_is_not_stored_on_the_way(people_service):
    """A probe that a cache answered would tell nothing: the admin listener forbids it, too."""
    for path in ("/live", "/ready", "/metrics"):
        response = await people_service.admin.get(path)

        assert (path, "no-store") == (path, response.headers.get("cache-control"))


async def test_the_admin_listener_is_apart(people_service):
    """Neither listener answers what the other is for."""
    assert 404 == (await people_service.admin.get("/docs")).status_code
    assert [404, 404, 404] == [
        (await people_service.http.get(each)).status_code
        for each in ("/live", "/ready", "/metrics")
    ]


@pytest.mark.heavy
async def test_ready_follows_postgresql():
    """/ready is 503 while PostgreSQL is gone and 200 when it is back; /live does not care."""
    port = free_port()
    async with nats.running() as server:
        first = people_database(port)
        url = await first.__aenter__()
        async with listeners(
            worker=True, server=server, DATABASE_URL=url, RESPONDER_TIMEOUT="0.5"
        ) as whole:
            try:
                before = (await whole.admin.get("/ready")).status_code
            finally:
                await first.__aexit__(None, None, None)
            refused = await eventually(whole.admin, "/ready", 503)
            live = (await whole.admin.get("/live")).status_code
            async with people_database(port):
                back = await eventually(whole.admin, "/ready", 200)

    assert (200, 503, 200, 200) == (before, refused.status_code, live, back.status_code)
    assert "127.0.0.1" not in refused.text


@asynccontextmanager
async def people_database(port: int) -> AsyncIterator[str]:
    """A PostgreSQL with the demo people on a port that is known before it starts."""
    async with postgres.running(settings={"port": str(port)}, password=PASSWORD) as server:
        connection = await asyncpg.connect(server.url)
        try:
            await tables.create_tables(connection)
            await tables.insert_people(connection)
        finally:
            await connection.close()
        yield server.url


async def test_a_lone_bridge_is_ready_without_a_worker(lone):
    """/ready of a lone bridge looks at NATS only."""
    assert 200 == (await lone.admin.get("/ready")).status_code


async def test_a_lone_bridge_follows_nats():
    """Without NATS a bridge is 503, /ready too, and both recover when NATS is back."""
    async with nats.running() as server:
        port = httpx.URL(server.url).port
        assert port
        async with listeners(server=server, RESPONDER_TIMEOUT="0.3") as bridge:
            server.process.send_signal(signal.SIGKILL)
            await server.process.wait()
            await eventually(bridge.admin, "/ready", 503)
            outage = await bridge.http.get("/api/v1/users/x")
            async with nats.running(port=port):
                await eventually(bridge.admin, "/ready", 200)
                back = await bridge.http.get("/api/v1/users/x")

    assert "NATS is out of reach" == (await problem(outage, "unavailable", 503))["detail"]
    assert "retry-after" in outage.headers
    detail = (await problem(back, "unavailable", 503))["detail"]
    assert detail.startswith("no worker listens on users.get: ")


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The figures at /metrics, as Prometheus reads them."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_metrics_count_requests(people_service, cast):
    """/metrics is valid for Prometheus and counts each request once, by template and status."""
    before = await samples(people_service.admin)

    await people_service.http.get(f"/api/v1/users/{cast.owner.id}")
    await people_service.http.get("/api/v1/users/nobody")
    await people_service.http.get("/nothing/one")
    await people_service.http.get("/nothing/two")

    after = await samples(people_service.admin)
    new = {key: value - before.get(key, 0) for key, value in after.items()}

    def http(route: str, status: str) -> float:
        labels = {"method": "GET", "route": route, "status": status}
        return new["responder_http_requests_total", frozenset(labels.items())]

    assert (1, 1, 2) == (
        http("/api/v1/users/{id}", "200"),
        http("/api/v1/users/{id}", "404"),
        http("none", "404"),
    )
    get = frozenset({("endpoint", "get")})
    not_found = get | {("code", "not_found")}
    assert 2 == new["responder_request_duration_seconds_count", get]
    assert new["responder_request_duration_seconds_sum", get] > 0
    assert 1 == new["responder_errors_total", not_found]
    assert 0 == after["responder_pending_requests", frozenset()]
    assert ("responder_images_omitted_total", frozenset()) in after


async def test_metrics_of_a_lone_bridge(lone):
    """A lone bridge tells of its requests and of NATS, and has nothing of a worker."""
    await lone.http.get("/api/v1/users/x")
    found = await samples(lone.admin)

    route = ("route", "/api/v1/users/{id}")
    answered = sum(
        value
        for (name, labels), value in found.items()
        if name == "responder_http_requests_total" and route in labels
    )
    assert answered >= 1
    assert answered == found["responder_http_request_duration_seconds_count", frozenset({route})]
    assert 1 == found["responder_nats_up", frozenset()]
    assert not [name for name, _ in found if re.search("postgres|endpoint|pending", name)]


async def test_off_switches_the_http_listener_off(template, create_database, cast):
    """Without the HTTP listener a worker still answers over NATS and to its operators."""
    url = await create_database(template=template[0])
    async with listeners(worker=True, DATABASE_URL=url, RESPONDER_HTTP_LISTEN="off") as found:
        async with await nats_py.connect(found.nats.url) as nc:
            reply = await nc.request("users.get", cast.owner.id.encode(), timeout=30)
        ready = await found.admin.get("/ready")

    assert (None, 200) == (found.running.http_url, ready.status_code)
    assert cast.owner.id == json.loads(reply.data)["id"]


async def test_off_switches_the_admin_listener_off():
    """Without the admin listener the bridge still answers."""
    async with listeners(RESPONDER_ADMIN_LISTEN="off") as found:
        response = await found.http.get("/docs")

    assert (None, 200) == (found.running.admin_url, response.status_code)


@pytest.mark.parametrize("setting", ["RESPONDER_HTTP_LISTEN", "RESPONDER_ADMIN_LISTEN"])
async def test_a_port_in_use_ends_the_start(setting):
    """A port that is taken is an error that names the setting and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables: dict[str, Any] = {setting: f"127.0.0.1:{port}"}
        expected = f"^{setting}: cannot listen on 127.0.0.1:{port}: Address already in use$"
        with pytest.raises(SettingsError, match=expected):
            async with listeners(**variables):
                pass


async def nothing(_: Any, __: Any, send: Any) -> None:
    """An app that has nothing to say."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_two_listeners_never_share_a_port():
    """The second responder on an address is refused even while the first is starting."""
    setting = "RESPONDER_HTTP_LISTEN"
    with (
        bind(("127.0.0.1", 0), setting=setting) as first,
        pytest.raises(SettingsError, match=r"^RESPONDER_HTTP_LISTEN: "),
    ):
        bind(first.getsockname(), setting=setting)


async def test_a_listener_takes_connections_from_the_start():
    """A client that is told the address of a listener can connect to it, however quickly."""
    address, setting = ("127.0.0.1", 0), "RESPONDER_HTTP_LISTEN"
    async with listening(nothing, address, setting, drain_timeout=1) as url:
        response = await send(url, b"GET /")

    assert 204 == response.status


async def test_listeners_take_ipv6():
    """An address in brackets is IPv6, and the URL shown is one to paste."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with listeners(RESPONDER_HTTP_LISTEN="[::1]:0") as found:
        response = await found.http.get("/docs")

    assert str(found.running.http_url).startswith("http://[::1]:")
    assert 200 == response.status_code
