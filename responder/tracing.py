"""Spans of requests and of their lookups, for OpenTelemetry."""

# https://opentelemetry.io/docs/specs/semconv/
#
# Nothing imports this module while no traces are wanted, so that they cost nothing then, and need
# not be installed: what a worker, a pool and a bridge do besides is added here to each of them.
#
# A request over HTTP has a span, of which the request over NATS that comes of it is a child; that
# has a child, too, for each time it is looked up. Requests that share a query have a span each for
# it, at the same time, so that each trace is whole. What is refused unread has none.
#
# Spans tell of subjects, routes, codes and counts: nothing of who asks, or for whom.

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from importlib.metadata import version
from typing import Any, Final
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from responder import wire
from responder.batching import Answer, Batch, Callback, Line
from responder.errors import InvalidRequestError
from responder.http.bridge import Bridge
from responder.http.response import Response
from responder.models import Identity
from responder.postgres.connection import Record
from responder.postgres.pool import Pool
from responder.postgres.schema import Schema
from responder.postgres.source import Asked, Attempt, How, Source
from responder.worker import Request

log: Final = logging.getLogger(__name__)

LAST: Final = 3.0  # seconds that exporting the last spans may take
SERVER_ERROR: Final = 500  # HTTP statuses from here on are ours, and so are the codes of errors
_TRACE: Final = (wire.TRACEPARENT.encode(), wire.TRACESTATE.encode())

_trace_context = TraceContextTextMapPropagator()  # and no baggage, which may hold anything
_current: ContextVar[Span] = ContextVar("responder_span", default=INVALID_SPAN)


class Tracing:
    """Makes the parts of a service that are traced, and exports their spans.

    Without a processor the exporter is that of OTLP over HTTP, set by the environment variables of
    OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …).
    """

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        tracer = self._provider.get_tracer("responder", version("better-auth-responder"))
        self.bridge: Callable[..., Bridge] = partial(_TracedBridge, tracer)
        self.pool: Callable[..., Pool] = partial(_TracedPool, tracer)
        self.request: Callable[..., Request] = partial(_TracedRequest, tracer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Export while the context is open; leaving exports what is left, within LAST seconds."""
        try:
            yield
        finally:
            # A collector that does not answer must not keep the process.
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            await asyncio.to_thread(last.join, LAST)
            if last.is_alive():
                log.warning("the last spans were not exported in time")


def _resource() -> Resource:
    """Return what is traced, for the most part as the environment says."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Resource.create(
        {
            "service.version": version("better-auth-responder"),
            "service.instance.id": str(uuid4()),
            **({} if named else {"service.name": "responder"}),
        }
    )


def _parent(headers: Mapping[str, Sequence[str]]) -> Context:
    """Return the trace that headers, by lower-cased name, belong to."""
    return _trace_context.extract(headers, context=Context())


