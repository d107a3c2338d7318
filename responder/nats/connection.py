"""A NATS connection that loses nothing and never goes deaf."""

# Strategy: nats-py does what it is good at (TLS, credentials, the protocol, reconnecting); what
# passes over the connection is ours, because a service cannot live with nats-py's way of it:
#
# - It hands messages to a queue and a task for each subscription, which awaits one callback at a time.
#   Here a message is passed on from the read loop, at once, to a function that must not wait. So all
#   that arrived in one read is known before anything is done about it.
# - Its reader of headers raises into the read loop for some blocks that the server lets through, as
#   does its decoding of subjects; the loop ends, and the client stays "connected" and deaf. Here
#   headers and subjects stay bytes until the receiver reads them, and the parser is ours (`protocol`).
# - It wakes a task to write, and another to read. Here all that is sent in one turn leaves in one write at
#   its end, and messages are taken as they arrive.
# - Its PING overtakes what waits to be written, so that a flush proves nothing about a subscription
#   made or ended just before it. Here it waits its turn.
# - A late PONG, or anything unexpected, ends the read loop in the same silent way. Here the loop's
#   end is a reconnect.
# - It stays with a server that says it is about to shut down, until it does. Here that server is left
#   once everything it has sent is answered.
# - It closes for good on any error the server reports but two. Credentials are rotated under
#   running services, so here these are a reconnect, too.
#
# All of this overrides private methods of the one version that pyproject.toml pins; the tests of this
# module fail if another behaves differently.

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from nats import errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.subscription import Subscription

from responder.errors import PayloadTooLargeError, RequestTimeoutError, UnavailableError
from responder.nats.protocol import Parser
from responder.requester import NoRespondersError
from responder.wire import is_no_responders

log = logging.getLogger(__name__)

# Called with subject, reply subject, headers and payload; must not wait, and should not raise.
Receive: TypeAlias = Callable[[bytes, bytes, bytes, bytes], None]

PING_INTERVAL: Final = 10  # seconds; after two without an answer the server is taken for dead
SILENCE: Final = 20_000  # milliseconds after which TCP gives up on bytes nobody acknowledges
MOVE_TIMEOUT: Final = 5  # seconds; a lame duck gives at least ten
MAX_UNSENT: Final = 8 * 1024 * 1024  # bytes kept for the time after a reconnect


async def _at_once() -> None:
    pass


