"""A NATS connection that loses nothing and never goes deaf."""

# Strategy: a message is passed on as it is read, and sent at the end of the turn of the loop (see
# `hardened`). A connection that is lost is made again, for ever: its subscriptions are there again,
# and what was to be sent meanwhile is sent.
#
# nats-py stays with a server that is about to shut down until it does, and what that server has
# sent last is then lost. Here such a server is left once all that it has sent is answered.

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from nats import errors

from responder.afterwards import Afterwards
from responder.alarm import Alarm
from responder.asking import NoRespondersError
from responder.errands import Prompt
from responder.errors import PayloadTooLargeError, RequestTimeoutError, UnavailableError
from responder.limits import Limits
from responder.nats.backlog import Backlog
from responder.nats.hardened import HardenedClient, Receive, Refuse
from responder.nats.login import variables_of, why
from responder.nats.tls import NoTlsError
from responder.terminal import visible
from responder.throttling import ThrottledLog
from responder.wire import encode_headers, is_no_responders, is_ours

log: Final = logging.getLogger(__name__)
repeated: Final = ThrottledLog(__name__)

OUT_OF_REACH: Final = "NATS is out of reach"
NO_INBOX: Final = (
    "NATS does not permit to hear replies: to subscribe to _INBOX.>, or as NATS_INBOX_PREFIX says"
)
PING_INTERVAL: Final = 10  # seconds; after two without an answer the server is taken for dead
FLUSH_TIMEOUT: Final = 10.0  # seconds
LAST_FLUSH_TIMEOUT: Final = 2.0  # seconds; of the flush before closing
CLOSE_TIMEOUT: Final = 4.0  # seconds; of that flush, and of closing
MOVE_TIMEOUT: Final = 5  # seconds; a server in lame duck mode gives at least ten


class _Asked(Prompt[tuple[bytes, bytes]]):
    """A request of our own, and its reply."""

    begins: bytes  # see `wire.is_ours`
    deadline: float  # the loop's time
    others = False  # whether a program that is no worker has answered


@asynccontextmanager
async def connected(
    servers: Sequence[str],
    *,
    name: str,
    options: Mapping[str, Any] | None = None,
    patience: float | None = None,
    silence: float = 2.0,
    ended: asyncio.Event | None = None,
    asks: bool = True,
) -> AsyncIterator[Connection]:
    """Connect to NATS, and reconnect for ever, until the context is left; that flushes and closes.

    Args:
        servers: URLs.
        name: shown in the server's list of connections.
        options: credentials and TLS, as arguments of nats-py's `connect`.
        patience: seconds to try for at first; None is for ever.
        silence: seconds without a sign of life after which a server is given up, and the time for
            which an outage is waited out.
        ended: set when the connection is closed for good.
        asks: whether requests are made on it, which takes an inbox for the replies.

    Raises UnavailableError if no server was reached in that time.
    """
    connection = Connection(silence, ended)
    try:
        await connection.open(servers, name=name, options=options or {}, patience=patience)
        if asks:
            await connection.open_inbox()
        yield connection
    finally:
        await connection.close()


async def _at_once() -> None:
    pass