class _TracedRequest(Request):
    """A request over NATS with a span, from when it is read to its answer."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, *arrived: Any) -> None:
        super().__init__(*arrived)
        self._tracer = tracer
        self._span: Span = INVALID_SPAN

    def accept(self, headers: bytes) -> None:
        """Begin the span, and go on."""
        read: Mapping[str, Sequence[str]] = {}
        with suppress(InvalidRequestError):  # which the request is answered with
            read = wire.decode_headers(headers) if headers else {}
        subject = self._endpoint.statistics.subject
        self._span = self._tracer.start_span(
            f"process {subject}",
            context=_parent(read),
            kind=SpanKind.SERVER,
            attributes={"messaging.system": "nats", "messaging.destination.name": subject},
        )
        super().accept(headers)

    def _load(self, identity: Identity | None) -> None:
        before = _current.set(self._span)
        try:
            super()._load(identity)
        finally:
            _current.reset(before)

    def answer(self, answer: Answer) -> None:
        """Send the answer, and end the span."""
        super().answer(answer)
        if not isinstance(answer, bytes):
            _fail(self._span, answer.code, ours=answer.number >= SERVER_ERROR)
        self._span.end()


class _TracedCallback:
    """Takes the answer to a lookup, and knows the span of its request."""

    def __init__(self, callback: Callback, span: Span) -> None:
        self._callback = callback
        self.span = span

    def __call__(self, answer: Answer) -> None:
        self._callback(answer)


class _TracedPool(Pool):
    """A pool whose lookups have spans."""

    def __init__(self, tracer: Tracer, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.source = partial(_TracedSource, tracer)

    def load(self, line: Line[Any, How], key: Any, *, deadline: float, callback: Callback) -> None:
        """Let a key wait in a line, with the span of the request that it is from."""
        span = _current.get()
        if span.is_recording():
            callback = _TracedCallback(callback, span)
        super().load(line, key, deadline=deadline, callback=callback)


class _TracedSource(Source):
    """A source whose batches have spans, one for each request, until there are rows."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer
        self._spans: list[Span] = []  # of the batch under way

    async def answer_batches(self) -> None:
        """Answer batches; the spans of one that is given up end, too."""
        try:
            await super().answer_batches()
        finally:
            self._end_spans()

    def take(self, batch: Batch[Any, How]) -> None:
        """Begin the spans, and answer the batch."""
        if self._discovery.found is not None:  # or it waits for the tables first
            callbacks = [waiter.callback for waiter in batch.waiters]
            self._spans = [
                self._tracer.start_span(
                    "lookup",
                    context=set_span_in_context(callback.span, Context()),
                    kind=SpanKind.CLIENT,
                    attributes={
                        "db.system.name": "postgresql",
                        "db.operation.batch.size": len(callbacks),
                    },
                )
                for callback in callbacks
                if isinstance(callback, _TracedCallback)
            ]
        super().take(batch)

    def answered(self, asked: Asked, rows: list[Record], error: BaseException | None) -> None:
        """End the spans where there are rows, and take these."""
        if error is None:
            self._end_spans()
        super().answered(asked, rows, error)

    def go_on(self, batch: Batch[Any, How], attempt: Attempt, made_for: Schema | None) -> None:
        """Have a coroutine answer the batch, after which the spans end."""
        super().go_on(batch, self._told(attempt), made_for)

    async def _told(self, attempt: Attempt) -> None:
        try:
            await attempt
        except Exception as error:
            for span in self._spans:  # an error's message may hold values
                _fail(span, type(error).__name__, ours=True)
            raise
        finally:
            self._end_spans()

    def _end_spans(self) -> None:
        while self._spans:
            self._spans.pop().end()


class _TracedBridge(Bridge):
    """A bridge whose requests have spans, to which those over NATS belong."""

    def __init__(self, tracer: Tracer, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracer = tracer

    async def _respond(self, scope: Scope, method: str) -> tuple[str, Response]:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        read: dict[str, list[str]] = {}
        for name, value in headers:
            if name in _TRACE:
                read.setdefault(name.decode(), []).append(value.decode("latin-1"))
        span = self._tracer.start_span(
            method,
            context=_parent(read),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        passed_on: dict[str, str] = {}
        _trace_context.inject(passed_on, context=set_span_in_context(span, Context()))
        others = [each for each in headers if each[0] not in _TRACE]
        trace = [(name.encode(), value.encode("latin-1")) for name, value in passed_on.items()]
        try:
            template, response = await super()._respond(
                {**scope, "headers": [*others, *trace]}, method
            )
            span.update_name(f"{method} {template}")
            span.set_attribute("http.route", template)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= SERVER_ERROR:
                _fail(span, str(response.status), ours=True)
            return template, response
        finally:
            span.end()


def _fail(span: Span, what: str, *, ours: bool) -> None:
    """Note an error; one that is the caller's own does not make the span one that failed."""
    span.set_attribute("error.type", what)
    if ours:
        span.set_status(Status(StatusCode.ERROR))
