"""The whole service: its parts, wired and opened in order."""

# Strategy: this module alone knows every part. A part is made of the values it needs, without I/O,
# and is opened as a context. What is opened last is closed first: HTTP takes no more requests while
# NATS still answers, and the worker answers what has arrived while PostgreSQL is still there.
#
# The admin listener is opened before NATS is reached, so that a process that waits for NATS is seen
# to be alive and is not killed. All other parts are made of the connection to NATS; once they are
# made, the admin app shows them instead of the wait.

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from socket import socket
from typing import TYPE_CHECKING, Final

from responder.asking import Asker
from responder.directory import Directory
from responder.errors import (
    OperatorError,
    ResponderError,
    SchemaError,
    SettingsError,
    UnavailableError,
)
from responder.http.admin import READY_WITHIN, Admin, Check, Observed
from responder.http.bridge import Bridge
from responder.http.listener import listening, listening_for_admin
from responder.metrics import Metrics, WorkerFigures
from responder.nats.connection import Connection, connected
from responder.postgres.discovery import Discovery
from responder.postgres.dsn import Dsn
from responder.postgres.pool import Pool
from responder.settings import Settings
from responder.tokens.key_source import KeySource
from responder.tokens.verifier import TokenVerifier
from responder.worker import Worker

if TYPE_CHECKING:  # it is imported only where traces are wanted
    from responder.tracing import Tracing

log: Final = logging.getLogger(__name__)

POLL: Final = 0.1  # seconds between two looks at whether the service is ready
TRACES_GO_TO: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that runs: where it listens, and how its owner learns that it cannot go on."""

    http_url: str | None
    admin_url: str | None
    ended: asyncio.Event  # set when NATS or HTTP has ended for good
    checks: Sequence[Check]  # what has to work before the service is ready

    async def wait_ready(self) -> None:
        """Return once all works that /ready looks at, or the service has ended."""
        while not self.ended.is_set():
            try:
                for check in self.checks:
                    await check()
            except ResponderError:
                await asyncio.sleep(POLL)
            else:
                return


@asynccontextmanager
async def serving(
    settings: Settings,
    *,
    worker: bool = True,
    http_socket: socket | None = None,
    admin_socket: socket | None = None,
    demo_tokens: Mapping[str, str] | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[Running]:
    """Run worker, bridge and admin listener.

    Args:
        settings: of the process.
        worker: whether there is one, or the bridge alone.
        http_socket: what the bridge listens on, instead of the settings' address.
        admin_socket: what the admin listener listens on, likewise.
        demo_tokens: what the page at /docs offers to ask with, by name.
        tracing: makes spans of what happens, and exports them.

    Raises SettingsError if the settings cannot work.
    """
    settings.check(worker=worker)
    ended = asyncio.Event()
    admin = Admin(Observed(checks=[_nats_is_awaited]))
    admin_at, http_at = admin_socket or settings.admin_listen, http_socket or settings.http_listen
    async with (
        tracing.running() if tracing else nullcontext(),
        listening_for_admin(admin, admin_at, ended=ended)
        if admin_at
        else nullcontext() as admin_url,
        _connected(settings, ended, asks=bool(http_at)) as connection,
    ):
        dsn = settings.dsn if worker else None
        parts = _WorkerParts(settings, dsn, connection, tracing) if dsn else None
        bridge = _bridge(settings, connection, tracing, demo_tokens or {}) if http_at else None
        observed = _observed(settings, connection, parts, bridge)
        admin.show(observed)
        async with (
            parts.running() if parts else nullcontext(),
            _listening(bridge, http_at, settings, ended) as http_url,
        ):
            try:
                yield Running(
                    http_url=http_url, admin_url=admin_url, ended=ended, checks=observed.checks
                )
            finally:
                admin.show(Observed(checks=[_it_stops], metrics=observed.metrics))


class _WorkerParts:
    """The worker and what it takes: tables, and keys where tokens can be verified.

    Args:
        settings: of the process.
        dsn: of the settings.
        connection: to NATS.
        tracing: makes spans, if traces are wanted.
    """

    def __init__(
        self, settings: Settings, dsn: Dsn, connection: Connection, tracing: Tracing | None
    ) -> None:
        self._settings = settings
        self._dsn = dsn
        self._discovery = Discovery(
            overrides=settings.overrides, timezone=settings.timezone, rules=settings.rules
        )
        make_pool = tracing.pool if tracing else Pool
        self.pool: Pool = make_pool(
            dsn,
            self._discovery,
            connections=settings.connections,
            timeout=settings.timeout,
            max_pending=settings.max_pending,
            afterwards=connection.afterwards,
        )
        self.directory = Directory(
            self.pool,
            limits=connection.limits,
            max_batch=settings.max_batch,
        )
        issuer = settings.issuer
        self.keys = None
        if issuer and issuer.key_set_url is not None:
            self.keys = KeySource(issuer.key_set_url, presumed=issuer.key_set_is_presumed)
        self.worker = Worker(
            connection,
            self.directory,
            self.pool.batching,
            tokens=TokenVerifier(self.keys, issuer) if issuer else None,
            token_required=settings.nats_auth == "required",
            prefix=settings.subject_prefix,
            queue_group=settings.queue_group,
            timeout=settings.timeout,
            drain_timeout=settings.drain_timeout / 2,
            version=version("better-auth-responder"),
            request=tracing.request if tracing else None,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the parts; the worker takes requests once the tables have been looked for."""
        if self._dsn.ignored:
            log.info("DATABASE_URL: left out %s", ", ".join(self._dsn.ignored))
        if not self._settings.issuer:
            log.info("tokens are answered unavailable: %s", self._settings.missing_issuer)
        elif self._settings.unused_key_set:
            log.warning("the key set is not used: %s", self._settings.missing_issuer)
        async with self.pool.running(), self.keys.running() if self.keys else nullcontext():
            await _first_discovery(self._discovery, self._settings.timeout)
            async with self.worker.running():
                yield


