"""nats-py's client, without what makes it lose messages or go deaf."""

# Strategy: nats-py does what it is good at: credentials, the handshake, reconnecting. How messages
# pass, and how an outage is noticed, is replaced here, because a service cannot live with nats-py's
# way of it. Only this module, `login`, `tls` and `protocol` touch what is private to nats-py.
#
# pyproject.toml pins nats-py to one version, whose insides these are; the tests of this package
# fail if those of another version behave differently.

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, Final, TypeAlias

from nats import errors
from nats.aio.client import PING_PROTO, Client, Srv
from nats.aio.subscription import Subscription

from responder.afterwards import Afterwards
from responder.limits import Limits
from responder.nats.backlog import Backlog
from responder.nats.denials import Denials
from responder.nats.protocol import Parser
from responder.nats.pulse import Pulse
from responder.nats.tls import TlsClient
from responder.nats.turns import Turns
from responder.nats.unsent import Unsent
from responder.throttling import ThrottledLog

repeated: Final = ThrottledLog(__name__)

# Called with subject, reply subject, headers and payload; must not wait, and should not raise. What
# has room for no other message of the kind now returns True: see `protocol`.
Receive: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bool | None]
# Called with the reply subjects of such messages.
Refuse: TypeAlias = Callable[[list[bytes]], None]

SILENCE: Final = 20_000  # milliseconds after which TCP gives up on bytes that are not acknowledged
CROWD: Final = 32  # messages that are worth a turn of the loop, so that others leave with them
MAX_UNREAD: Final = 32 * 1024 * 1024  # bytes kept while the server does not read (see `turns`)

# Why a message did not leave.
DENIED: Final = "denied"  # by the server's permissions
TOO_LARGE: Final = "too_large"
NOT_CONNECTED: Final = "not_connected"
UNREAD: Final = "unread"  # the server reads too slowly
_ROOT = re.compile(r'for publish to "([\w$-]{1,32})\.')


class _MeasuringPong(asyncio.Future[bool]):
    """Stands among what waits for PONGs of the server, for one that nothing waits for."""


