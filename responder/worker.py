"""Answer requests that arrive over NATS."""

# Strategy: nothing here waits. A request is read, and its key handed over, in the call that brings
# it; its answer comes back as a call (see `batching`), and is sent at once. So the requests that
# arrive in one read share a query, and the replies of one query leave in one write.
#
# Only a request whose token is not remembered waits, until the token is verified (see
# `tokens.verifying`). Its answer comes back as a call, too.
#
# What is too much is refused in two places. A request for which there is no room (in its line, see
# `batching`, or within MAX_UNANSWERED) is refused once it is read, and those that came with it are
# refused unread, but for those whose senders send little (see `nats.protocol`). And a request that
# is OLD before it is read is refused likewise: more comes than is read, and each makes the next
# later. But a worker to which its machine gave no time for a moment is not overloaded: where
# nothing was refused LATELY, requests may be as old as AT_FIRST. Deadlines count from when the
# server had the request, as far as that is known (see `nats.backlog`).
#
# An error is no less work for us than an answer, and needs no room in a line. So it is their age
# that bounds a flood of invalid requests, or of bad tokens. An example: 150,000 invalid requests a
# second come from one client, 1,000 good ones from others. 100,000 can be read and refused as
# invalid. After 0.6 s what is read has waited for 0.2 s. Then the flood is refused unread, and from
# now on whenever it has waited for 0.05 s: the others are not.
#
# Worker listens and stops. What happens to one request in between stands in Request, in the order
# in which it happens.

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Protocol
from uuid import uuid4

