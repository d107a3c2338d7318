"""The figures of a process, as Prometheus reads them."""

# https://prometheus.io/docs/practices/naming/
#
# Figures are kept where they arise, and read there when /metrics is asked for: nothing is done for
# them while a request is answered but to count it. What may be counted under a label is there from
# the start, with zero: Prometheus does not see the step from no counter at all to 1, which for a
# rare error is the one that matters. docs/operating.md has a table of them.

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from responder.directory import Directory
from responder.errors import BY_CODE
from responder.histogram import Histogram
from responder.http.bridge import Bridge
from responder.nats.service import Statistics
from responder.postgres.pool import Pool
from responder.tokens.key_source import KeySource

_PROCESS = ProcessCollector(registry=None)


class NatsFigures(Protocol):
    """What a connection to NATS tells of itself."""

    @property
    def is_connected(self) -> bool:
        """Whether there is one now."""

    @property
    def lost(self) -> Mapping[str, int]:
        """How many messages did not leave, by the reason."""

    reconnects: int


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkerFigures:
    """What the parts of a worker tell of themselves.

    Args:
        statistics: of each endpoint.
        pool: of connections to PostgreSQL.
        connections: how many it is to hold.
        max_pending: how many requests may wait or be under way.
        directory: of lookups.
        keys: of the issuer of tokens, if there are any.
    """

    statistics: Sequence[Statistics]
    pool: Pool
    connections: int
    max_pending: int
    directory: Directory
    keys: KeySource | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Metrics(Collector):
    """The figures of a process; a part that it does not have has none."""

    nats: NatsFigures | None = None
    worker: WorkerFigures | None = None
    bridge: Bridge | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        yield from process()
        if self.nats:
            yield from _nats(self.nats)
        if self.worker:
            yield from _requests(self.worker)
            yield from _postgres(self.worker)
            if self.worker.keys and self.worker.keys.expected:
                yield from _key_set(self.worker.keys)
        if self.bridge:
            yield from _http(self.bridge)


def process() -> Iterator[Metric]:
    """Yield which program this is, and what it takes of the machine."""
    labels = {
        "version": version("better-auth-responder"),
        "python_version": platform.python_version(),
    }
    yield InfoMetricFamily("responder_build", "Version of responder and of Python.", labels)
    yield from _PROCESS.collect()


def _nats(nats: NatsFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "responder_nats_up", "Whether there is a connection to NATS.", nats.is_connected
    )
    yield CounterMetricFamily(
        "responder_nats_reconnects", "Connections to NATS after the first.", nats.reconnects
    )
    lost = CounterMetricFamily(
        "responder_messages_lost", "Messages that did not leave to NATS.", labels=["reason"]
    )
    for reason, count in nats.lost.items():
        lost.add_metric([reason], count)
    yield lost


def _requests(worker: WorkerFigures) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(
        "responder_request_duration_seconds",
        "Requests over NATS, from their arrival to their answer.",
        labels=["endpoint"],
    )
    errors = CounterMetricFamily(
        "responder_errors",
        "Requests that were answered with an error.",
        labels=["endpoint", "code"],
    )
    for its in worker.statistics:
        seconds.add_metric([its.name], *_spread(its.seconds))
        for code in BY_CODE:
            errors.add_metric([its.name, code], its.errors[code])
    yield seconds
    yield errors
    yield GaugeMetricFamily(
        "responder_pending_requests",
        "Requests that wait for PostgreSQL or are being looked up.",
        worker.pool.batching.pending,
    )
    yield GaugeMetricFamily(
        "responder_pending_requests_limit",
        "RESPONDER_MAX_PENDING: more are refused.",
        worker.max_pending,
    )
    yield CounterMetricFamily(
        "responder_images_omitted",
        "Images that did not fit into a message.",
        worker.directory.omitted.images,
    )
    yield CounterMetricFamily(
        "responder_additional_fields_omitted",
        "Users whose additional fields did not fit into a message.",
        worker.directory.omitted.additional,
    )


def _postgres(worker: WorkerFigures) -> Iterator[Metric]:
    pool = worker.pool
    yield GaugeMetricFamily(
        "responder_postgres_up",
        "Whether PostgreSQL is connected, and has answered within the timeout.",
        pool.connected > 0 and not pool.pulse.silent,
    )
    yield GaugeMetricFamily(
        "responder_tables_found", "Whether Better Auth's tables are there.", pool.has_tables
    )
    yield GaugeMetricFamily(
        "responder_postgres_connections", "Connections to PostgreSQL.", pool.connected
    )
    yield GaugeMetricFamily(
        "responder_postgres_connections_limit",
        "RESPONDER_CONNECTIONS: so many are held.",
        worker.connections,
    )
    yield CounterMetricFamily(
        "responder_postgres_connections_lost", "Connections to PostgreSQL that ended.", pool.lost
    )
    yield _histogram(
        "responder_postgres_query_duration_seconds",
        "Queries, from sending one to its last row or its failure.",
        pool.pulse.seconds,
    )
    yield _histogram("responder_batch_size", "Requests that shared a query.", pool.batch_sizes)


def _key_set(source: KeySource) -> Iterator[Metric]:
    known = source.key_set
    name = "responder_key_set"
    yield GaugeMetricFamily(f"{name}_keys", "Keys that are known.", len(known.keys) if known else 0)
    yield GaugeMetricFamily(
        f"{name}_age_seconds", "Time since the key set was last fetched.", source.age
    )
    yield CounterMetricFamily(f"{name}_fetches", "Attempts to fetch the key set.", source.downloads)
    yield CounterMetricFamily(
        f"{name}_failures", "Attempts to fetch the key set that failed.", source.failures
    )


def _http(bridge: Bridge) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "responder_http_requests",
        "Requests over HTTP that were answered.",
        labels=["method", "route", "status"],
    )
    for (method, route, status), count in bridge.requests.items():
        answered.add_metric([method, route, str(status)], count)
    yield answered
    seconds = HistogramMetricFamily(
        "responder_http_request_duration_seconds",
        "Requests over HTTP, from their head to their answer.",
        labels=["route"],
    )
    for route, its in bridge.seconds.items():
        seconds.add_metric([route], *_spread(its))
    yield seconds


def _histogram(name: str, documentation: str, values: Histogram) -> Metric:
    metric = HistogramMetricFamily(name, documentation)
    metric.add_metric([], *_spread(values))
    return metric


def _spread(values: Histogram) -> tuple[Any, float]:
    """Return buckets and sum, as prometheus_client takes them."""
    return list(values.cumulated()), values.sum
