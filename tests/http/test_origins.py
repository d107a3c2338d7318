"""Web pages of the origins that are named may read answers, and no others (CORS)."""

from __future__ import annotations

from typing import Any

import pytest

from responder.dev.tokens import Mint
from tests.raw_http import Answer, connected, get

APP = "https://app.example.com"
LISTED = f"http://localhost:3000, {APP}"
TOKEN = "Access-Control-Request-Headers: authorization,traceparent\r\n"
PREFLIGHT = f"Access-Control-Request-Method: GET\r\n{TOKEN}"
SHARED = {"access-control-allow-origin": APP} | {
    "access-control-expose-headers": "WWW-Authenticate, Retry-After"
}
ALLOWED = {
    "access-control-allow-origin": APP,
    "access-control-allow-methods": "GET, HEAD",
    "access-control-allow-headers": "Authorization, traceparent",
    "access-control-max-age": "600",
}


@pytest.fixture(scope="module")
async def site(people_service, start_for_module, tmp_path_factory) -> Any:
    """A service that some origins may ask, another that all may, and how to have a token."""
    mint = Mint()
    keys = mint.publish(tmp_path_factory.mktemp("keys") / "jwks.json")
    services = [
        await start_for_module(
            people_service.url, **keys, RESPONDER_HTTP_AUTH="required", RESPONDER_HTTP_ORIGINS=each
        )
        for each in (LISTED, "*")
    ]
    return (*services, mint)


async def ask(
    service: Any, path: str, *origins: str, method: str = "GET", more: str = ""
) -> Answer:
    head = "Host: x\r\nConnection: close\r\n" + "".join(f"Origin: {each}\r\n" for each in origins)
    request = get(path, (head + more).encode("latin-1"), method=method)
    async with connected(service.http.base_url) as client:
        await client.send(request)
        return await client.answer(bodiless=method == "HEAD")


def shared(answer: Answer) -> dict[str, str]:
    """What an answer says to browsers."""
    return {name: value for name, value in answer.headers if name.startswith("access-control-")}


def varies(answer: Answer) -> bool:
    return "Origin" in [value for name, value in answer.headers if name == "vary"]


async def test_a_page_of_a_listed_origin_reads_answers_and_errors(site, cast):
    """The origin is named with every answer of a route, whatever its status, and no other is."""
    listed, _, mint = site
    token = f"Authorization: Bearer {mint.token(cast.owner.id)}\r\n"
    for path, method, more, status in (
        (f"/api/v1/users/{cast.owner.id}", "GET", token, 200),
        (f"/api/v1/users/{cast.owner.id}", "HEAD", token, 200),
        (f"/api/v1/users?id={cast.owner.id}", "GET", token, 200),
        ("/api/v1/users", "GET", token, 400),
        ("/api/v1/me", "GET", "", 401),
        ("/api/v1/users/nobody", "GET", token, 404),
        ("/openapi.json", "GET", "", 200),
        ("/nothing", "GET", "", 404),
        ("/api/v1/users/x", "PUT", "", 405),
        ("/api/v1/users/x", "OPTIONS", "", 405),
    ):
        answer = await ask(listed, path, APP, method=method, more=more)

        assert (path, status, SHARED) == (path, answer.status, shared(answer))
        assert varies(answer)


async def test_a_browser_may_ask_before_it_sends_a_token(site):
    """A preflight is 204 without a token, says what is allowed, and has no body."""
    listed, _, _ = site
    for path in ("/api/v1/me", "/api/v1/users/x", "/api/v1/users?id=x", "/docs"):
        answer = await ask(listed, path, APP, method="OPTIONS", more=PREFLIGHT)

        assert (204, ALLOWED, b"") == (answer.status, shared(answer), answer.body)
        assert varies(answer)
        assert answer.header("content-length") is None


@pytest.mark.parametrize(
    "origins",
    [
        (),
        ("null",),
        ("",),
        ("*",),
        ("https://evil.example",),
        ("https://app.example.com.evil.example",),
        ("https://APP.example.com",),
        ("http://app.example.com",),
        ("https://app.example.com:8443",),
        ("https://app.example.com/",),
        ("http://localhost:3000, https://app.example.com",),
        (APP, APP),
        (APP, "https://evil.example"),
        ("https://app.example.com\xff",),
    ],
)
async def test_a_page_of_another_origin_reads_nothing(site, origins):
    """An origin that is not listed gets no header, nor does its preflight."""
    listed, _, _ = site
    answer = await ask(listed, "/api/v1/me", *origins)
    preflight = await ask(listed, "/api/v1/me", *origins, method="OPTIONS", more=PREFLIGHT)

    assert (401, {}, True) == (answer.status, shared(answer), varies(answer))
    assert (405, {}, True) == (preflight.status, shared(preflight), varies(preflight))


async def test_every_origin_that_has_a_name_may_ask_where_that_is_set(site):
    """With `*` each page may ask, but one of no origin: a sandbox or a file, whosever it is."""
    _, every, _ = site
    answers = [await ask(every, "/api/v1/me", each) for each in (APP, "https://x.example", "null")]

    assert ["*", "*", None] == [each.header("access-control-allow-origin") for each in answers]
    assert not [each for each in answers if each.header("access-control-allow-credentials")]
    preflight = await ask(every, "/api/v1/me", APP, method="OPTIONS", more=PREFLIGHT)
    assert (204, "*") == (preflight.status, preflight.header("access-control-allow-origin"))


async def test_no_origin_is_named_where_none_is_set(people_service):
    """By default nothing of an answer is for other origins, and OPTIONS is 405."""
    answer = await ask(people_service, "/docs", APP)
    preflight = await ask(people_service, "/api/v1/me", APP, method="OPTIONS", more=PREFLIGHT)

    assert (200, {}, False) == (answer.status, shared(answer), varies(answer))
    assert (405, {}, False) == (preflight.status, shared(preflight), varies(preflight))