async def _first_discovery(discovery: Discovery, timeout: float) -> None:
    """Wait until the tables have been looked for, or `timeout` seconds have passed.

    Raises SettingsError where only the operator can decide, for example between two sets of tables.
    """
    try:
        async with asyncio.timeout(timeout):
            await discovery.settled.wait()
            _ = discovery.statements
    except OperatorError as problem:
        raise SettingsError(problem.message) from None
    except (SchemaError, TimeoutError):
        log.warning("started without the tables; they are looked for until they are there")


def _connected(
    settings: Settings, ended: asyncio.Event, *, asks: bool
) -> AbstractAsyncContextManager[Connection]:
    return connected(
        settings.nats_url,
        name="responder",
        options=settings.nats_options(),
        silence=settings.timeout,
        ended=ended,
        asks=asks,
    )


def _bridge(
    settings: Settings,
    connection: Connection,
    tracing: Tracing | None,
    demo_tokens: Mapping[str, str],
) -> Bridge:
    make = tracing.bridge if tracing else Bridge
    return make(
        Asker(transport=connection, prefix=settings.subject_prefix, timeout=settings.timeout),
        auth_required=settings.http_auth == "required",
        successors=settings.successors,
        additional=settings.additional_keys,
        origins=settings.http_origins,
        demo_tokens=demo_tokens,
    )


def _listening(
    bridge: Bridge | None,
    at: socket | tuple[str, int] | None,
    settings: Settings,
    ended: asyncio.Event,
) -> AbstractAsyncContextManager[str | None]:
    if bridge is None or at is None:
        return nullcontext()
    return listening(
        bridge,
        at,
        "RESPONDER_HTTP_LISTEN",
        drain_timeout=settings.drain_timeout / 2,
        keep_alive=settings.http_keep_alive,
        ended=ended,
    )


def _observed(
    settings: Settings,
    connection: Connection,
    parts: _WorkerParts | None,
    bridge: Bridge | None,
) -> Observed:
    """Return what operators see of these parts."""

    async def nats_answers() -> None:
        await connection.check(min(settings.timeout, READY_WITHIN))

    if parts is None:
        return Observed(checks=[nats_answers], metrics=Metrics(nats=connection, bridge=bridge))
    return Observed(
        checks=[nats_answers, lambda: parts.pool.check(min(settings.timeout, READY_WITHIN))],
        warnings=[parts.pool.warning, *([parts.keys.warning] if parts.keys else [])],
        metrics=Metrics(
            nats=connection,
            bridge=bridge,
            worker=WorkerFigures(
                statistics=parts.worker.service.statistics,
                pool=parts.pool,
                connections=settings.connections,
                max_pending=settings.max_pending,
                directory=parts.directory,
                keys=parts.keys,
            ),
        ),
    )


async def _nats_is_awaited() -> None:
    raise UnavailableError("NATS is out of reach")


async def _it_stops() -> None:
    raise UnavailableError("it is shutting down")


def wanted_tracing() -> Tracing | None:
    """Return what exports traces, if the environment asks for that as OpenTelemetry has it."""
    given = os.environ.get
    if given("OTEL_SDK_DISABLED", "").lower() == "true" or given("OTEL_TRACES_EXPORTER") == "none":
        return None
    if not any(map(given, TRACES_GO_TO)):
        return None
    try:
        from responder.tracing import Tracing  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        # Clusters set such variables for all programs: it is no reason not to start.
        log.warning("no traces are exported: pip install 'better-auth-responder[otel]'")
        return None
    return Tracing()
