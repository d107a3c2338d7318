"""The HTTP bridge: requests are answered by asking a worker over NATS (an ASGI app)."""

# Strategy: a request over HTTP becomes one over NATS, and the bytes of its reply become the body of
# the answer; what the worker decides is not decided here. Routes are matched on the path as it was
# sent. For example, the `%2F` of /api/v1/users/email/a%2Fb@x.example belongs to the email, and a
# router that decodes first would take it for the slash between two segments.
#
# What is refused is refused as early as it can be: before the path is decoded where a token is
# required and there is none, and before NATS is asked wherever the bridge can tell.

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from time import perf_counter
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from responder import bearer, wire
from responder.asking import Asker
from responder.endpoints import ENDPOINTS, IN_PATH, WRITES, Endpoint
from responder.errors import (
    ForbiddenError,
    InternalError,
    NotFoundError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.histogram import SECONDS, Histogram
from responder.http.openapi import DEFAULT_SUCCESSORS, document
from responder.http.origins import Origins
from responder.http.parameters import Query
from responder.http.response import Response, problem, raw
from responder.http.target import decode_segment
from responder.telling import is_wanted, tell, trace_of
from responder.throttling import ThrottledLog
from responder.tokens.identity import MAX_TOKEN

repeated: Final = ThrottledLog(__name__)

NO_ROUTE: Final = "none"  # in place of one, where figures are told
VARY: Final = {"vary": "Authorization"}
JSON: Final = raw({"content-type": "application/json", **VARY})

# What answers a route; it is given the request, and the parameter in its path as it was sent.
Serve: TypeAlias = Callable[[Scope, bytes], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    template: str
    methods: dict[str, Serve]
    pattern: re.Pattern[bytes]


class Bridge:
    """Answers HTTP requests by asking a worker over NATS.

    Args:
        asker: asks the worker.
        auth_required: whether a request without a token is refused.
        successors: the base of Better Auth's HTTP API, where writes go, if it is known.
        additional: the keys of additional fields that a User has.
        origins: whose web pages may read answers.
        demo_tokens: what the page offers to ask with, by name, where people are no real ones.

    Attributes:
        requests: how many were answered, by method, route and status.
        seconds: how long they took, by route.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        auth_required: bool,
        successors: str | None = None,
        additional: Sequence[str] = (),
        origins: Sequence[str] = (),
        demo_tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._tells = is_wanted()
        self._asker = asker
        self._auth_required = auth_required
        self._successors = successors
        self._origins = Origins(origins) if origins else None
        routes: dict[str, dict[str, Serve]] = {}
        for endpoint in ENDPOINTS:
            if endpoint.route:
                forward = self._forwarder(endpoint, endpoint.route)
                routes[endpoint.route] = {"GET": forward, "HEAD": forward}
        for write in WRITES:
            for path in (f"/api/v1{write.path}", write.path):
                routes.setdefault(path, {})[write.method] = self._gone(write.successor)
        contract = document(
            successors=successors,
            token_required=auth_required,
            additional=additional,
            demo_tokens=demo_tokens,
        )
        openapi = _static(msgspec.json.encode(contract), {"content-type": "application/json"})
        page = files("responder.http").joinpath("docs.html").read_bytes()
        html = {"content-type": "text/html; charset=utf-8"}
        docs = _static(page, {**html, "content-security-policy": _policy(page)})
        routes["/openapi.json"] = {"GET": openapi, "HEAD": openapi}
        routes["/docs"] = {"GET": docs, "HEAD": docs}
        # A relative place is good behind a path prefix, too.
        home = _always(Response(307, raw({"location": "docs"}), b""))
        routes["/"] = {"GET": home, "HEAD": home}
        self._routes = [_route(template, methods) for template, methods in routes.items()]
        self.seconds: dict[str, Histogram] = {
            template: Histogram(SECONDS) for template in (*routes, NO_ROUTE)
        }

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        start = perf_counter()
        method = scope["method"]
        template, response = await self._respond(scope, method)
        if self._origins:
            response = self._origins.shared(method, scope["headers"], response)
        self.requests[method, template, response.status] += 1
        took = perf_counter() - start
        self.seconds[template].add(took)
        if self._tells:
            sent = b"".join(b"\r\n%b:%b" % each for each in scope["headers"])
            tell(f"{method} {template}", response.status, took, trace_of(sent))
        await response.send(send)

    async def _respond(self, scope: Scope, method: str) -> tuple[str, Response]:
        path: bytes = scope["raw_path"]
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is None:
                continue
            serve = route.methods.get(method)
            if serve is None:
                return route.template, _method_not_allowed(route.methods)
            try:
                return route.template, await serve(scope, match[1] if match.lastindex else b"")
            except ResponderError as error:
                return route.template, _failure(error, scope)
            except Exception as error:  # noqa: BLE001 - it is logged
                repeated.error(
                    "a request to %s failed", route.template, exc_info=error, kind=route.template
                )
                return route.template, _failure(InternalError(), scope)
        return NO_ROUTE, _failure(NotFoundError("no such route"), scope)

    def _forwarder(self, endpoint: Endpoint[Any, Any], route: str) -> Serve:
        """Return what answers a route: it asks the endpoint, and passes the reply's bytes on."""
        key = "".join(IN_PATH.findall(route))
        fields = {each.encode_name: each.name for each in msgspec.structs.fields(endpoint.request)}
        in_path = fields.get(key)
        query = Query(endpoint.request, in_path=key)
        token_required = self._auth_required or endpoint.needs_token
        ask = self._asker.reply

        async def forward(scope: Scope, segment: bytes) -> Response:
            headers = _passed_on(scope["headers"], token_required=token_required)
            asked = {in_path: decode_segment(segment)} if in_path else {}
            asked |= query.read(scope["query_string"])
            payload = wire.encode_request(endpoint.request(**asked))
            return Response(200, JSON, await ask(endpoint, payload, headers=headers))

        return forward

    def _gone(self, endpoint: str) -> Serve:
        """Return what answers a write: 410, with the endpoint of Better Auth that does it."""
        base = self._successors or DEFAULT_SUCCESSORS
        name = f"POST {urlsplit(base).path}/{endpoint}"
        headers = dict(VARY)
        if self._successors:
            headers["link"] = f'<{base}/{endpoint}>; rel="successor-version"'
        detail = f"users are written by Better Auth: {name}"
        return _always(problem(410, "gone", detail, headers=headers, successor=name))


def _route(template: str, methods: dict[str, Serve]) -> _Route:
    pattern = "([^/]+)".join(map(re.escape, IN_PATH.sub("{}", template).split("{}")))
    return _Route(template, methods, re.compile(pattern.encode()))


def _always(response: Response) -> Serve:
    """Return what answers each request alike."""

    async def serve(_: Scope, __: bytes) -> Response:
        return response

    return serve


def _static(body: bytes, headers: dict[str, str]) -> Serve:
    return _always(Response(200, raw(headers), body))


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


def _passed_on(headers: Sequence[tuple[bytes, bytes]], *, token_required: bool) -> dict[str, str]:
    """Return the headers that are passed on to the worker: the token, and the trace.

    Raises UnauthenticatedError without a token where one is required, for more than one, and for
    one that no worker would verify.
    """
    sent: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _PASSED_ON:
            sent.setdefault(name, []).append(value.decode("latin-1"))
    token = bearer.read(sent.get(b"authorization", ()))
    if token is None and token_required:
        raise UnauthenticatedError(bearer.NO_TOKEN)
    if token is not None and len(token) > MAX_TOKEN:
        raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN} characters")
    passed_on = {} if token is None else {bearer.HEADER: f"Bearer {token}"}
    if b"traceparent" in sent:
        passed_on[wire.TRACEPARENT] = sent[b"traceparent"][0]
        if b"tracestate" in sent:  # which means nothing alone
            passed_on[wire.TRACESTATE] = ",".join(sent[b"tracestate"])
    return passed_on


_PASSED_ON: Final = frozenset({b"authorization", b"traceparent", b"tracestate"})


def _failure(error: ResponderError, scope: Scope) -> Response:
    headers = dict(VARY)
    if isinstance(error, UnauthenticatedError | ForbiddenError):
        headers["www-authenticate"] = bearer.challenge(
            error, _values(scope["headers"], b"authorization")
        )
    if isinstance(error, UnavailableError):
        headers["retry-after"] = "1"
    return problem(error.number, error.code, error.message, headers=headers)


def _values(headers: Sequence[tuple[bytes, bytes]], of: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == of]


def _method_not_allowed(methods: dict[str, Serve]) -> Response:
    allow = ", ".join(sorted(methods))
    return problem(
        405, "method_not_allowed", f"allowed here: {allow}", headers={**VARY, "allow": allow}
    )
