"""Answer requests that arrive over NATS."""

# Strategy: receiving a request reads it, hands its key over and returns; nothing here waits. The
# answer comes back as a call (see `batching`), and is sent at once: the replies of a batch are sent in
# one turn of the loop, and leave in one write.

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Protocol
from uuid import uuid4

from responder import wire
from responder.batching import Answer, Batching, Done
from responder.connection import Connection
from responder.directory import Directory
from responder.errors import (
    InternalError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.micro import Endpoint, Service

log = logging.getLogger(__name__)

NAME: Final = "users"
DESCRIPTION: Final = "Better Auth users, live from their tables"


MAX_HELD: Final = 64 * 1024 * 1024  # bytes of requests that may be under way: they can be huge


class _Load(Protocol):
    def __call__(self, key: Any, *, deadline: float, done: Done) -> None: ...


class Worker:
    """Answers lookups over NATS while its context is open; leaving answers what has arrived.

    Args:
        connection: to NATS.
        directory: what answers.
        batching: what waits, for the end.
        prefix: of the subjects.
        queue_group: the workers that share the load.
        timeout: seconds within which a request is answered, unless its caller wants it sooner.
        drain_timeout: seconds that leaving may take.
        version: of the service.
    """

    def __init__(
        self,
        connection: Connection,
        directory: Directory,
        batching: Batching[Any],
        *,
        prefix: str,
        queue_group: str,
        timeout: float,
        drain_timeout: float,
        version: str,
    ) -> None:
        self._connection = connection
        self._batching = batching
        self._timeout = timeout
        self._drain_timeout = drain_timeout
        self.held = 0  # bytes of requests under way
        self._now = asyncio.get_running_loop().time
        kinds: list[tuple[str, Callable[[bytes], wire.Request], _Load]] = [
            (wire.GET, wire.decode_by_id, directory.load_user),
            (wire.BY_EMAIL, wire.decode_by_email, directory.load_email),
            (wire.ORG_LIST, wire.decode_org_list, directory.load_page),
            (wire.GET_MANY, wire.decode_by_ids, directory.load_list),
        ]
        self._endpoints = [
            (Endpoint(name, f"{prefix}.{name}"), decode, load) for name, decode, load in kinds
        ]
        self.service = Service(
            name=NAME,
            id=uuid4().hex,
            version=version,
            description=DESCRIPTION,
            queue_group=queue_group,
            started=datetime.now(UTC),
            endpoints=[endpoint for endpoint, *_ in self._endpoints],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Listen; leaving answers what has arrived."""
        for endpoint, decode, load in self._endpoints:
            receive = self._receiver(endpoint, decode, load)
            queue = self.service.queue_group
            await self._connection.listen(endpoint.subject, receive, queue=queue)
        for verb, reply in (
            ("PING", self.service.ping),
            ("INFO", self.service.info),
            ("STATS", self.service.stats),
        ):
            for subject in self.service.subjects(verb):
                await self._connection.listen(subject, self._describer(reply))
        await self._connection.flush()
        self._connection.answered = self._batching.drained
        try:
            yield self
        finally:
            await self._drain()

    def _receiver(
        self, endpoint: Endpoint, decode: Callable[[bytes], Any], load: _Load
    ) -> Callable[[bytes, bytes, bytes, bytes], None]:
        def receive(_: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
            if not reply:
                return
            call = _Call(self, endpoint, reply, len(payload))
            try:
                if self.held > MAX_HELD:
                    raise UnavailableError("too much is waiting")  # noqa: TRY301 - answered below
                timeout = self._timeout
                if headers:
                    timeout = _read_headers(headers, timeout)
                load(decode(payload), deadline=self._now() + timeout, done=call.answer)
            except ResponderError as error:
                call.answer(error)
            except Exception:
                log.exception("a request to %s failed", endpoint.subject)
                call.answer(InternalError())

        return receive

    def send(self, reply: bytes, answer: Answer) -> None:
        """Send the answer to a request."""
        if isinstance(answer, bytes) and len(answer) > self._connection.max_payload:
            # It fitted when it was written, before the server's limit changed.
            answer = PayloadTooLargeError("the answer does not fit into one message")
        if isinstance(answer, bytes):
            self._connection.send(reply, answer)
        else:
            headers, body = wire.encode_error(answer)
            self._connection.send(reply, body, headers)

    def _describer(
        self, describe: Callable[[], bytes]
    ) -> Callable[[bytes, bytes, bytes, bytes], None]:
        def receive(_: bytes, reply: bytes, __: bytes, ___: bytes) -> None:
            if reply:
                self._connection.send(reply, describe())

        return receive

    async def _drain(self) -> None:
        """Take no more requests, and answer those the server has already sent.

        The order is what loses nothing: the server confirms that no more will come, then what came is
        answered. Afterwards the connection is flushed and closed by its owner.
        """
        try:
            async with asyncio.timeout(self._drain_timeout):
                await self._connection.drain_listeners()
                await self._batching.drained()
        except TimeoutError:
            log.warning("not everything was answered in time")
            self._batching.fail(UnavailableError("shutting down"))


class _Call:
    """A request under way, and how it is answered."""

    __slots__ = ("_arrival", "_endpoint", "_reply", "_size", "_worker")

    def __init__(self, worker: Worker, endpoint: Endpoint, reply: bytes, size: int) -> None:
        worker.held += size
        self._size = size
        self._worker = worker
        self._endpoint = endpoint
        self._reply = reply
        self._arrival = perf_counter()  # uvloop's own time counts in milliseconds

    def answer(self, answer: Answer) -> None:
        self._worker.held -= self._size
        self._worker.send(self._reply, answer)
        error = None if isinstance(answer, bytes) else answer.code
        self._endpoint.count(perf_counter() - self._arrival, error)


def _read_headers(block: bytes, timeout: float) -> float:
    """Return the seconds this request may take; raises what its headers make it."""
    headers = wire.decode_headers(block)
    authorization = headers.get(wire.AUTHORIZATION.lower())
    if authorization is not None:
        # Whoever sends a token asks on behalf of its user, and must never be taken for a service.
        if len(authorization) > 1 or not authorization[0].lower().startswith("bearer "):
            raise UnauthenticatedError("expected exactly one Authorization: Bearer <JWT>")
        raise UnavailableError("this worker has no keys to verify tokens with")
    requested = wire.requested_timeout(headers)
    if requested is None:
        return timeout
    if requested <= 0:
        raise RequestTimeoutError
    return min(requested, timeout)
