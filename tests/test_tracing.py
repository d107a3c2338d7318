"""Traces: spans of requests over HTTP and NATS and of lookups, in the traces of those who ask."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from responder.app import Running, serving
from responder.settings import Settings
from responder.tracing import Tracing
from tests import privacy
from tests.conftest import Service
from tests.postgres.test_pool import waiting_for_locks
from tests.signing import sign_by_secret
from tests.test_cli import serving as variables
from tests.test_cli import started

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=kept,other=1"}
SECRET = "the secret of tests that are traced and of nothing"


@dataclass(frozen=True)
class Traced:
    """A service that is traced, and the spans that it has ended."""

    service: Service
    running: Running
    exporter: InMemorySpanExporter

    async def ask(self, subject: str, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Ask over NATS, with nothing ended before."""
        self.exporter.clear()
        return await self.service.ask(f"traced.{subject}", payload, headers)

    def spans(self) -> list[ReadableSpan]:
        """What has ended, in the order in which it began."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda each: each.start_time or 0)
        for each in spans:
            privacy.LEDGER.hear("a span", each.to_json())
        return spans


@pytest.fixture(scope="module")
async def traced(people_service):
    """A service on the demo people, beside another."""
    settings = Settings.read(
        {
            "DATABASE_URL": people_service.url,
            "NATS_URL": people_service.nats.url,
            "RESPONDER_SUBJECT_PREFIX": "traced",
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_ADMIN_LISTEN": "off",
            "RESPONDER_JWT_SECRET": SECRET,
        }
    )
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    async with serving(settings, tracing=tracing) as running:
        await running.wait_ready()
        yield Traced(people_service, running, exporter)


def names(spans: list[ReadableSpan]) -> list[str]:
    return [each.name for each in spans]


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.context
    assert parent.context
    same = child.context.trace_id == parent.context.trace_id
    return same and child.parent is not None and child.parent.span_id == parent.context.span_id


async def test_a_request_over_http_is_three_spans_of_the_callers_trace(traced, cast):
    """HTTP, NATS and lookup, each the child of the one before, with the state of the trace."""
    traced.exporter.clear()
    async with httpx.AsyncClient(trust_env=False, headers=PARENT) as http:
        answer = await http.get(f"{traced.running.http_url}/api/v1/users/{cast.owner.id}")
    spans = traced.spans()

    assert 200 == answer.status_code
    assert ["GET /api/v1/users/{id}", "process traced.get", "lookup"] == names(spans)
    assert [SpanKind.SERVER, SpanKind.SERVER, SpanKind.CLIENT] == [each.kind for each in spans]
    over_http, over_nats, lookup = spans
    assert over_http.parent
    assert (TRACE, CALLER) == (
        f"{over_http.parent.trace_id:032x}",
        f"{over_http.parent.span_id:016x}",
    )
    assert is_child(over_nats, over_http)
    assert is_child(lookup, over_nats)
    states = [each.context.trace_state.to_header() for each in spans if each.context]
    assert [PARENT["tracestate"]] * 3 == states
    assert {
        "http.request.method": "GET",
        "http.route": "/api/v1/users/{id}",
        "http.response.status_code": 200,
    } == over_http.attributes
    assert {"db.system.name": "postgresql", "db.operation.batch.size": 1} == lookup.attributes


@pytest.mark.parametrize("count", [1, 20])
async def test_a_lookup_ends_before_its_request(traced, count):
    """Its span tells of PostgreSQL, and not of what is made of the rows."""
    traced.exporter.clear()
    await asyncio.gather(*(traced.service.ask("traced.get", f"{n}") for n in range(count)))
    spans = traced.spans()

    lookups = [each for each in spans if each.name == "lookup"]
    ends = {each.context.span_id: each.end_time for each in spans if each.context}
    assert count == len(lookups)
    assert all(each.end_time < ends[each.parent.span_id] for each in lookups)


@pytest.mark.parametrize("pooler", ["", "?pgbouncer=true"])
async def test_a_service_ends_although_a_query_hangs(service, people_service, pooler):
    """Behind a pooler, too, where it stands in a transaction; and the spans of its lookups end."""
    settings = Settings.read(
        {
            "DATABASE_URL": service.url + pooler,
            "NATS_URL": people_service.nats.url,
            "RESPONDER_SUBJECT_PREFIX": "hangs",
            "RESPONDER_HTTP_LISTEN": "off",
            "RESPONDER_ADMIN_LISTEN": "off",
            "RESPONDER_JWT_SECRET": SECRET,
            "RESPONDER_TIMEOUT": "60",
            "RESPONDER_DRAIN_TIMEOUT": "0.2",
        }
    )
    exporter = InMemorySpanExporter()
    async with service.database.acquire() as connection, connection.transaction():
        async with asyncio.timeout(30):
            async with serving(settings, tracing=Tracing(SimpleSpanProcessor(exporter))) as running:
                await running.wait_ready()
                await connection.execute("lock table users")
                asked = [
                    asyncio.create_task(people_service.ask("hangs.get", f"{n}")) for n in range(3)
                ]
                await waiting_for_locks(service, 1)
            answers = await asyncio.gather(*asked)

    assert ["unavailable"] * 3 == [each.code for each in answers]
    spans = exporter.get_finished_spans()
    assert 3 == sum(each.name == "lookup" for each in spans)


async def test_a_request_over_nats_belongs_to_the_trace_of_its_headers(traced, cast):
    """In any case of their names; without any the request begins a trace."""
    await traced.ask("get", cast.owner.id, {"Traceparent": PARENT["traceparent"]})
    over_nats, lookup = traced.spans()
    await traced.ask("get", cast.owner.id)
    alone, _ = traced.spans()

    assert over_nats.parent
    assert CALLER == f"{over_nats.parent.span_id:016x}"
    assert is_child(lookup, over_nats)
    assert None is alone.parent


@pytest.mark.parametrize("parent", ["", "rubbish", f"00-{'0' * 32}-{CALLER}-01", "\u00e9"])
async def test_a_trace_that_is_none_disturbs_nothing(traced, cast, parent):
    """The request is answered, and begins a trace of its own."""
    answer = await traced.ask("get", cast.owner.id, {"traceparent": parent})
    over_nats, _ = traced.spans()

    assert cast.owner.id == answer.json["id"]
    assert None is over_nats.parent


async def test_a_caller_that_does_not_sample_is_not_sampled(traced, cast):
    """The decision of the trace holds for all of it."""
    await traced.ask("get", cast.owner.id, {"traceparent": f"00-{TRACE}-{CALLER}-00"})

    assert [] == traced.spans()


async def test_a_token_that_is_verified_first_loses_no_trace(traced, cast):
    """A request whose token is not remembered waits, and is looked up as one of its trace."""
    token = sign_by_secret(
        {"sub": cast.owner.id, "role": "user", "iat": 1, "exp": 4_000_000_000}, SECRET
    )
    headers = {"Authorization": f"Bearer {token}", **PARENT}
    answers = [await traced.ask("whoami", "", headers) for _ in range(2)]
    over_nats, lookup = traced.spans()

    assert [cast.owner.id] * 2 == [each.json["user"]["id"] for each in answers]
    assert is_child(lookup, over_nats)


async def test_requests_that_share_a_query_each_have_it_in_their_trace(traced, cast):
    """However many go together, no trace ends at the worker."""
    traced.exporter.clear()
    people = [cast.owner.id, cast.viewer.id] * 20
    await asyncio.gather(*(traced.service.ask("traced.get", each) for each in people))
    spans = traced.spans()
    requests = [each for each in spans if each.name != "lookup"]
    lookups = [each for each in spans if each.name == "lookup"]
    sizes = [each.attributes["db.operation.batch.size"] for each in lookups if each.attributes]

    assert len(people) == len(requests) == len(lookups)
    assert all(any(is_child(child, parent) for child in lookups) for parent in requests)
    assert max(sizes) > 1


@pytest.mark.parametrize(
    ("payload", "headers", "code", "failed"),
    [
        ("nobody", {}, "not_found", False),
        (b"\xff", {}, "invalid_request", False),
        ("x", {"Authorization": "Basic x"}, "unauthenticated", False),
        ("x", {"Responder-Timeout-Ms": "0"}, "timeout", True),
    ],
)
async def test_an_error_has_its_code(traced, payload, headers, code, failed):
    """Those that are the caller's own do not make the span one that failed."""
    answer = await traced.ask("get", payload, headers)
    span = next(each for each in traced.spans() if each.name == "process traced.get")

    assert code == answer.code
    assert span.attributes
    assert code == span.attributes["error.type"]
    assert failed is (not span.status.is_unset)