class HardenedClient(TlsClient):
    """A client of nats-py; see `connection` for what is made of it.

    Replaced as a whole:

    `subscribe` with a callback, by `listen`. nats-py puts messages into a queue for each
        subscription, and a task awaits its callback for one at a time. Here a message is passed on
        as it is read, to a function that must not wait: all that arrived in one read is known
        before anything is done about it.
    `publish`, by `send`. nats-py wakes a task to write. Here all that is sent in one read, or in
        one turn of the loop, leaves in one write at its end.
    The parser, and the reader of headers. nats-py's end the read loop over some bytes that the
        server lets through, and the client stays "connected" and deaf. Here subject and headers
        stay bytes until the receiver reads them (see `protocol`).

    Overridden, each for the reason it gives: `_read_loop`, `_connect_to_server`,
    `_process_connect_init`, `_send_ping`, `_process_pong`, `_process_info` with `limits`,
    `_process_err`, `close`.

    Attributes:
        limits: of this server.
        denials: the subjects to which this server does not let us subscribe.
        lost: how many messages did not leave, by the reason.
        backlog: how old what is being received is.
        afterwards: ends each read.
        pulse: whether the server is heard of.

    Args:
        patience: seconds for which nothing may be heard of the server before it is given up.
    """

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.limits: Limits = Limits()
        self.denials: Denials = Denials(self._subscribe_again)
        self.lost: Counter[str] = Counter({DENIED: 0, TOO_LARGE: 0, NOT_CONNECTED: 0, UNREAD: 0})
        loop = asyncio.get_running_loop()
        self.backlog: Backlog = Backlog(loop.time)
        self.pulse: Pulse = Pulse(patience, ask=self._ask_for_life, give_up=self._give_up)
        self._receivers: dict[int, Receive] = {}
        self._refusers: dict[int, Refuse] = {}
        self._ps = Parser(self)  # type: ignore[assignment]  # stands in for nats-py's own
        self._writing = False  # whether a write will follow in this turn of the loop
        self._unsent = Unsent()
        self._now = loop.time
        self._turns: Turns | None = None
        self._stream: asyncio.Transport | None = None
        self._unread = 0  # bytes that the server had not read when we last wrote
        self.afterwards: Afterwards = Afterwards()
        self._call_soon = loop.call_soon

    # In place of nats-py's own ways.

    async def listen(
        self, subject: str, receive: Receive, *, queue: str, refuse: Refuse | None = None
    ) -> None:
        """Pass every message on a subject to `receive`, until the subscription is drained.

        Where it has returned True others go to `refuse` instead (see `protocol`).
        """
        # Nothing is received in between: subscribing does not wait for the server.
        subscription = await self.subscribe(subject, queue=queue)
        self._receivers[subscription._id] = receive
        if refuse is not None:
            self._refusers[subscription._id] = refuse

    def receive(
        self, sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> bool:
        """Pass a message on to the receiver of its subscription (called by the parser)."""
        receive = self._receivers.get(sid)
        if receive is None:
            return False
        try:
            full = receive(subject, reply, headers, payload)
        except Exception as error:  # noqa: BLE001 - it is logged
            # There is no caller to raise to, and the read loop must go on.
            repeated.error("a message was not received", exc_info=error)
            return False
        return full is True and sid in self._refusers

    def refuse(self, sid: int, replies: list[bytes]) -> None:
        """Pass on what is refused unread (called by the parser)."""
        self._refusers[sid](replies)

    def send(
        self, subject: bytes, payload: bytes, headers: bytes = b"", until: float = 0.0
    ) -> None:
        """Send a message; what is sent in one read or turn of the loop leaves in one write.

        While there is no connection messages are kept for the next, up to a bound, and dropped then
        if `until`, the loop's time, has passed.
        """
        size, total = len(headers), len(headers) + len(payload)
        if total > self.limits.message:
            # The server would end the connection, and with it every request under way.
            self.lost[TOO_LARGE] += 1
            repeated.error("dropped a message: it is larger than the server allows")
        elif headers:
            head = subject, size, total, headers, payload
            self._send(b"HPUB %b %d %d\r\n%b%b\r\n" % head, 1, until)
        else:
            self._send(b"PUB %b %d\r\n%b\r\n" % (subject, total, payload), 1, until)

    def send_to_all(self, subjects: Sequence[bytes], payload: bytes, headers: bytes) -> None:
        """Send the same message, with headers, to many subjects; it must be a small one."""
        size = len(headers)
        rest = b" %d %d\r\n%b%b\r\n" % (size, size + len(payload), headers, payload)
        data = b"HPUB " + (rest + b"HPUB ").join(subjects) + rest
        self._send(data, len(subjects), 0.0)

    def _send(self, data: bytes, messages: int, until: float) -> None:
        unsent = self._pending_data_size + self._unread + len(data)
        if self._status != Client.CONNECTED or unsent > MAX_UNREAD:
            self._keep(data, messages, until)
        else:
            self._append(data)

    def _keep(self, data: bytes, messages: int, until: float) -> None:
        """Keep a message for the next connection, if it says for how long, and there is room."""
        if self._status == Client.CONNECTED:
            self.lost[UNREAD] += messages
            repeated.warning("dropped a message: the NATS server does not read what is sent")
        elif not (until and self._unsent.keep(data, until)):
            self.lost[NOT_CONNECTED] += messages
            repeated.warning("dropped a message: no NATS server, or too much to send already")

    def _append(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_data_size += len(data)
        if not self._writing:
            self._writing = True
            self.afterwards.call(self._write_soon)

    def _write_soon(self) -> None:
        """Write what one read brought; of a crowd, together with what other reads bring."""
        if len(self._pending) > CROWD:
            self._call_soon(self._write)
        else:
            self._write()

    def _write(self) -> None:
        self._writing = False
        stream = self._stream or self._transport
        if not (self._pending and stream and self._status == Client.CONNECTED):
            return
        try:
            stream.writelines(self._pending)
        except (OSError, RuntimeError):  # closed: the read loop will find out, too
            return
        self._pending, self._pending_data_size = [], 0
        if self._turns is not None:
            self._unread = self._turns.wrote()

    # What nats-py does not offer.

    def queue_subscriptions(self) -> list[Subscription]:
        """Return the subscriptions that share a queue with other programs."""
        return [each for each in self._subs.values() if each.queue]

    async def pause_queues(self) -> None:
        """Have this server send no more on subscriptions that share a queue.

        A reconnect subscribes to them again.
        """
        self.denials.stop()
        for subscription in self.queue_subscriptions():
            await self._send_unsubscribe(subscription._id)

    async def _subscribe_again(self, subjects: Container[str]) -> None:
        """Subscribe to some subjects once more, and return when the server has answered."""
        for each in list(self._subs.values()):  # there may be others meanwhile
            if each.subject.lower() in subjects:
                await self._send_subscribe(each)
        await self.flush()

    def keep_alive(self) -> None:
        """Let TCP notice a peer that is gone, with bytes on their way to it or without."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None:  # a websocket has its own pings
            return
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE)

    def _ask_for_life(self) -> None:
        """Have the server say something, if there is a connection."""
        if self._status == Client.CONNECTED:
            passed_over = asyncio.get_running_loop().create_future()
            passed_over.cancel()
            self._pongs.append(passed_over)
            self._append(PING_PROTO)

    def _give_up(self) -> None:
        """Drop the connection, with all that is on its way, if nothing comes by it any more."""
        reader = getattr(self._transport, "_io_reader", None)
        if self._status == Client.CONNECTED and self._turns is not None and reader is not None:
            self._turns.reset()
            reader.set_exception(TimeoutError())

    # What follows overrides nats-py.

    async def _connect_to_server(self, s: Srv) -> None:
        """End what is left of an attempt that failed; nats-py leaves its socket open."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        """Forget what another server has denied, and what waits to be sent, but for what is kept.

        nats-py sends all, even PINGs, whose PONGs would end later flushes too early.
        """
        self.denials.forget()
        self._stream = None  # it is another's, until this connection is read
        await super()._process_connect_init()
        self._pending, dropped = self._unsent.take(self._now())
        self.lost[NOT_CONNECTED] += dropped
        self._pending_data_size = sum(map(len, self._pending))
        self.backlog.reset()
        self.pulse.begin()

    async def _read_loop(self) -> None:
        """Read; after the end of the loop, whatever its reason, connect again.

        nats-py stops reading over a late PONG, or anything unexpected, and says nothing of it.
        """
        self._turns, self._stream, self._unread = None, None, 0
        reader = getattr(self._transport, "_io_reader", None)
        writer = getattr(self._transport, "_io_writer", None)
        if reader is not None and writer is not None:  # a websocket has neither
            self._stream = writer.transport
            self._turns = Turns(writer.transport, self.backlog, self.pulse)
            self._read_directly(reader, writer.transport, self._turns)
        await super()._read_loop()
        if self.is_connected:
            await self._process_op_err(errors.StaleConnectionError())

    def _read_directly(
        self, reader: asyncio.StreamReader, stream: asyncio.Transport, turns: Turns
    ) -> None:
        """Take messages as they arrive, instead of waking a task to read them.

        nats-py's loop is left what is no message, and notices the end of the connection.
        """

        def take(data: bytes) -> None:
            turns.read(len(data))
            self.afterwards.reading = True
            try:
                if self.backlog.begin(len(data)):
                    self._pongs.append(_MeasuringPong())
                    self._append(PING_PROTO)
                rest = self._ps.take(data)  # type: ignore[attr-defined]  # our own
            except errors.ProtocolError as error:
                reader.set_exception(error)
            else:
                if rest:
                    reader.feed_data(rest)
            finally:
                self.afterwards.end()

        # What has arrived before is read, and parsed, before anything else can be.
        protocol: Any = stream.get_protocol()
        protocol.data_received = take
        stream.set_protocol(protocol)  # uvloop looks for the function here

    def receive_pong(self) -> bool:
        """Take a PONG if it is that of a measurement (called by the parser)."""
        if not (self._pongs and isinstance(self._pongs[0], _MeasuringPong)):
            return False
        self._pongs.pop(0)
        self._pings_outstanding = 0
        self.backlog.end()
        return True

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send a PING behind all that waits to be sent.

        nats-py's overtakes it, so that a flush proves nothing about a subscription made or ended
        just before.
        """
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        """Pass over the PONG of a flush that is no longer waited for; nats-py raises."""
        if self.receive_pong():
            return
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _process_info(
        self,
        info: dict[str, Any],
        initial_connection: bool = False,  # noqa: FBT001, FBT002 - as nats-py has it
    ) -> None:
        """Follow a limit that a reload of the server's configuration changes; nats-py does not."""
        await super()._process_info(info, initial_connection)
        self.limits.message = info.get("max_payload", self.limits.message)

    async def _process_err(self, err_msg: str) -> None:
        """Connect again after an error of the server.

        nats-py closes for good on any but two. Credentials are rotated under running services.
        """
        if "permissions violation for publish" in err_msg:
            self.lost[DENIED] += 1
            # Of a reply subject, which a caller has chosen, no more is shown than where it belongs.
            root = _ROOT.search(err_msg)
            where = f"{root[1]}.…" if root else "a subject"
            repeated.error("NATS does not permit to publish to %s: a message was lost", where)
        elif "permissions violation" in err_msg:
            self.denials.add(err_msg)
        elif self.is_connected:
            await self._process_op_err(errors.Error(f"nats: {err_msg}"))
        else:
            await super()._process_err(err_msg)

    async def close(self) -> None:
        """Close for good, even if the connection is lost at the moment."""
        self.pulse.stop()
        self.denials.forget()
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