class Connection(Client):
    """A connection to NATS, see `connected`."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}
        self._requests: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._numbers = itertools.count()
        self._denied = False  # whether the server lets us listen to less than we want
        self._ps = Parser(self)  # type: ignore[assignment]  # stands in for nats-py's own
        self._inbox = b""
        self._writing = False  # whether a write will follow in this turn of the loop
        self._call_soon = asyncio.get_running_loop().call_soon
        self._moving: asyncio.Task[None] | None = None
        self.answered: Callable[[], Awaitable[None]] = _at_once
        """Returns once all that was received has its answer sent; set by whoever answers."""

    async def listen(self, subject: str, receive: Receive, *, queue: str = "") -> Subscription:
        """Pass every message on a subject to `receive`, until the subscription is drained."""
        # Nothing is received in between: subscribing does not wait for the server.
        subscription = await self.subscribe(subject, queue=queue)
        self._receivers[subscription._id] = receive  # noqa: SLF001
        return subscription

    async def drain_listeners(self) -> None:
        """Receive what the server has sent to those who share a queue, and no more after that."""
        drains = [each.drain() for each in list(self._subs.values()) if each.queue]
        for failure in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(failure, errors.Error):
                log.warning("NATS: %s", type(failure).__name__)

    async def check(self, timeout: float) -> None:
        """Return once the server answers, within `timeout` seconds; else raise UnavailableError."""
        try:
            await self.flush(timeout=timeout)  # type: ignore[arg-type]  # it takes a float
        except (errors.Error, OSError):
            raise UnavailableError("NATS is out of reach") from None
        if not self.is_connected:  # then there was nothing to flush to
            raise UnavailableError("NATS is out of reach")
        if self._denied:
            raise UnavailableError("NATS does not permit to listen to all subjects")

    def send(self, subject: bytes, payload: bytes, headers: bytes = b"") -> None:
        """Send a message; what is sent in one turn of the loop leaves in one write.

        While there is no connection messages are kept, up to a bound, and then dropped.
        """
        if headers:
            size = len(headers)
            head = b"HPUB %b %d %d\r\n%b" % (subject, size, size + len(payload), headers)
        else:
            head = b"PUB %b %d\r\n" % (subject, len(payload))
        if len(headers) + len(payload) > self.max_payload:
            # The server would end the connection, under everybody who uses it.
            log.error("dropped a message: it is larger than the server allows")
            return
        if not self.is_connected and self._pending_data_size + len(payload) > MAX_UNSENT:
            log.warning("dropped a message: no connection to NATS, and too much to send already")
            return
        self._pending.append(b"%b%b\r\n" % (head, payload))
        self._pending_data_size += len(head) + len(payload) + 2
        if not self._writing:
            self._writing = True
            self._call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if not (self._pending and self.is_connected and self._transport):
            return  # nats-py writes it after a reconnect
        try:
            self._transport.writelines(self._pending)
        except (OSError, RuntimeError):  # closed: the read loop will find out, too
            return
        self._pending, self._pending_data_size = [], 0

    async def ask(
        self, subject: str, payload: bytes, *, headers: bytes = b"", timeout: float
    ) -> tuple[bytes, bytes]:
        """Send a request, and return headers and payload of its reply (see `Requester`)."""
        if len(headers) + len(payload) > self.max_payload:
            raise PayloadTooLargeError("the request does not fit into one message")
        reply = b"%b%d" % (self._inbox, next(self._numbers))
        answer = asyncio.get_running_loop().create_future()
        self._requests[reply] = answer
        try:
            async with asyncio.timeout(timeout):
                head = b"%b %b" % (subject.encode(), reply)
                self.send(head, payload, headers)
                reply_headers, body = await answer
        except TimeoutError:
            if not self.is_connected:
                raise UnavailableError("NATS is out of reach") from None
            raise RequestTimeoutError from None
        finally:
            del self._requests[reply]
        if is_no_responders(reply_headers):
            raise NoRespondersError
        return reply_headers, body

    async def open_inbox(self) -> None:
        """Listen for the replies to our own requests."""
        self._inbox = self.new_inbox().encode() + b"."
        await self.listen(f"{self._inbox.decode()}*", self._receive_reply)

    async def move(self) -> None:
        """Leave a server that is about to shut down (its lame duck mode) for another.

        It sends no more requests, those it has sent are answered, and then the rest of them will
        be asked of this process through another server.
        """
        # nats-py calls this from its read loop, which the leaving needs.
        self._moving = asyncio.get_running_loop().create_task(self._move())

    async def _move(self) -> None:
        try:
            async with asyncio.timeout(MOVE_TIMEOUT):
                for subscription in list(self._subs.values()):
                    if subscription.queue:
                        await self._send_unsubscribe(subscription._id)  # noqa: SLF001
                await self.flush()
                await self.answered()
                if self._requests:
                    await asyncio.wait(self._requests.values())
                await self.flush()
        except (TimeoutError, errors.Error) as error:
            log.warning("left a NATS server before all was answered: %s", type(error).__name__)
        finally:
            await self.force_reconnect()

    def receive(
        self, sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> None:
        """Pass a message on to whoever listens (called by the parser)."""
        receive = self._receivers.get(sid)
        if receive is None:
            return
        try:
            receive(subject, reply, headers, payload)
        except Exception:
            # There is no caller to raise to, and the read loop must go on.
            log.exception("a message was not received")

    def keep_alive(self) -> None:
        """Let TCP notice a peer that is gone, with bytes on their way to it or without."""
        transport = self._transport
        writer = getattr(transport, "_io_writer", None)
        if writer is None:  # a websocket has its own pings
            return
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE)

    def _receive_reply(self, subject: bytes, _: bytes, headers: bytes, payload: bytes) -> None:
        answer = self._requests.get(subject)
        if answer is not None and not answer.done():
            answer.set_result((headers, payload))

    # What follows overrides nats-py.

    async def close(self) -> None:
        """Close for good."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)
        if self._flush_queue is None:  # it was never opened
            return
        if not self.is_connected:  # nats-py would write it to a transport that is closed
            self._pending, self._pending_data_size = [], 0
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            await super().close()
        except asyncio.CancelledError:
            # Ending its reconnect, nats-py cancels the very future that it then waits for.
            if task is None or task.cancelling() > cancelled:
                raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002
        await super()._process_info(info, initial_connection)
        self._max_payload = info.get("max_payload", self._max_payload)  # a reload may change it

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # whoever waited for it has given up
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _read_loop(self) -> None:
        reader = getattr(self._transport, "_io_reader", None)
        if reader is not None:  # a websocket has none
            self._read_directly(reader)
        await super()._read_loop()
        if self.is_connected:
            await self._process_op_err(errors.StaleConnectionError())

    def _read_directly(self, reader: asyncio.StreamReader) -> None:
        """Take messages as they arrive; nats-py's loop has the rest to do, and notices the end."""
        wait = reader.feed_data

        def take(data: bytes) -> None:
            try:
                rest = self._ps.take(data)  # type: ignore[attr-defined]  # our own
            except errors.ProtocolError as error:
                reader.set_exception(error)
            else:
                if rest:
                    wait(rest)

        # What has arrived before is read, and parsed, before anything else can be.
        reader.feed_data = take  # type: ignore[method-assign, assignment]

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            log.error("NATS: %s", err_msg)
            if "for subscription" in err_msg:
                self._denied = True
        elif self.is_connected:
            await self._process_op_err(errors.Error(f"nats: {err_msg}"))
        else:
            await super()._process_err(err_msg)