# The program


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Any]]]:
    """What a collector of OTLP over HTTP is for an exporter: its URL, and the spans it is sent."""
    spans: list[Any] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        assert head.startswith("post /v1/traces ")
        if "content-encoding: gzip" in head:
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            spans.extend((about, span) for scope in resource.scope_spans for span in scope.spans)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", spans


async def test_spans_reach_a_collector(people_service, cast, tmp_path):
    """`responder serve` exports as OpenTelemetry's variables say; what is left, when it ends."""
    others = variables(people_service.url, people_service.nats.url)
    async with (
        collector() as (url, spans),
        started(
            "serve",
            cwd=tmp_path,
            **others,
            RESPONDER_SUBJECT_PREFIX="collected",
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        ) as running,
    ):
        at, _ = await running.urls()
        async with httpx.AsyncClient(trust_env=False, headers=PARENT) as http:
            answer = await http.get(f"{at}/api/v1/users/email/{cast.owner.email}")
        code = await running.stop()
        told = running.err.read_text()

    assert 200 == answer.status_code
    assert 0 == code
    assert all(json.loads(line)["level"] == "info" for line in told.splitlines())
    found = {span.name: span for _, span in spans}
    assert {"GET /api/v1/users/email/{email}", "process collected.by_email", "lookup"} == {*found}
    assert {TRACE} == {span.trace_id.hex() for span in found.values()}
    assert {PARENT["tracestate"]} == {span.trace_state for span in found.values()}
    about, _ = spans[0]
    assert ("responder", "test") == (about["service.name"], about["deployment.environment.name"])
    assert {"service.version", "service.instance.id"} < {*about}
    for span in found.values():
        privacy.LEDGER.hear("a span", str(span))


def test_without_traces_nothing_of_them_is_imported(tmp_path):
    """What is not wanted, or is disabled by OpenTelemetry's own variables, costs nothing."""
    code = (
        "import os, sys; from responder import app, cli; assert app.wanted_tracing() is None; "
        "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:1'; "
        "os.environ['OTEL_SDK_DISABLED'] = 'true'; assert app.wanted_tracing() is None; "
        "del os.environ['OTEL_SDK_DISABLED']; "
        "os.environ['OTEL_TRACES_EXPORTER'] = 'none'; assert app.wanted_tracing() is None; "
        "print([each for each in sys.modules if each.startswith('opentelemetry')])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)

    assert "[]\n" == printed


def test_traces_that_cannot_be_exported_are_no_reason_not_to_start(tmp_path):
    """A cluster may set the variables for programs that have no OpenTelemetry: a line says so."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None; "
        "from responder import app, cli; assert app.wanted_tracing() is None"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "no traces are exported: pip install 'better-auth-responder[otel]'" in ran.stderr