from responder import bearer, telling, wire
from responder.batching import TOO_MANY, Answer, Batching, Callback
from responder.directory import Directory
from responder.endpoints import CONTRACT, DESCRIPTION, ENDPOINTS, SERVICE, Endpoint
from responder.errors import (
    InternalError,
    PayloadTooLargeError,
    RefusedError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.headers import read_headers
from responder.models import Identity
from responder.nats.connection import Connection
from responder.nats.senders import sender
from responder.nats.service import VERBS, Service, Statistics, subjects
from responder.throttling import ThrottledLog
from responder.tokens.verifier import TokenVerifier
from responder.tokens.verifying import Verifying

log: Final = logging.getLogger(__name__)
repeated: Final = ThrottledLog(__name__)

# What a worker may hold; a request beyond that is refused. Batching has a bound of its own, for the
# number of requests (RESPONDER_MAX_PENDING), but a request may be as large as a message, a megabyte
# by default, and lists of 500 ids are 16 KiB. So that a few LARGE ones do not have others refused,
# those have a bound of their own, and what comes with one that is refused is read.
MAX_UNANSWERED: Final = 64 * 1024 * 1024  # bytes of the requests that are not answered yet
MAX_LARGE: Final = 32 * 1024 * 1024  # bytes of those that are large
LARGE: Final = 32 * 1024  # bytes
OLD: Final = 0.025  # share of the timeout for which the server had a request, before it is read
AT_FIRST: Final = 0.1  # the same, where nothing was refused lately
LATELY: Final = 1.0  # seconds

NO_ISSUER: Final = (
    "this worker cannot verify tokens: it needs BETTER_AUTH_URL, or RESPONDER_JWKS_URL with "
    "RESPONDER_JWT_ISSUER and RESPONDER_JWT_AUDIENCE, or RESPONDER_JWT_SECRET"
)


class Worker:
    """Answers lookups over NATS while its context is open; leaving answers what has arrived.

    Args:
        connection: to NATS.
        directory: what answers.
        batching: what lookups wait in; asked whether all are answered when the worker stops.
        tokens: tells who a caller is; without it no request can be made on behalf of a user.
        token_required: whether a request without a token is refused.
        prefix: of the subjects.
        queue_group: the workers that share the load.
        timeout: seconds within which a request is answered, unless its caller wants it sooner.
        drain_timeout: seconds that leaving may take.
        version: of the service.
        request: makes one of what has arrived (see `tracing`).
    """

    def __init__(
        self,
        connection: Connection,
        directory: Directory,
        batching: Batching[Any],
        *,
        tokens: TokenVerifier | None,
        token_required: bool,
        prefix: str,
        queue_group: str,
        timeout: float,
        drain_timeout: float,
        version: str,
        request: Callable[..., Request] | None = None,
    ) -> None:
        self._request = request or Request
        self._shared = _Shared(connection, tokens, token_required)
        self._connection = connection
        self._batching = batching
        self._timeout = timeout
        self._drain_timeout = drain_timeout
        self._endpoints = [
            _ServedEndpoint(
                each,
                Statistics(
                    each.name,
                    each.subject(prefix),
                    each.metadata(token_required=token_required),
                ),
                wire.decoder(each),
                getattr(directory, each.name),
            )
            for each in ENDPOINTS
        ]
        self.service: Service = Service(
            name=SERVICE,
            id=uuid4().hex,
            version=version,
            description=DESCRIPTION,
            queue_group=queue_group,
            started=datetime.now(UTC),
            statistics=[each.statistics for each in self._endpoints],
            metadata={"contract": CONTRACT},
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Listen; leaving answers what has arrived."""
        for each in self._endpoints:
            queue = self.service.queue_group
            subject = each.statistics.subject
            await self._connection.listen(
                subject, self._receiver(each), queue=queue, refuse=self._refuser(each)
            )
        replies = (self.service.ping, self.service.info, self.service.stats)
        for verb, reply in zip(VERBS, replies, strict=True):
            for subject in subjects(verb, name=self.service.name, id=self.service.id):
                await self._connection.listen(subject, self._describer(reply))
        await self._connection.flush()
        self._connection.answered = self._all_answered
        try:
            yield self
        finally:
            await self._drain()

    def _receiver(self, endpoint: _ServedEndpoint) -> Callable[[bytes, bytes, bytes, bytes], bool]:
        """Return what receives the requests to an endpoint.

        It returns whether others that came with one are to be refused.
        """
        shared, timeout, now = self._shared, self._timeout, self._shared.now
        backlog, batching, make_request = self._connection.backlog, self._batching, self._request
        old, at_first = OLD * timeout, AT_FIRST * timeout

        def receive(_: bytes, reply: bytes, headers: bytes, payload: bytes) -> bool:
            if not reply:
                return False
            age = backlog.age
            request = make_request(shared, endpoint, reply, payload, now() + timeout - age)
            try:
                if age > old and not backlog.sparing and (age > at_first or shared.is_refusing()):
                    raise RefusedError(TOO_MANY)  # noqa: TRY301 - answered as any other error is
                batching.sparing = backlog.sparing
                request.accept(headers)
            except RefusedError as error:
                request.fail(error)
                shared.refused(error)
                return True
            except Exception as error:  # noqa: BLE001 - every request is answered
                request.fail(error)
            return False

        return receive

    def _refuser(self, endpoint: _ServedEndpoint) -> Callable[[list[bytes]], None]:
        """Return what refuses requests to an endpoint unread, as the last that was read."""

        def refuse(replies: list[bytes]) -> None:
            headers, body = wire.encode_error(self._shared.refusal)
            endpoint.statistics.count_refused(len(replies), self._shared.refusal.code)
            self._connection.send_to_all(replies, body, headers)

        return refuse

    def _describer(
        self, describe: Callable[[], bytes]
    ) -> Callable[[bytes, bytes, bytes, bytes], None]:
        """Return what receives the requests for a description of the service ($SRV)."""

        def receive(_: bytes, reply: bytes, __: bytes, ___: bytes) -> None:
            if reply:
                self._connection.send(reply, describe())

        return receive

    async def _all_answered(self) -> None:
        """Return once all that was received has its answer."""
        if self._shared.verifying:
            await self._shared.verifying.drained()
        await self._batching.drained()

    async def _drain(self) -> None:
        """Take no more requests, and answer those the server has already sent.

        The order is what loses nothing: first the server confirms that no more requests will come,
        then those that came are answered. The owner of the connection flushes and closes it later.
        """
        try:
            async with asyncio.timeout(self._drain_timeout):
                await self._connection.drain_listeners()
                await self._all_answered()
        except TimeoutError:
            log.warning("not everything was answered in time")
            shutting_down = UnavailableError("shutting down")
            if self._shared.verifying:
                self._shared.verifying.fail(shutting_down)
            self._batching.fail(shutting_down)


class _Load(Protocol):
    def __call__(
        self, request: Any, identity: Identity | None, *, deadline: float, callback: Callback
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _ServedEndpoint:
    """An endpoint as this worker serves it."""

    row: Endpoint[Any, Any]  # of the table
    statistics: Statistics
    decode: Callable[[bytes], Any]
    load: _Load


class _Shared:
    """What the requests of a worker share, and how much of it they take."""

    def __init__(
        self,
        connection: Connection,
        tokens: TokenVerifier | None,
        token_required: bool,  # noqa: FBT001 - passed on
    ) -> None:
        self.connection = connection
        self.tokens = tokens
        self.token_required = token_required
        self.now: Callable[[], float] = asyncio.get_running_loop().time
        self.tells: bool = telling.is_wanted()
        self.unanswered = self.large = 0  # bytes
        self.refusal: RefusedError = RefusedError(TOO_MANY)  # the last one
        self._refused_at = -LATELY  # the loop's time
        self.verifying: Verifying | None = Verifying(tokens) if tokens else None

    def refused(self, error: RefusedError) -> None:
        """Note that a request was refused."""
        self.refusal = error.with_traceback(None)  # which would hold what was read
        self._refused_at = self.now()

    def is_refusing(self) -> bool:
        """Tell whether a request was refused lately."""
        return self.now() - self._refused_at < LATELY


class Request:
    """A request on its way through the worker: accepted, identified, loaded, answered."""

    __slots__ = (
        "_arrival",
        "_deadline",
        "_endpoint",
        "_payload",
        "_reply",
        "_shared",
        "_trace",
    )

    def __init__(
        self,
        shared: _Shared,
        endpoint: _ServedEndpoint,
        reply: bytes,
        payload: bytes,
        deadline: float,
    ) -> None:
        shared.unanswered += len(payload)
        if len(payload) > LARGE:
            shared.large += len(payload)
        self._shared = shared
        self._endpoint = endpoint
        self._reply = reply  # the subject on which the answer is awaited
        self._payload = payload
        self._deadline = deadline  # the loop's time
        self._arrival = perf_counter()  # uvloop's own time counts in milliseconds

    def accept(self, headers: bytes) -> None:
        """Go on, on behalf of the user of a token if there is one; raises if it is refused."""
        size = len(self._payload)  # which does not count itself, or it might never be answered
        if size > LARGE and self._shared.large - size > MAX_LARGE:
            raise UnavailableError(TOO_MANY)
        if self._shared.unanswered - size > MAX_UNANSWERED:
            raise RefusedError(TOO_MANY)
        token = None
        if headers:
            if self._shared.tells:
                self._trace = telling.trace_of(headers)
            token, timeout = read_headers(headers)
            if timeout is not None:
                self._deadline = min(self._deadline, self._shared.now() + timeout)
        if token is not None:
            self._identify(token)
        elif self._shared.token_required or self._endpoint.row.needs_token:
            raise UnauthenticatedError(bearer.NO_TOKEN)
        else:
            self._load(None)

    def _identify(self, token: str) -> None:
        """Go on with the identity that a token states: at once if the token is remembered."""
        shared = self._shared
        if shared.tokens is None or shared.verifying is None:
            raise UnavailableError(NO_ISSUER)
        identity = shared.tokens.cached_identity(token)
        if identity is not None:
            self._load(identity)
            return
        shared.verifying.add(
            token,
            sender=sender(self._reply),
            size=len(self._payload),
            deadline=self._deadline,
            callback=self._go_on,
        )

    def _go_on(self, identity: Identity | Exception) -> None:
        """Go on once the token is verified, or answer with why it is not."""
        if isinstance(identity, Exception):
            self.fail(identity)
            return
        try:
            self._load(identity)
        except Exception as error:  # noqa: BLE001 - every request is answered
            self.fail(error)

    def _load(self, identity: Identity | None) -> None:
        """Read the payload, and have its key looked up; the answer comes to `answer`."""
        endpoint = self._endpoint
        request = endpoint.decode(self._payload)
        endpoint.load(request, identity, deadline=self._deadline, callback=self.answer)

    def fail(self, error: BaseException) -> None:
        """Answer with what went wrong."""
        if not isinstance(error, ResponderError):
            subject = self._endpoint.statistics.subject
            repeated.error("a request to %s failed", subject, exc_info=error, kind=subject)
            error = InternalError()
        self.answer(error)

    def answer(self, answer: Answer) -> None:
        """Send the answer and count it; called once."""
        shared, statistics = self._shared, self._endpoint.statistics
        size = len(self._payload)
        shared.unanswered -= size
        if size > LARGE:
            shared.large -= size
        connection, error = shared.connection, None
        if isinstance(answer, bytes) and len(answer) > connection.limits.message:
            # It fitted when it was written, before the server's limit changed.
            answer = PayloadTooLargeError("the answer does not fit into one message")
        if isinstance(answer, bytes):
            connection.send(self._reply, answer, b"", self._deadline)
        else:
            error = answer.code
            headers, body = wire.encode_error(answer)
            connection.send(self._reply, body, headers, self._deadline)
        took = perf_counter() - self._arrival
        statistics.seconds.add(took)
        if error is not None:
            statistics.count_error(error)
        if shared.tells:
            trace = getattr(self, "_trace", "")
            telling.tell(statistics.subject, error or "ok", took, trace)
