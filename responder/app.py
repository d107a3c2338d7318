"""The whole service, wired, in one `async with`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from socket import socket

from responder.client import UsersClient
from responder.directory import Directory
from responder.errors import (
    OperatorError,
    SchemaError,
    SettingsError,
    UnavailableError,
)
from responder.http.admin import Check, Metrics, Warn, admin
from responder.http.bridge import Bridge
from responder.http.listener import bind, listening, url_of
from responder.nats.connection import Connection, connected
from responder.postgres.discovery import Discovery
from responder.postgres.pool import Pool
from responder.settings import Settings
from responder.tokens.key_set import Keys
from responder.tokens.verifier import TokenVerifier
from responder.worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that runs: where it listens, and how one learns that it cannot go on."""

    http_url: str | None
    admin_url: str | None
    ended: asyncio.Event  # set when NATS or HTTP has ended for good


@asynccontextmanager
async def serving(
    settings: Settings,
    *,
    worker: bool = True,
    http: socket | None = None,
    operators: socket | None = None,
) -> AsyncIterator[Running]:
    """Run worker, bridge and admin listener, or the bridge without the worker.

    What is opened last is closed first: HTTP takes no more requests while NATS still answers, the
    worker answers what has arrived while PostgreSQL is still there.

    Args:
        settings: of the process.
        worker: whether there is one.
        http: what the bridge listens on, instead of the settings' address.
        operators: what the admin listener listens on, likewise.

    Raises SettingsError if the settings cannot work.
    """
    settings.check(worker=worker)
    checks: list[Check] = [_not_started]
    warnings: list[Warn] = []
    metrics = Metrics()
    ended = asyncio.Event()
    async with AsyncExitStack() as stack:
        # Admin first, because waiting for NATS is nothing to be killed for.
        if settings.admin_listen and not operators:
            operators = bind(settings.admin_listen, setting="RESPONDER_ADMIN_LISTEN")
        if operators:
            app = admin(checks, metrics, warnings=warnings)
            await stack.enter_async_context(listening(app, operators, drain_timeout=1, ended=ended))
        connection = await stack.enter_async_context(
            connected(
                settings.nats_url, name="responder", options=settings.nats_options(), ended=ended
            )
        )
        checks[:] = [lambda: connection.check(settings.timeout)]
        if worker and settings.dsn:
            if settings.dsn.ignored:
                log.info("DATABASE_URL: left out %s", ", ".join(settings.dsn.ignored))
            discovery = Discovery(
                overrides=settings.overrides, timezone=settings.timezone, rules=settings.rules
            )
            pool = Pool(
                settings.dsn,
                discovery,
                connections=settings.connections,
                timeout=settings.timeout,
                max_pending=settings.max_pending,
            )
            await stack.enter_async_context(pool.running())
            checks.append(pool.check)
            tokens = None
            if settings.issuer:
                keys = await stack.enter_async_context(Keys(settings.issuer.key_set).running())
                tokens = TokenVerifier(keys, settings.issuer)
                metrics.keys = keys
                warnings.append(keys.warn)
            else:
                log.info("tokens are answered unavailable: %s", settings.missing_issuer)
            await _first_discovery(discovery, settings.timeout)
            await stack.enter_async_context(
                _worker(settings, connection, pool, metrics, tokens).running()
            )
        if settings.http_listen and not http:
            http = bind(settings.http_listen, setting="RESPONDER_HTTP_LISTEN")
        if http:
            bridge = Bridge(
                UsersClient(connection, prefix=settings.subject_prefix, timeout=settings.timeout),
                auth_required=settings.http_auth == "required",
                successors=settings.successors,
            )
            metrics.http_requests = bridge.requests
            drain = settings.drain_timeout / 2
            await stack.enter_async_context(
                listening(bridge, http, drain_timeout=drain, ended=ended)
            )
        yield Running(
            http_url=url_of(http) if http else None,
            admin_url=url_of(operators) if operators else None,
            ended=ended,
        )


def _worker(
    settings: Settings,
    connection: Connection,
    pool: Pool,
    metrics: Metrics,
    tokens: TokenVerifier | None,
) -> Worker:
    directory = Directory(
        pool, max_reply=lambda: connection.max_payload, max_batch=settings.max_batch
    )
    worker = Worker(
        connection,
        directory,
        pool.batching,
        tokens=tokens,
        token_required=settings.nats_auth == "required",
        prefix=settings.subject_prefix,
        queue_group=settings.queue_group,
        timeout=settings.timeout,
        drain_timeout=settings.drain_timeout / 2,
        version=version("better-auth-responder"),
    )
    metrics.statistics = worker.service.statistics
    metrics.pending = lambda: pool.batching.pending
    metrics.images_omitted = lambda: directory.images_omitted
    return worker


async def _first_discovery(discovery: Discovery, timeout: float) -> None:
    """Wait a little for the tables to be found: what only the operator can decide ends the start."""
    try:
        async with asyncio.timeout(timeout):
            await discovery.settled.wait()
            _ = discovery.statements
    except OperatorError as problem:
        raise SettingsError(problem.message) from None
    except (SchemaError, TimeoutError):
        log.warning("started without the tables; they are looked for until they are there")


async def _not_started() -> None:
    raise UnavailableError("NATS is out of reach")
