"""Several worker processes, supervised, as one service."""

# Strategy: each worker is a `responder serve` of its own, with its own connections and its own place in
# the queue group; NATS shares the requests out. What must be one is held here and passed on: the socket
# of the bridge, on which all of them accept, so that a worker that ends takes no connection along that it
# has not accepted; and the listener for operators, which asks all of them. Figures are told apart by a
# label, because the counters of a worker that was started again begin at nothing.
#
# A worker that ends by itself is started again, later each time; one that says its settings cannot work is
# not. A worker whose supervisor is gone, however that ended, reads the end of its standard input, and ends.

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from responder.http.admin import figures, text
from responder.http.listener import BACKLOG, bind, listening, url_of
from responder.settings import Settings

log = logging.getLogger(__name__)

MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds before a worker is started again
HEALTHY: Final = 10.0  # seconds after which a worker has not failed to start
GRACE: Final = 5.0  # seconds beyond its drain timeout, before a worker is killed
CANNOT_WORK: Final = 2  # exit status of one whose settings cannot work
OK, UNAVAILABLE = 200, 503


async def supervise(settings: Settings, *, count: int) -> int:
    """Run workers until cancelled, or until one says that the settings cannot work; then return 2.

    Args:
        settings: as the workers will read them from the environment too.
        count: how many.

    Raises SettingsError.
    """
    settings.check(worker=True)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="responder-")))
        bridge = None
        if settings.http_listen:
            bridge = stack.enter_context(
                bind(settings.http_listen, setting="RESPONDER_HTTP_LISTEN")
            )
        workers = [
            Worker(
                number,
                directory / f"{number}.sock",
                bridge,
                patience=2 * settings.timeout + 1,
                drain_timeout=settings.drain_timeout,
            )
            for number in range(1, count + 1)
        ]
        admin_url = None
        if at := settings.admin_listen:
            app = combined(workers)
            listener = listening(app, at, "RESPONDER_ADMIN_LISTEN", drain_timeout=1)
            admin_url = await stack.enter_async_context(listener)
        log.info(
            "%d workers: HTTP %s, admin %s",
            count,
            url_of(bridge) if bridge else "off",
            admin_url or "off",
        )
        return await _until_one_cannot_work(workers)


async def _until_one_cannot_work(workers: Sequence[Worker]) -> int:
    tasks = [asyncio.create_task(each.keep(), name=f"worker-{each.number}") for each in workers]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Worker:
    """A worker process that is there again whenever it has ended.

    Args:
        number: from 1.
        path: of the socket on which it answers for itself.
        bridge: the socket on which it accepts HTTP, if it does.
        patience: seconds it may take to answer for itself.
        drain_timeout: seconds it takes to end at most.
    """

    def __init__(
        self,
        number: int,
        path: Path,
        bridge: socket.socket | None,
        *,
        patience: float,
        drain_timeout: float,
    ) -> None:
        self.number = number
        self.restarts = 0
        self.running = False
        self._path = path
        self._bridge = bridge
        self._drain_timeout = drain_timeout
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path)),
            base_url="http://worker",
            timeout=patience,
        )

    async def keep(self) -> int:
        """Run it again and again; return the status of one that need not be tried again."""
        pause = MIN_PAUSE
        async with self._client:
            while True:
                start = monotonic()
                async with self._process() as process:
                    status = await process.wait()
                if status == CANNOT_WORK:
                    return status
                log.error("worker %d has ended with status %d", self.number, status)
                pause = MIN_PAUSE if monotonic() - start > HEALTHY else min(2 * pause, MAX_PAUSE)
                await asyncio.sleep(pause)
                self.restarts += 1

    async def ask(self, path: str) -> tuple[int, str]:
        """Ask the worker for a page of its listener for operators: HTTP status and text."""
        if not self.running:
            return UNAVAILABLE, "not running"
        try:
            answer = await self._client.get(path)
        except httpx.HTTPError:
            return UNAVAILABLE, "no answer"
        return answer.status_code, answer.text.strip()

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[Process]:
        """Start the process; leaving ends it, and kills it if it does not."""
        with self._listening() as operators:
            sockets = {"admin": operators} | ({"http": self._bridge} if self._bridge else {})
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "responder", "serve"),
                *(f"--{name}-socket={sock.fileno()}" for name, sock in sockets.items()),
                *([] if self._bridge else ["--no-http"]),
                stdin=PIPE,  # ends when we do
                pass_fds=[sock.fileno() for sock in sockets.values()],
            )
        self.running = True
        try:
            yield process
        finally:
            self.running = False
            if process.returncode is None:
                process.terminate()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), self._drain_timeout + GRACE)
            if process.returncode is None:
                log.error("worker %d did not end, and is killed", self.number)
                process.kill()
            await process.wait()

    def _listening(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(os.fspath(self._path))
        sock.listen(BACKLOG)
        return sock


def combined(workers: Sequence[Worker]) -> Starlette:
    """Return the listener for operators of all workers: it says good of them if all do."""

    async def state(request: Request) -> Response:
        answers = await asyncio.gather(*(each.ask(request.url.path) for each in workers))
        lines = [
            f"worker {worker.number}: {line}"
            for worker, (_, answer) in zip(workers, answers, strict=True)
            for line in answer.splitlines()
        ]
        good = all(status == OK for status, _ in answers)
        return text("\n".join(lines), status=OK if good else UNAVAILABLE)

    async def metrics(_: Request) -> Response:
        answers = await asyncio.gather(*(each.ask("/metrics") for each in workers))
        pages = {
            worker.number: page
            for worker, (status, page) in zip(workers, answers, strict=True)
            if status == OK
        }
        return figures(_Figures(workers, pages))

    return Starlette(
        routes=[Route("/live", state), Route("/ready", state), Route("/metrics", metrics)]
    )


class _Figures(Collector):
    """The figures of all workers, each with the worker it is of."""

    def __init__(self, workers: Sequence[Worker], pages: Mapping[int, str]) -> None:
        self._workers = workers
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        restarts = CounterMetricFamily(
            "responder_worker_restarts", "times a worker was started again", labels=["worker"]
        )
        for worker in self._workers:
            restarts.add_metric([str(worker.number)], worker.restarts)
        running = sum(worker.running for worker in self._workers)
        yield GaugeMetricFamily("responder_workers", "worker processes that run", running)
        yield restarts
        merged: dict[str, Metric] = {}
        for number, page in self._pages.items():
            for family in text_string_to_metric_families(page):
                metric = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(number)}
                    metric.add_sample(sample.name, labels, sample.value)
        yield from merged.values()
