"""Several worker processes, supervised, as one service."""

# Strategy: each child is a `responder serve` of its own, with its own connections and its own place
# in the queue group; NATS shares the requests out among them. Two things exist once, and are held
# here. All children accept connections on the one socket of the bridge, so that a child that ends
# takes with it only those it has accepted. The one admin listener gets the same page of each child
# and shows them together. There figures have a label `worker`, because the counters of a child that
# was started again begin at zero.
#
# A child that ends by itself is started again, after a pause that grows. A child whose exit status
# says that its settings cannot work would only say so again: all of them end. So they do if a child
# ends well before it has served, because what it ran was no worker. A child whose supervisor has
# ended, even by SIGKILL, reads the end of its standard input, and ends. A child that hangs does not
# end by itself: it is killed (see `heartbeat`).
#
# A child finds its modules where the supervisor does. `python -m responder` would look for them in
# the working directory first, where a file `asyncio.py` may lie.

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, nullcontext, suppress
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

import responder
from responder.heartbeat import Heart, watch
from responder.http.admin import figures, text
from responder.http.listener import BACKLOG, bind, listening_for_admin, url_of
from responder.metrics import process
from responder.settings import Settings

log: Final = logging.getLogger(__name__)

MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds before a child is started again
HEALTHY: Final = 10.0  # seconds after which a child has not failed to start
GRACE: Final = 5.0  # seconds beyond its drain timeout, before a child is killed
CANNOT_WORK: Final = 2  # exit status of a child whose settings cannot work
OK, UNAVAILABLE = 200, 503
POLL: Final = 0.1  # seconds
PATIENCE: Final = 0.9  # seconds for a page of a child: a probe of Kubernetes waits for one


async def supervise(settings: Settings, *, count: int) -> int:
    """Run children until cancelled, or until one says that the settings cannot work; then return 2.

    Args:
        settings: as the children will read them from the environment too.
        count: how many children.

    Raises SettingsError if the settings cannot work.
    """
    settings.check(worker=True)
    http_at, admin_at = settings.http_listen, settings.admin_listen
    with (
        TemporaryDirectory(prefix="responder-") as directory,
        bind(http_at, setting="RESPONDER_HTTP_LISTEN") if http_at else nullcontext() as bridge,
    ):
        children = [
            Child(
                number,
                Path(directory) / f"{number}.sock",
                bridge,
                drain_timeout=settings.drain_timeout,
            )
            for number in range(1, count + 1)
        ]
        async with (
            listening_for_admin(combined(children), admin_at)
            if admin_at
            else nullcontext() as admin_url
        ):
            http_url = url_of(bridge) if bridge else None
            log.info("%d workers: HTTP %s, admin %s", count, http_url or "off", admin_url or "off")
            return await _until_one_cannot_work(children, bridge)


