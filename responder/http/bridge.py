"""The HTTP bridge: requests are answered by asking a worker over NATS (an ASGI app)."""

# Strategy: a request over HTTP becomes one over NATS, and the bytes of its reply become the body of
# the answer; what the worker decides is not decided here. Starlette gives requests and responses,
# and not its router: routes are matched here, on the path as it was sent. For example, the `%2F` of
# /api/v1/users/email/a%2Fb@x.example belongs to the email, and a router that decodes first would
# take it for the slash between two segments.

from __future__ import annotations

import base64
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from responder import wire
from responder.client import UsersClient
from responder.endpoints import ENDPOINTS, WRITES, Endpoint
from responder.errors import (
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.http.openapi import document
from responder.throttling import ThrottledLog

log = logging.getLogger(__name__)
repeated = ThrottledLog(__name__)

VARY: Final = {"Vary": "Authorization"}
DEFAULT_SUCCESSORS: Final = "/api/auth"

Serve: TypeAlias = Callable[[Request, str], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    template: str
    methods: dict[str, Serve]
    pattern: re.Pattern[bytes]


class Bridge:
    """Answers HTTP requests by asking a worker over NATS.

    Args:
        client: asks the worker.
        auth_required: whether a request without a token is refused.
        successors: the base of Better Auth's HTTP API, where writes go, if it is known.
    """

    def __init__(
        self, client: UsersClient, *, auth_required: bool, successors: str | None = None
    ) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._client = client
        self._auth_required = auth_required
        self._successors = successors
        routes: dict[str, dict[str, Serve]] = {}
        for endpoint in ENDPOINTS:
            if endpoint.route:
                forward = self._forwarder(endpoint, endpoint.route)
                routes[endpoint.route] = {"GET": forward, "HEAD": forward}
        for write in WRITES:
            for path in (f"/api/v1{write.path}", write.path):
                routes.setdefault(path, {})[write.method] = self._gone(write.successor)
        contract = document(successors=urlsplit(successors or DEFAULT_SUCCESSORS).path)
        openapi = _static(msgspec.json.encode(contract), "application/json")
        page = files("responder.http").joinpath("docs.html").read_bytes()
        docs = _static(page, "text/html", {"Content-Security-Policy": _policy(page)})
        routes["/openapi.json"] = {"GET": openapi, "HEAD": openapi}
        routes["/docs"] = {"GET": docs, "HEAD": docs}
        self._routes = [_route(template, methods) for template, methods in routes.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        request = Request(scope, receive)
        template, response = await self._respond(request)
        self.requests[request.method, template, response.status_code] += 1
        log.debug("%s %s %d", request.method, template, response.status_code)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> tuple[str, Response]:
        path: bytes = request.scope["raw_path"]
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is None:
                continue
            serve = route.methods.get(request.method)
            if serve is None:
                return route.template, _method_not_allowed(route.methods)
            try:
                parameter = _decode(match[1]) if match.lastindex else ""
                return route.template, await serve(request, parameter)
            except ResponderError as error:
                return route.template, _problem(error, request)
            except Exception as error:  # noqa: BLE001 - it is logged
                repeated.error(
                    "a request to %s failed", route.template, exc_info=error, kind=route.template
                )
                return route.template, _problem(InternalError(), request)
        return "none", _problem(NotFoundError("no such route"), request)

    def _forwarder(self, endpoint: Endpoint[Any, Any], route: str) -> Serve:
        """Return what answers a route: it asks the endpoint, and passes the reply's bytes on."""
        key = "".join(_PARAMETER.findall(route))

        async def forward(request: Request, parameter: str) -> Response:
            asked = {key: parameter} if key else {}
            organization = _organization(request)
            headers = self._headers(request)
            payload = wire.encode_request(endpoint.request(**asked, organization_id=organization))
            body = await self._client.reply_bytes(endpoint, payload, headers=headers)
            return Response(body, media_type="application/json", headers=VARY)

        return forward

    def _headers(self, request: Request) -> dict[str, str]:
        """Return the headers that are passed on to the worker: the token, and the trace.

        Raises UnauthenticatedError without a token where one is required, and for more than one.
        """
        headers = {}
        authorization = request.headers.getlist(wire.AUTHORIZATION)
        if not authorization and self._auth_required:
            raise UnauthenticatedError(wire.NO_TOKEN)
        if len(authorization) > 1:
            raise UnauthenticatedError("expected exactly one Authorization: Bearer <JWT>")
        if authorization:
            headers[wire.AUTHORIZATION] = authorization[0]
        if trace := request.headers.get(wire.TRACEPARENT):
            headers[wire.TRACEPARENT] = trace
        return headers

    def _gone(self, endpoint: str) -> Serve:
        """Return what answers a write: 410, with the endpoint of Better Auth that does it."""
        base = self._successors or DEFAULT_SUCCESSORS
        name = f"POST {urlsplit(base).path}/{endpoint}"
        headers = dict(VARY)
        if self._successors:
            headers["Link"] = f'<{base}/{endpoint}>; rel="successor-version"'
        response = _problem_response(
            HTTPStatus.GONE,
            "gone",
            f"users are written by Better Auth: {name}",
            headers,
            successor=name,
        )

        async def serve(_: Request, __: str) -> Response:
            return response

        return serve


def _route(template: str, methods: dict[str, Serve]) -> _Route:
    pattern = "([^/]+)".join(map(re.escape, _PARAMETER.sub("{}", template).split("{}")))
    return _Route(template, methods, re.compile(pattern.encode()))


_PARAMETER = re.compile(r"\{(\w+)\}")


def _static(body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Serve:
    async def serve(_: Request, __: str) -> Response:
        return Response(body, media_type=media_type, headers=headers)

    return serve


def _policy(page: bytes) -> str:
    """Return the Content-Security-Policy of a page.

    The page may run its own script, use its own style, and send requests to its own origin.
    """
    allowed = []
    for kind in ("script", "style"):
        parts = re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), page, re.DOTALL)
        hashes = [base64.b64encode(sha256(part).digest()).decode() for part in parts]
        allowed.append(" ".join([f"{kind}-src", *(f"'sha256-{each}'" for each in hashes)]))
    own = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'"
    return "; ".join([own, "frame-ancestors 'none'", *allowed])


def _decode(segment: bytes) -> str:
    """Decode a segment of a path, once; raises InvalidRequestError. `+` stands for itself there."""
    if _BAD_ESCAPE.search(segment):
        raise InvalidRequestError("path: % is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("path: not UTF-8") from None


_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _organization(request: Request) -> str | None:
    """Return `organizationId` from the query.

    Raises InvalidRequestError for any other parameter, a repeated one, and what is not UTF-8.
    """
    try:
        query = request.scope["query_string"].decode("ascii")
        given = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequestError("query: not UTF-8") from None
    names = [name for name, _ in given]
    unknown = [name for name in names if name != "organizationId"]
    if unknown:
        raise InvalidRequestError(f"unknown query parameter: {wire.excerpt(unknown[0])}")
    if len(names) > 1:
        raise InvalidRequestError("organizationId: given more than once")
    return given[0][1] if given else None


def _problem(error: ResponderError, request: Request) -> Response:
    headers = dict(VARY)
    if isinstance(error, UnauthenticatedError | ForbiddenError):
        headers["WWW-Authenticate"] = _challenge(error, request)
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = "1"
    return _problem_response(HTTPStatus(error.number), error.code, error.message, headers)


def _challenge(error: ResponderError, request: Request) -> str:
    """Return the WWW-Authenticate header of an error, as RFC 6750, section 3 wants it.

    It says what is wrong with a bearer token. A client that has sent none is told the scheme only.
    """
    challenge = 'Bearer realm="users"'
    scheme, _, _ = request.headers.get(wire.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer":
        return challenge
    code = "insufficient_scope" if isinstance(error, ForbiddenError) else "invalid_token"
    return f'{challenge}, error="{code}", error_description="{_QUOTED.sub("", error.message)}"'


_QUOTED = re.compile(r"[^ !#-\[\]-~]")  # not allowed in error_description (RFC 6750, section 3)


def _method_not_allowed(methods: dict[str, Serve]) -> Response:
    allow = ", ".join(sorted(methods))
    return _problem_response(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method_not_allowed",
        f"allowed here: {allow}",
        {**VARY, "Allow": allow},
    )


def _problem_response(
    status: HTTPStatus, code: str, detail: str, headers: dict[str, str], **more: str
) -> Response:
    """An error as RFC 9457 writes it."""
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(
        msgspec.json.encode(body),
        status_code=status.value,
        media_type="application/problem+json",
        headers=headers,
    )