def _heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled while it connected.

    nats-py waits by `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes at
    the very moment at which the wait ends. A service told to end would go on connecting for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Send(Protocol):
    """What sends a message."""

    def __call__(
        self, subject: bytes, payload: bytes, headers: bytes = b"", until: float = 0.0
    ) -> None:
        """Send a message (see `HardenedClient.send`)."""


class Connection:
    """A connection to NATS, as `connected` opens it.

    Attributes:
        send: sends a message (see `HardenedClient.send`). It is called for each reply, so it is
            that very method, without one of ours around it.
        send_to_all: sends the same message to many subjects, likewise.
        backlog: how old what is being received is.
        afterwards: ends each read.
        limits: of the server.
        answered: returns once all that was received is answered; set by what answers.
        trouble: what is wrong while there is no connection, in words for an operator.
        reconnects: how often there was one again.
    """

    def __init__(self, silence: float, ended: asyncio.Event | None = None) -> None:
        self._client = HardenedClient(silence)
        self.send: Send = self._client.send
        self.send_to_all: Callable[[Sequence[bytes], bytes, bytes], None] = self._client.send_to_all
        self.backlog: Backlog = self._client.backlog
        self.afterwards: Afterwards = self._client.afterwards
        self.limits: Limits = self._client.limits
        self.answered: Callable[[], Awaitable[None]] = _at_once
        self._ended = ended
        self._inbox = b""  # what the reply subjects of our own requests begin with
        self._numbers = itertools.count()
        self._requests: dict[bytes, _Asked] = {}  # by reply subject
        self._now = asyncio.get_running_loop().time
        self._alarm = Alarm(self._requests.values, lambda asked: asked.settle(TimeoutError()))
        self.trouble: str = OUT_OF_REACH
        self.reconnects: int = 0
        self._refused = False  # whether that is the answer of a server
        self._login = ""  # the variables that it is from
        self._logged: set[str] = set()  # the ways in which an outage has shown so far
        self._moving: asyncio.Task[None] | None = None

    @property
    def lost(self) -> Mapping[str, int]:
        """How many messages did not leave, by the reason (see `hardened`)."""
        return self._client.lost

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.is_connected

    async def open(
        self,
        servers: Sequence[str],
        *,
        name: str,
        options: Mapping[str, Any],
        patience: float | None,
    ) -> None:
        """Connect (see `connected`); raises UnavailableError."""
        self._login = variables_of(options, servers)
        try:
            async with asyncio.timeout(patience):
                await self._client.connect(
                    servers=list(servers),
                    name=name,
                    connect_timeout=2,
                    max_reconnect_attempts=-1,
                    ping_interval=PING_INTERVAL,
                    max_outstanding_pings=2,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    error_cb=self._failed,
                    closed_cb=self._closed,
                    lame_duck_mode_cb=self.move,
                    **options,
                )
        except (OSError, errors.Error) as error:  # a timeout is an OSError
            silent = self.trouble == OUT_OF_REACH  # no server has said anything
            raise UnavailableError(self._client.trouble if silent else self.trouble) from error
        _heed_cancellation()
        self._forget_trouble()
        self._client.keep_alive()

    async def open_inbox(self) -> None:
        """Listen to replies, so that `ask` may be called."""
        self._inbox = self._client.new_inbox().encode() + b"."
        await self.listen(self._inbox_subject, self._receive_reply)

    async def close(self) -> None:
        """Send what waits to be sent, and close for good, within CLOSE_TIMEOUT seconds."""
        closing = asyncio.create_task(self._close(), name="nats-close")
        # nats-py waits for the other end, and may swallow a cancellation.
        done, _ = await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)
        if done:
            closing.result()
        else:
            closing.cancel()
            log.warning("NATS: the connection did not close in time")

    async def _close(self) -> None:
        try:
            if self._client.is_connected:
                await self.flush(LAST_FLUSH_TIMEOUT)
        except errors.Error as error:
            log.warning("closed before NATS had all that was sent: %s", type(error).__name__)
        finally:
            if self._moving is not None:
                self._moving.cancel()
                await asyncio.gather(self._moving, return_exceptions=True)
            await self._client.close()

    async def listen(
        self, subject: str, receive: Receive, *, queue: str = "", refuse: Refuse | None = None
    ) -> None:
        """Pass every message on a subject to `receive`.

        With a queue, each message goes to one of the programs that share it. What `receive` has no
        room for goes to `refuse`, unread (see `HardenedClient.listen`).
        """
        await self._client.listen(subject, receive, queue=queue, refuse=refuse)

    async def drain_listeners(self) -> None:
        """Stop listening with a queue, once all that the server has sent is received."""
        self._client.denials.stop()
        drains = [each.drain() for each in self._client.queue_subscriptions()]
        for failure in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(failure, errors.Error):
                log.warning("a NATS subscription did not end well: %s", type(failure).__name__)

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float,
        begins: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of its reply (see `Transport`)."""
        block = encode_headers(headers) if headers else b""
        if len(block) + len(payload) > self.limits.message:
            raise PayloadTooLargeError("the request does not fit into one message")
        denied = self._client.denials.subjects
        if denied and self._inbox_subject.lower() in denied:
            raise UnavailableError(NO_INBOX)
        if self._client.pulse.silent:  # an outage has outlasted the time for which it is waited out
            raise UnavailableError(OUT_OF_REACH)
        reply = b"%b%d" % (self._inbox, next(self._numbers))
        asked = self._requests[reply] = _Asked()
        asked.begins, asked.deadline = begins, self._now() + timeout
        if asked.deadline < self._alarm.at:
            self._alarm.set(asked.deadline)
        try:
            self.send(b"%b %b" % (subject.encode(), reply), payload, block, asked.deadline)
            reply_headers, body = await asked
        except TimeoutError:
            if not self._client.is_connected:  # why is not for each caller to know
                raise UnavailableError(OUT_OF_REACH) from None
            if asked.others:
                repeated.warning("something else answers on %s", subject, kind=subject)
                raise UnavailableError(f"something else answers on {subject}") from None
            raise RequestTimeoutError from None
        finally:
            del self._requests[reply]
        if is_no_responders(reply_headers):
            raise NoRespondersError
        return reply_headers, body

    def _receive_reply(self, subject: bytes, _: bytes, headers: bytes, payload: bytes) -> None:
        asked = self._requests.get(subject)
        if asked is None:
            return
        # Nearly each reply is a value, which costs one comparison.
        if (
            payload.startswith(asked.begins)
            or is_no_responders(headers)
            or is_ours(headers, payload, asked.begins)
        ):
            asked.settle((headers, payload))
        else:
            asked.others = True

    async def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Return once the server has all that was sent.

        Raises nats-py's Error if that takes longer than `timeout` seconds.
        """
        await self._client.flush(timeout=timeout)  # type: ignore[arg-type]  # it takes a float

    async def check(self, timeout: float) -> None:
        """Return once the server answers, within `timeout` seconds; else raise UnavailableError."""
        try:
            await self.flush(timeout)
        except (errors.Error, OSError):
            raise UnavailableError(self.trouble) from None
        if not self._client.is_connected:  # then there was nothing to flush to
            raise UnavailableError(self.trouble)
        if self._client.denials.subjects:
            raise UnavailableError(f"NATS does not permit to subscribe to {self._denied}")

    @property
    def _inbox_subject(self) -> str:
        return f"{self._inbox.decode()}*"

    @property
    def _denied(self) -> str:
        inbox = self._inbox_subject.lower()
        shown = ("its inbox" if each == inbox else each for each in self._client.denials.subjects)
        return visible(", ".join(sorted(shown)))

    async def move(self) -> None:
        """Leave a server that is about to shut down (its lame duck mode) for another.

        The server is told to send no more requests, and those that it has sent are answered. All
        later requests reach this process through the other server.
        """
        # nats-py calls this from its read loop, which the leaving needs.
        self._moving = asyncio.get_running_loop().create_task(self._move())

    async def _move(self) -> None:
        try:
            async with asyncio.timeout(MOVE_TIMEOUT):
                await self._client.pause_queues()
                await self.flush()
                await self.answered()
                if self._requests:
                    await asyncio.wait(list(self._requests.values()))
                await self.flush()
        except (TimeoutError, errors.Error) as error:
            log.warning("left a NATS server before all was answered: %s", type(error).__name__)
        finally:
            await self._client.force_reconnect()

    # What nats-py calls.

    async def _disconnected(self) -> None:
        if self._client.pulse.silent:
            patience = self._client.pulse.patience
            log.warning("lost the connection to NATS: nothing was heard of it for %g s", patience)
        elif not self._client.is_closed:
            log.warning("lost the connection to NATS%s", self._client.ended_by)

    async def _reconnected(self) -> None:
        self.reconnects += 1
        log.info("connected to NATS again")
        self._forget_trouble()
        self._client.keep_alive()

    def _forget_trouble(self) -> None:
        self._logged.clear()
        self._refused, self.trouble = False, OUT_OF_REACH

    async def _failed(self, error: Exception) -> None:
        # One line for each way in which an outage shows, not for each attempt to connect.
        address = self._client.address
        known = isinstance(error, NoTlsError)
        said = str(error) if known else why(error, address=address, login=self._login)
        # That one server refuses us tells more than that another is not there.
        refused = not isinstance(error, OSError)
        if refused or not self._refused:
            self._refused, self.trouble = refused, said
        if said not in self._logged:
            self._logged.add(said)
            log.warning("%s", said)
        _heed_cancellation()

    async def _closed(self) -> None:
        if self._ended is not None:
            self._ended.set()