async def _until_one_cannot_work(children: Sequence[Child], bridge: socket.socket | None) -> int:
    tasks = [asyncio.create_task(each.run(), name=f"worker-{each.number}") for each in children]
    watching = asyncio.create_task(watch(lambda: [each.heart for each in children if each.heart]))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        if bridge is not None:  # the children accept what waits, and the last one closes the socket
            bridge.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Child:
    """A worker process that is started again when it has ended.

    Args:
        number: from 1.
        path: of the socket of its admin listener.
        bridge: the socket on which it accepts HTTP, if it does.
        drain_timeout: seconds that it takes to end at most.
    """

    def __init__(
        self,
        number: int,
        path: Path,
        bridge: socket.socket | None,
        *,
        drain_timeout: float,
    ) -> None:
        self.number = number
        self.restarts: int = 0
        self.running: bool = False
        self.heart: Heart | None = None  # of the process, while there is one
        self._path = path
        self._bridge = bridge
        self._drain_timeout = drain_timeout
        # A child that ends would wait for a request on a connection that is kept.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._admin = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path), limits=limits),
            base_url="http://worker",
            timeout=PATIENCE,
        )

    async def run(self) -> int:
        """Run the process again and again; return CANNOT_WORK once it shows that it cannot."""
        pause = MIN_PAUSE
        async with self._admin:
            while True:
                start = monotonic()
                async with self._process() as process:
                    status, served = await self._end(process)
                if status == CANNOT_WORK:
                    return status
                when = "" if served else " before it has served"
                log.error("worker %d has ended with status %d%s", self.number, status, when)
                pause = MIN_PAUSE if monotonic() - start > HEALTHY else min(2 * pause, MAX_PAUSE)
                await asyncio.sleep(pause)  # a signal to all of us may be on its way to us, too
                if status == 0 and not served:
                    return CANNOT_WORK
                self.restarts += 1

    async def _end(self, process: Process) -> tuple[int, bool]:
        """Wait for the end of a process; return its exit status, and whether it has served."""
        serving = asyncio.create_task(self._serving())
        try:
            return await process.wait(), serving.done()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _serving(self) -> None:
        """Return once the process has answered an operator, which comes before all else."""
        while (await self.get("/live"))[0] != OK:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(POLL)

    async def get(self, path: str) -> tuple[int, str]:
        """Return HTTP status and text of a page of its admin listener, such as /ready."""
        if not self.running:
            return UNAVAILABLE, "not running"
        try:
            answer = await self._admin.get(path)
        except httpx.HTTPError:
            return UNAVAILABLE, "no answer"
        return answer.status_code, answer.text.strip()

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[Process]:
        """Start the process; leaving the context ends it, and kills one that does not end."""
        with closing(Heart(lambda: self._kill(process, heart))) as heart:
            with self._listen_for_admin() as admin, heart.theirs as theirs:
                sockets = {"admin": admin, "heartbeat": theirs}
                sockets |= {"http": self._bridge} if self._bridge else {}
                process = await asyncio.create_subprocess_exec(
                    *(*command(), "serve"),
                    *(f"--{name}-socket={sock.fileno()}" for name, sock in sockets.items()),
                    *([] if self._bridge else ["--no-http"]),
                    f"--worker={self.number}",
                    stdin=PIPE,  # ends when this process does
                    pass_fds=[sock.fileno() for sock in sockets.values()],
                )
            self.heart = heart
            self.running = True
            try:
                yield process
            finally:
                self.running = False
                await self._stop(process)
                self.heart = None

    async def _stop(self, process: Process) -> None:
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._drain_timeout + GRACE)
        if process.returncode is None:
            log.error("worker %d did not end, and is killed", self.number)
            process.kill()
        await process.wait()

    def _kill(self, process: Process, heart: Heart) -> None:
        if process.returncode is None:
            said = "worker %d hangs: nothing was heard of it for %.1f s; it is killed"
            log.error(said, self.number, heart.silence)
            process.kill()

    def _listen_for_admin(self) -> socket.socket:
        """Return a new socket at the path, on which the process will accept connections."""
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(os.fspath(self._path))
        sock.listen(BACKLOG)
        return sock


def command() -> list[str]:
    """Return how Python is called to run `responder` with the modules of this process.

    Python is as isolated as here, and its path is ours, without the working directory: that is
    there if this process was started by `python -m responder`, and stays if ours is the responder
    in it.
    """
    refused = {Path.cwd().resolve()} - {Path(responder.__file__).resolve().parent.parent}
    path = [each for each in sys.path if Path(each).resolve() not in refused]
    flags = {
        "-I": sys.flags.isolated,
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
    }
    start = (
        f"import sys; sys.path[:] = {path!a}; from responder.start import main; sys.exit(main())"
    )
    return [sys.executable, *(flag for flag, on in flags.items() if on), "-P", "-c", start]


def combined(children: Sequence[Child]) -> Starlette:
    """Return the admin app of all children; its status is 200 if that of each child is."""

    async def state(request: Request) -> Response:
        answers = await asyncio.gather(*(each.get(request.url.path) for each in children))
        lines = [
            f"worker {child.number}: {line}"
            for child, (_, answer) in zip(children, answers, strict=True)
            for line in answer.splitlines()
        ]
        good = all(status == OK for status, _ in answers)
        return text("\n".join(lines), status=OK if good else UNAVAILABLE)

    async def metrics(_: Request) -> Response:
        answers = await asyncio.gather(*(each.get("/metrics") for each in children))
        pages = {
            child.number: page
            for child, (status, page) in zip(children, answers, strict=True)
            if status == OK
        }
        return figures(_CombinedMetrics(children, pages))

    return Starlette(
        routes=[Route("/live", state), Route("/ready", state), Route("/metrics", metrics)]
    )


class _CombinedMetrics(Collector):
    """The figures of all children, each labelled with its number; ours, with "supervisor".

    Args:
        children: all of them.
        pages: /metrics of those that have answered, by number.
    """

    def __init__(self, children: Sequence[Child], pages: Mapping[int, str]) -> None:
        self._children = children
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by prometheus_client)."""
        restarts = CounterMetricFamily(
            "responder_worker_restarts", "Times a worker was started again.", labels=["worker"]
        )
        for child in self._children:
            restarts.add_metric([str(child.number)], child.restarts)
        running = sum(child.running for child in self._children)
        yield GaugeMetricFamily("responder_workers", "Worker processes that run.", running)
        yield restarts
        merged: dict[str, Metric] = {}
        for worker, families in self._of_each():
            for family in families:
                metric = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": worker}
                    metric.add_sample(sample.name, labels, sample.value)
        yield from merged.values()

    def _of_each(self) -> Iterator[tuple[str, Iterable[Metric]]]:
        yield "supervisor", process()
        for number, page in self._pages.items():
            yield str(number), text_string_to_metric_families(page)
