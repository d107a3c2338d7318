"""Live, ready, metrics: an ASGI app for those who operate the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

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
from responder.micro import BUCKETS, Endpoint

Check = Callable[[], Awaitable[None]]


def admin(checks: Iterable[Check], collector: Collector) -> Starlette:
    """Return the app.

    Args:
        checks: return if what they look at works, else raise a ResponderError that says what is wrong.
        collector: what /metrics shows.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)

    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        for check in checks:
            try:
                await check()
            except ResponderError as error:
                return PlainTextResponse(f"not ready: {error.message}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/live", live), Route("/ready", ready), Route("/metrics", metrics)]
    )


class Metrics(Collector):
    """The figures of a process, read where they are kept when somebody asks for them."""

    def __init__(
        self,
        *,
        endpoints: Iterable[Endpoint] = (),
        pending: Callable[[], int] | None = None,
        images_omitted: Callable[[], int] | None = None,
        http_requests: Mapping[tuple[str, str, int], int] | None = None,
    ) -> None:
        self._endpoints = list(endpoints)
        self._pending = pending
        self._images_omitted = images_omitted
        self._http_requests = http_requests

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        if self._endpoints:
            yield from self._answers()
        if self._pending:
            yield GaugeMetricFamily(
                "responder_pending_requests", "waiting or being answered", self._pending()
            )
        if self._images_omitted:
            yield CounterMetricFamily(
                "responder_images_omitted",
                "images that did not fit into a message",
                self._images_omitted(),
            )
        if self._http_requests is not None:
            http = CounterMetricFamily(
                "responder_http_requests",
                "HTTP requests answered",
                labels=["method", "route", "status"],
            )
            for (method, route, status), count in self._http_requests.items():
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
        for endpoint in self._endpoints:
            total, buckets = 0, []
            for bound, count in zip((*BUCKETS, "+Inf"), endpoint.buckets, strict=True):
                total += count
                buckets.append((str(bound), total))
            seconds.add_metric([endpoint.name], buckets, endpoint.seconds)
            for code, count in endpoint.errors.items():
                errors.add_metric([endpoint.name, code], count)
        yield seconds
        yield errors