@asynccontextmanager
async def connected(
    servers: Sequence[str],
    *,
    name: str,
    options: Mapping[str, Any] | None = None,
    patience: float | None = None,
    ended: asyncio.Event | None = None,
) -> AsyncIterator[Connection]:
    """Connect to NATS, and reconnect for ever, until the context is left; that flushes and closes.

    Args:
        servers: URLs.
        name: shown in the server's list of connections.
        options: credentials and TLS, as arguments of nats-py's `connect`.
        patience: seconds to try for at first; None is for ever.
        ended: set when the connection is closed for good.

    Raises UnavailableError if no server was reached in that time.
    """
    connection = Connection()
    said: set[str] = set()  # one line for each way in which an outage shows, not for each attempt

    async def disconnected() -> None:
        if not connection.is_closed:
            log.warning("lost the connection to NATS")

    async def reconnected() -> None:
        log.info("connected to NATS again")
        said.clear()
        connection._denied = False  # noqa: SLF001
        connection.keep_alive()

    async def failed(error: Exception) -> None:
        name = type(error).__name__
        if name not in said:
            said.add(name)
            log.warning("NATS: %s", name)

    async def closed() -> None:
        if ended is not None:
            ended.set()

    try:
        try:
            async with asyncio.timeout(patience):
                await connection.connect(
                    servers=list(servers),
                    name=name,
                    connect_timeout=2,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    ping_interval=PING_INTERVAL,
                    max_outstanding_pings=2,
                    disconnected_cb=disconnected,
                    reconnected_cb=reconnected,
                    error_cb=failed,
                    closed_cb=closed,
                    lame_duck_mode_cb=connection.move,
                    **(options or {}),
                )
        except (OSError, errors.Error) as error:  # a timeout is an OSError
            raise UnavailableError("NATS is out of reach") from error
        said.clear()
        connection.keep_alive()
        await connection.open_inbox()
        yield connection
    finally:
        await _close(connection)


async def _close(connection: Connection) -> None:
    try:
        if connection.is_connected:
            await connection.flush(timeout=2)
    except errors.Error as error:
        log.warning("NATS: %s", type(error).__name__)
    finally:
        await connection.close()
