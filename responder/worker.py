"""Answer requests that arrive over NATS."""

# Strategy: receiving a request reads it, hands its key over and returns; nothing here waits. The
# answer comes back as a call (see `batching`), and is sent at once: the replies of a batch are sent in
# one turn of the loop, and leave in one write. Only a token that is not remembered waits, in a task of its
# own: verifying a signature costs as much as many lookups, so there is one in each turn of the loop; and
# its key may have to be fetched.

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

from responder import wire
from responder.batching import NEVER, Answer, Batching, Callback
from responder.directory import Directory
from responder.endpoints import DESCRIPTION, ENDPOINTS, SERVICE, WHOAMI, Endpoint
from responder.errors import (
    InternalError,
    NotFoundError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.models import Identity
from responder.nats.connection import Connection
from responder.nats.service import VERBS, Service, Statistics, subjects
from responder.postgres.visibility import Caller
from responder.tokens.identity import UnknownKeyError
from responder.tokens.verifier import TokenVerifier

log = logging.getLogger(__name__)

NO_ISSUER: Final = "this worker knows no issuer of tokens: BETTER_AUTH_URL is not set"
MAX_HELD: Final = 64 * 1024 * 1024  # bytes of requests that may be under way: they can be huge


MAX_WAITING: Final = 1024  # tokens that may wait to be verified


class _Load(Protocol):
    def __call__(
        self, request: Any, caller: Caller | None, *, deadline: float, callback: Callback
    ) -> None: ...


class Worker:
    """Answers lookups over NATS while its context is open; leaving answers what has arrived.

    Args:
        connection: to NATS.
        directory: what answers.
        batching: what waits, for the end.
        tokens: tells who a caller is; without it nobody can ask on behalf of a user.
        token_required: whether a request without a token is refused.
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
        tokens: TokenVerifier | None,
        token_required: bool,
        prefix: str,
        queue_group: str,
        timeout: float,
        drain_timeout: float,
        version: str,
    ) -> None:
        self._connection = connection
        self._batching = batching
        self._directory = directory
        self._tokens = tokens
        self._token_required = token_required
        self._waiting: set[asyncio.Task[None]] = set()  # tokens to be verified
        self._turn = asyncio.Lock()  # one token in each turn of the loop
        self._timeout = timeout
        self._drain_timeout = drain_timeout
        self.held = 0  # bytes of requests under way
        self._now = asyncio.get_running_loop().time
        self._kinds = [
            _Kind(
                each,
                Statistics(each.name, each.subject(prefix)),
                wire.decoder(each),
                getattr(directory, each.name),
            )
            for each in ENDPOINTS
        ]
        self.service = Service(
            name=SERVICE,
            id=uuid4().hex,
            version=version,
            description=DESCRIPTION,
            queue_group=queue_group,
            started=datetime.now(UTC),
            statistics=[kind.statistics for kind in self._kinds],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Listen; leaving answers what has arrived."""
        for kind in self._kinds:
            queue = self.service.queue_group
            subject = kind.statistics.subject
            await self._connection.listen(subject, self._receiver(kind), queue=queue)
        replies = (self.service.ping, self.service.info, self.service.stats)
        for verb, reply in zip(VERBS, replies, strict=True):
            for subject in subjects(verb, name=self.service.name, id=self.service.id):
                await self._connection.listen(subject, self._describer(reply))
        await self._connection.flush()
        self._connection.answered = self._answered
        try:
            yield self
        finally:
            await self._drain()

    def _receiver(self, kind: _Kind) -> Callable[[bytes, bytes, bytes, bytes], None]:
        def receive(_: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
            if not reply:
                return
            call = _Call(self, kind, reply, payload)
            call.deadline = self._now() + self._timeout
            try:
                self._take(call, headers)
            except Exception as error:  # noqa: BLE001 - every request is answered
                call.fail(error)

        return receive

    def _take(self, call: _Call, headers: bytes) -> None:
        if self.held > MAX_HELD:
            raise UnavailableError("too much is waiting")
        token = None
        if headers:
            token, timeout = _read_headers(headers)
            if timeout is not None:
                call.deadline = min(call.deadline, self._now() + timeout)
        if token is not None:
            self._identify(call, token)
        elif self._token_required or call.kind.endpoint.needs_token:
            raise UnauthenticatedError(wire.NO_TOKEN)
        else:
            call.ask(None)

    def _identify(self, call: _Call, token: str) -> None:
        """Ask on behalf of the user of a token, now if it is remembered."""
        if self._tokens is None:
            raise UnavailableError(NO_ISSUER)
        identity = self._tokens.remembered(token)
        if identity is not None:
            call.ask(identity)
            return
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError("too many tokens wait to be verified")
        task = asyncio.create_task(self._identify_later(call, self._tokens, token))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _identify_later(self, call: _Call, tokens: TokenVerifier, token: str) -> None:
        try:
            async with asyncio.timeout_at(call.deadline):
                identity = await self._verify(tokens, token)
            call.ask(identity)
        except TimeoutError:
            call.fail(UnavailableError("the token could not be verified in time"))
        except asyncio.CancelledError:
            call.fail(UnavailableError("shutting down"))
            raise
        except Exception as error:  # noqa: BLE001 - every request is answered
            call.fail(error)

    async def _verify(self, tokens: TokenVerifier, token: str) -> Identity:
        try:
            async with self._turn:
                await asyncio.sleep(0)
                return tokens.verify_now(token)
        except UnknownKeyError:
            return await tokens.verify(token)

    async def _answered(self) -> None:
        """Return once all that was received has its answer."""
        if self._waiting:
            await asyncio.wait(self._waiting)
        await self._batching.drained()

    def introduce(self, identity: Identity, user: Answer) -> Answer:
        """Tell callers who they are: whom the token speaks for, and the user, if there is one."""
        if isinstance(user, NotFoundError):
            return wire.encode_whoami(identity, None)
        if not isinstance(user, bytes):
            return user
        answer = wire.encode_whoami(identity, user)
        if len(answer) > self._connection.max_payload:
            self._directory.images_omitted += 1
            answer = wire.encode_whoami(identity, wire.without_image(user))
        return answer

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
                await self._answered()
        except TimeoutError:
            log.warning("not everything was answered in time")
            for task in self._waiting:
                task.cancel()
            self._batching.fail(UnavailableError("shutting down"))


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of request: where it arrives, and what is done about it."""

    endpoint: Endpoint[Any, Any]
    statistics: Statistics
    decode: Callable[[bytes], Any]
    load: _Load


class _Call:
    """A request under way, and how it is answered."""

    __slots__ = (
        *("_arrival", "_identity", "_payload", "_reply", "_worker"),
        *("deadline", "kind"),
    )

    def __init__(self, worker: Worker, kind: _Kind, reply: bytes, payload: bytes) -> None:
        worker.held += len(payload)
        self._worker = worker
        self._reply = reply
        self._payload = payload
        self._identity: Identity | None = None
        self._arrival = perf_counter()  # uvloop's own time counts in milliseconds
        self.kind = kind
        self.deadline = NEVER

    def ask(self, identity: Identity | None) -> None:
        """Ask for the answer, on behalf of whom a token speaks for."""
        caller = None
        if identity is not None:
            self._identity = identity
            caller = Caller(identity.user_id, identity.organization_id)
        request = self.kind.decode(self._payload)
        self.kind.load(request, caller, deadline=self.deadline, callback=self.answer)

    def fail(self, error: BaseException) -> None:
        """Answer with what went wrong."""
        if not isinstance(error, ResponderError):
            log.error("a request to %s failed", self.kind.statistics.subject, exc_info=error)
            error = InternalError()
        self.answer(error)

    def answer(self, answer: Answer) -> None:
        """Answer, once."""
        if self._identity is not None and self.kind.endpoint is WHOAMI:
            answer = self._worker.introduce(self._identity, answer)
        self._worker.held -= len(self._payload)
        self._worker.send(self._reply, answer)
        error = None if isinstance(answer, bytes) else answer.code
        self.kind.statistics.count(perf_counter() - self._arrival, error)


def _read_headers(block: bytes) -> tuple[str | None, float | None]:
    """Return the token of a request, and the seconds it may take; raises what its headers make it."""
    headers = wire.decode_headers(block)
    token = wire.read_authorization(headers)
    timeout = wire.requested_timeout(headers)
    if timeout is not None and timeout <= 0:
        raise RequestTimeoutError
    return token, timeout
