"""The admin app: /live, /ready and /metrics, for those who operate the service."""

# Strategy: what the app shows is one value, `Observed`. A service that starts shows one in which it
# is not ready, and replaces it once by one of its parts. The parts are not changed for it: whether
# they work, and their figures, are looked at when a request for /ready or /metrics arrives.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from responder.errors import ResponderError
from responder.metrics import Metrics

READY_WITHIN: Final = 0.8  # seconds: a probe of Kubernetes waits for one

Check = Callable[[], Awaitable[None]]
Warn = Callable[[], str | None]


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
    metrics: Collector = field(default_factory=Metrics)


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
        # The checks are tasks (by `gather`), and all else needs none.
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
