"""Ask over NATS, in a closed loop or in an open one, and measure what that costs each process."""

# The load speaks the NATS protocol itself: a client library would cost more than what it measures.
# What arrives in one read is answered with one write, as any busy client would do.

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from figures import Figures
from pace import Arrivals, Pace
from traffic import Request, Stream, measured, mixed, undisturbed

PATIENCE = 5.0  # seconds for the last answers; what is missing then has failed
ERROR = b"Nats-Service-Error"
REFUSED = b"NATS/1.0 503"  # no responders


async def measure(
    nats_url: str,
    streams: Sequence[Stream],
    pace: Pace,
    *,
    seconds: float,
    pids: Mapping[str, int],
) -> Figures:
    """Return the figures of the first stream, while all are asked for at a pace."""
    async with asking(nats_url, streams, pace) as load:
        return await measured(streams, load.drained, seconds=seconds, pids=pids)


@asynccontextmanager
async def asking(
    nats_url: str, streams: Sequence[Stream], pace: Pace, *, wanted: int | None = None
) -> AsyncIterator[Load]:
    """Ask while the context is open; its `reached` is set when as many as `wanted` are answered."""
    url = urlsplit(nats_url)
    loop = asyncio.get_running_loop()
    load = Load(mixed(streams), wanted)
    with undisturbed():
        try:
            for _ in range(pace.connections):
                await loop.create_connection(load.connection, url.hostname or "", url.port or 0)
            load.begin(pace)
            yield load
        finally:
            load.close()


class Load:
    """Connections to the NATS server over which requests are sent at a pace.

    Args:
        requests: whatever is to be asked.
        wanted: set `reached` when there are so many answers.
    """

    def __init__(
        self, requests: Iterator[tuple[Stream, Request]], wanted: int | None = None
    ) -> None:
        self.reached = asyncio.Event()
        self._requests = requests
        self._wanted = wanted
        self._answers = 0
        self._connections: list[Connection] = []
        self._arrivals: Arrivals | None = None
        self._stopping = False
        self._last = asyncio.Event()  # the last answer has come

    def connection(self) -> Connection:
        """Return a protocol for one more connection."""
        made = Connection(self)
        self._connections.append(made)
        return made

    def begin(self, pace: Pace) -> None:
        """Send the first requests."""
        if pace.rate:
            self._arrivals = Arrivals(pace.rate, self._due)
            return
        for each in self._connections:
            each.send(self._next(pace.outstanding // pace.connections), time.perf_counter())

    def answered(self, connection: Connection, count: int) -> None:
        """Send as many requests as were answered, in a closed loop."""
        self._answers += count
        if self._wanted and self._answers >= self._wanted:
            self.reached.set()
        if self._stopping:
            if not self._waiting():
                self._last.set()
        elif not self._arrivals:
            connection.send(self._next(count), time.perf_counter())

    async def drained(self) -> int:
        """Send nothing more, and return how many requests never got an answer."""
        self._stop()
        if self._waiting():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._last.wait()
        return self._waiting()

    def close(self) -> None:
        """Close the connections."""
        self._stop()
        for each in self._connections:
            each.close()

    def _stop(self) -> None:
        self._stopping = True
        if self._arrivals:
            self._arrivals.close()
            self._arrivals = None

    def _due(self, times: list[float]) -> None:
        for meant in times:
            random.choice(self._connections).send(self._next(1), meant)

    def _next(self, count: int) -> Iterable[tuple[Stream, Request]]:
        return itertools.islice(self._requests, count)

    def _waiting(self) -> int:
        return sum(len(each.waiting) for each in self._connections)


class Connection(asyncio.Protocol):
    """A connection to the NATS server."""

    _transport: Any = None  # uvloop's own kind

    def __init__(self, load: Load) -> None:
        self.waiting: dict[bytes, tuple[Stream, bytes, float]] = {}  # by the number of the request
        self._load = load
        self._inbox = b"_INBOX.load%x." % random.getrandbits(64)
        self._numbers = itertools.count()
        self._rest = b""

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Subscribe to the answers."""
        self._transport = transport
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        transport.write(b"CONNECT %b\r\nSUB %b* 1\r\n" % (options.encode(), self._inbox))

    def send(self, requests: Iterable[tuple[Stream, Request]], meant: float) -> None:
        """Send requests in one write; their latencies count from the time that was meant."""
        messages = []
        for stream, (key, token) in requests:
            number = b"%d" % next(self._numbers)
            self.waiting[number] = stream, key, meant
            messages.append(self._message(stream, key, token, number))
        self._transport.write(b"".join(messages))

    def data_received(self, data: bytes) -> None:
        """Take the answers."""
        now = time.perf_counter()
        data = self._rest + data if self._rest else data
        at = answered = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            start, at = at, end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                stop = at + int(words[-1])
                if len(data) < stop + 2:
                    at = start
                    break
                body = at + int(words[-2]) if line.startswith(b"H") else at
                stream, key, meant = self.waiting.pop(words[1][len(self._inbox) :])
                headers = data[at:body]
                refused = headers.startswith(REFUSED) or ERROR in headers
                stream.take(key, data[body:stop], now - meant, refused=refused)
                answered += 1
                at = stop + 2
            elif line == b"PING":
                self._transport.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise ConnectionError(line.decode())
        self._rest = data[at:]
        if answered:
            self._load.answered(self, answered)

    def _message(self, stream: Stream, key: bytes, token: bytes, number: bytes) -> bytes:
        payload = stream.lookup.payload(key)
        head = (stream.subject, self._inbox, number)
        if not token:
            return b"PUB %b %b%b %d\r\n%b\r\n" % (*head, len(payload), payload)
        headers = b"NATS/1.0\r\nAuthorization: Bearer %b\r\n\r\n" % token
        sizes = len(headers), len(headers) + len(payload)
        return b"HPUB %b %b%b %d %d\r\n%b%b\r\n" % (*head, *sizes, headers, payload)
