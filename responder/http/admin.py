"""The admin app: /live, /ready and /metrics, for those who operate the service."""

# Strategy: what the app shows is one value, `Observed`. A service that starts shows one in which it
# is not ready, and replaces it once by one of its parts. The parts are not changed for it: whether
# they work, and their figures, are looked at when a request for /ready or /metrics arrives.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from responder.errors import ResponderError
from responder.nats.service import BUCKETS, Statistics
from responder.tokens.key_source import KeySource

READY_WITHIN: Final = 0.8  # seconds: a probe of Kubernetes waits for one

Check = Callable[[], Awaitable[None]]
Warn = Callable[[], str | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Metrics(Collector):
    """The figures of a process, read where they are kept; a part that is missing has none.

    Args:
        statistics: of each endpoint of the worker.
        pending: returns how many lookups wait or are under way.
        images_omitted: returns how many images did not fit into a message.
        additional_omitted: returns of how many users the additional fields did not.
        keys: of the issuer of tokens.
        http_requests: how many the bridge has answered, by method, route and status.
        lost: how many messages to NATS did not leave, by the reason; of a process without a worker,
            which sends little, only once there are any.
    """

    statistics: Sequence[Statistics] = ()
    pending: Callable[[], int] | None = None
    images_omitted: Callable[[], int] | None = None
    additional_omitted: Callable[[], int] | None = None
    keys: KeySource | None = None
    http_requests: Mapping[tuple[str, str, int], int] | None = None
    lost: Mapping[str, int] = field(default_factory=dict)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        if self.statistics:
            yield from _answers(self.statistics)
        if self.pending:
            yield GaugeMetricFamily(
                "responder_pending_requests", "waiting or being answered", self.pending()
            )
        if self.images_omitted:
            yield CounterMetricFamily(
                "responder_images_omitted",
                "images that did not fit into a message",
                self.images_omitted(),
            )
        if self.additional_omitted:
            yield CounterMetricFamily(
                "responder_additional_fields_omitted",
                "users whose additional fields did not fit into a message",
                self.additional_omitted(),
            )
        if self.keys and self.keys.expected:
            yield from _key_set(self.keys)
        if self.http_requests is not None:
            yield _http(self.http_requests)
        if self.lost and (self.statistics or any(self.lost.values())):
            yield _lost(self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What operators see of a service.

    Args:
        checks: each returns within READY_WITHIN if what it looks at works, else raises a
            ResponderError that says what is wrong.
        warnings: each says what should be mended though the service is ready, or returns None.
        metrics: the figures that /metrics shows.
    """

    checks: Sequence[Check]
    warnings: Sequence[Warn] = ()
    metrics: Metrics = field(default_factory=Metrics)


class Admin:
    """Answers operators (an ASGI app).

    Args:
        observed: what they see while the service starts.
    """

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._app = Starlette(
            routes=[
                Route("/live", self._live),
                Route("/ready", self._ready),
                Route("/metrics", self._metrics),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        await self._app(scope, receive, send)

    def show(self, observed: Observed) -> None:
        """Show this from now on: the parts of the service, once they are made."""
        self._observed = observed

    async def _live(self, _: Request) -> Response:
        return text("live")

    async def _ready(self, _: Request) -> Response:
        observed = self._observed
        found = await asyncio.gather(*(_problem(check) for check in observed.checks))
        if problems := [f"not ready: {each}" for each in found if each is not None]:
            return text("\n".join(problems), status=503)
        warnings = [warning for warn in observed.warnings if (warning := warn())]
        return text("\n".join(["ready", *(f"warning: {each}" for each in warnings)]))

    async def _metrics(self, _: Request) -> Response:
        return figures(self._observed.metrics)


async def _problem(check: Check) -> str | None:
    """Return what a check finds wrong, or None."""
    try:
        await check()
    except ResponderError as error:
        return error.message
    return None


def text(lines: str, *, status: int = 200) -> Response:
    """Return an answer for a person, and for programs that look at its status."""
    return PlainTextResponse(f"{lines}\n", status_code=status)


def figures(collector: Collector) -> Response:
    """Return what a collector yields, as Prometheus reads it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    body = generate_latest(registry)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _answers(statistics: Sequence[Statistics]) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(
        "responder_request_duration_seconds",
        "from a request's arrival to its answer",
        labels=["endpoint"],
    )
    errors = CounterMetricFamily(
        "responder_errors", "requests answered with an error", labels=["endpoint", "code"]
    )
    for its in statistics:
        total, buckets = 0, []
        for bound, count in zip((*BUCKETS, "+Inf"), its.buckets, strict=True):
            total += count
            buckets.append((str(bound), total))
        seconds.add_metric([its.name], buckets, its.seconds)
        for code, count in its.errors.items():
            errors.add_metric([its.name, code], count)
    yield seconds
    yield errors


def _key_set(source: KeySource) -> Iterator[Metric]:
    known = source.key_set
    name = "responder_key_set"
    yield GaugeMetricFamily(f"{name}_keys", "keys known", len(known.keys) if known else 0)
    yield GaugeMetricFamily(f"{name}_age_seconds", "since the last good fetch", source.age)
    yield CounterMetricFamily(f"{name}_fetches", "attempts to fetch the key set", source.downloads)
    yield CounterMetricFamily(f"{name}_failures", "attempts that failed", source.failures)


def _http(requests: Mapping[tuple[str, str, int], int]) -> Metric:
    answered = CounterMetricFamily(
        "responder_http_requests", "HTTP requests answered", labels=["method", "route", "status"]
    )
    for (method, route, status), count in requests.items():
        answered.add_metric([method, route, str(status)], count)
    return answered


def _lost(messages: Mapping[str, int]) -> Metric:
    lost = CounterMetricFamily(
        "responder_messages_lost", "messages that did not leave to NATS", labels=["reason"]
    )
    for reason, count in messages.items():
        lost.add_metric([reason], count)
    return lost
