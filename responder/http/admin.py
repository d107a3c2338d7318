"""Live, ready, metrics: an ASGI app for those who operate the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from responder.errors import ResponderError
from responder.nats.service import BUCKETS, Statistics
from responder.tokens.key_set import Keys

NO_STORE: Final = {"Cache-Control": "no-store"}

Check = Callable[[], Awaitable[None]]
Warn = Callable[[], str | None]


def admin(
    checks: Iterable[Check], collector: Collector, *, warnings: Iterable[Warn] = ()
) -> Starlette:
    """Return the app.

    Args:
        checks: return if what they look at works, else raise a ResponderError that says what is wrong;
            there may be more of them later.
        collector: what /metrics shows.
        warnings: say what should be mended, though the service is ready.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)

    async def live(_: Request) -> Response:
        return text("live")

    async def ready(_: Request) -> Response:
        for check in checks:
            try:
                await check()
            except ResponderError as error:
                return text(f"not ready: {error.message}", status=503)
        found = [warning for warn in warnings if (warning := warn())]
        return text("\n".join(["ready", *(f"warning: {each}" for each in found)]))

    async def metrics(_: Request) -> Response:
        body = generate_latest(registry)
        return Response(body, media_type=CONTENT_TYPE_LATEST, headers=NO_STORE)

    return Starlette(
        routes=[Route("/live", live), Route("/ready", ready), Route("/metrics", metrics)]
    )


def text(lines: str, *, status: int = 200) -> Response:
    """Return an answer for a person, and for programs that look at its status."""
    return PlainTextResponse(f"{lines}\n", status_code=status, headers=NO_STORE)


@dataclass(eq=False, kw_only=True)
class Metrics(Collector):
    """The figures of a process, read where they are kept when somebody asks for them."""

    statistics: Sequence[Statistics] = ()
    pending: Callable[[], int] | None = None
    images_omitted: Callable[[], int] | None = None
    keys: Keys | None = None
    http_requests: Mapping[tuple[str, str, int], int] | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        if self.statistics:
            yield from self._answers()
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
        if self.keys:
            yield from _key_set(self.keys)
        if self.http_requests is not None:
            http = CounterMetricFamily(
                "responder_http_requests",
                "HTTP requests answered",
                labels=["method", "route", "status"],
            )
            for (method, route, status), count in self.http_requests.items():
                http.add_metric([method, route, str(status)], count)
            yield http

    def _answers(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "responder_request_duration_seconds",
            "from a request's arrival to its answer",
            labels=["endpoint"],
        )
        errors = CounterMetricFamily(
            "responder_errors", "requests answered with an error", labels=["endpoint", "code"]
        )
        for its in self.statistics:
            total, buckets = 0, []
            for bound, count in zip((*BUCKETS, "+Inf"), its.buckets, strict=True):
                total += count
                buckets.append((str(bound), total))
            seconds.add_metric([its.name], buckets, its.seconds)
            for code, count in its.errors.items():
                errors.add_metric([its.name, code], count)
        yield seconds
        yield errors


def _key_set(keys: Keys) -> Iterator[Metric]:
    known = keys.known
    name = "responder_key_set"
    yield GaugeMetricFamily(f"{name}_keys", "keys known", len(known.keys) if known else 0)
    yield GaugeMetricFamily(f"{name}_age_seconds", "since the last good fetch", keys.age)
    yield CounterMetricFamily(f"{name}_fetches", "attempts to fetch the key set", keys.fetches)
    yield CounterMetricFamily(f"{name}_failures", "attempts that failed", keys.failures)
