"""One connection of HTTP/1.1: read in bounded pieces, its requests answered one at a time."""

# Strategy: what a client can make a connection hold is bounded, whatever it sends and however
# little it reads: READ bytes that arrived too early, the head of one request, and one answer. Heads
# larger than READ are few, and have MAX_HELD bytes together.
#
# One request is answered at a time. The next one is parsed once the client has taken the answer to
# the last. For example, of 14,000 requests that are sent at once, one is being answered, some
# hundreds are in the READ bytes that have been received, and the others stay in the socket, because
# reading is paused until those are done with. TCP then makes the client wait.
#
# In one turn of the loop AT_ONCE heads are looked at. Other connections wait for the next turn, in
# order, so that NATS and the probes of the admin listener get theirs, however many clients there
# are. For example, 1,300 clients that all send at once take twenty turns of 3 ms, not one of 60.
#
# Until a head is there as a whole, it costs a search for its end. No request has a body that is
# wanted here, and a body is dropped as it arrives.
#
# A connection has a deadline whenever no request of it is being answered. Whether it has passed is
# looked at from outside, about twice a second (see `acceptor`), because a timer for each request
# would cost more than parsing it.

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp

from responder.http.exchange import Exchange
from responder.http.head import END, Head, HeadParser, oversized
from responder.http.response import Headers, Response, encode, problem

READ: Final = 4 * 1024  # bytes that are read at once
DROP: Final = 64 * 1024  # bytes that are read at once to be dropped
MAX_HELD: Final = 16 * 1024 * 1024  # bytes of all heads that are larger than READ
AT_ONCE: Final = 64  # heads, of all connections of a listener; and what is dropped
MAX_BODY: Final = 64 * 1024  # bytes; after a larger body the connection ends
HEAD_TIMEOUT: Final = 10.0  # seconds that a head may take to arrive, and the body behind it
LINGER: Final = 1.0  # seconds that a client may go on sending after its last answer

TOO_MUCH: Final = problem(
    503, "unavailable", "too many large headers at once", headers={"retry-after": "1"}
)


class Shared:
    """What the connections of a listener share.

    Args:
        app: answers their requests (ASGI).
        keep_alive: seconds that a connection may be idle between two requests.

    Attributes:
        accepted: how many sockets are accepted whose connection is not made yet.
        connections: all that are made.
        held: bytes of heads larger than READ that are arriving, or whose requests are under way.
        idle: those on which no request is being answered, the longest idle one first.
        headers: lines in the head of every answer.
        freed: called when a connection is lost; set while that is waited for.
        stopping: whether each answer is the last on its connection.
        heads: reads the heads of all requests.
        buffer: what every connection reads into, because what was read is copied at once.
        dropped: likewise, where it is not even looked at.
    """

    def __init__(self, app: ASGIApp, *, keep_alive: float) -> None:
        self.app = app
        self.keep_alive = keep_alive
        self.accepted = 0
        self.connections: set[Connection] = set()
        self.held = 0
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.headers = b""
        self.freed: Callable[[], None] | None = None
        self.stopping = False
        self.heads: HeadParser = HeadParser()
        self.buffer: bytearray = bytearray(READ)
        self.received: memoryview = memoryview(self.buffer)
        self.dropped: bytearray = bytearray(DROP)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._taken = 0  # heads in this turn of the loop
        self._waiting: deque[Connection] = deque()  # for the next one

    def admit(self, connection: Connection) -> bool:
        """Return whether a head may be looked at in this turn; else call `go_on` in the next."""
        if self._taken >= AT_ONCE:
            self._waiting.append(connection)
            return False
        if not self._taken:
            self.loop.call_soon(self._begin_turn)
        self._taken += 1
        return True

    def postpone(self, connection: Connection) -> None:
        """Call `go_on` in the next turn, because others have to have theirs."""
        self._waiting.append(connection)

    def _begin_turn(self) -> None:
        self._taken = 0
        for _ in range(min(AT_ONCE, len(self._waiting))):
            self._waiting.popleft().go_on()
        if self._waiting and not self._taken:  # the others are gone
            self.loop.call_soon(self._begin_turn)


class Connection(asyncio.BufferedProtocol):
    """One connection of a client.

    Args:
        shared: what it shares with the others of its listener.

    Attributes:
        idle_since: the loop's time at which its last request was answered, or it was made.
        deadline: the loop's time at which it is to be closed if it is idle.
    """

    def __init__(self, shared: Shared) -> None:
        self.idle_since: float = math.inf
        self.deadline: float = math.inf
        self._shared = shared
        self._transport: Any = None  # uvloop's own kind
        self._rest = b""  # received, and not parsed yet
        self._searched = 0  # bytes of it that are known to hold no end of a head
        self._held = 0  # bytes that count in `Shared.held`
        self._whole = True  # whether nothing of the last request is still to arrive
        self._body_left = 0  # bytes of its body that are to arrive, and are dropped
        self._exchange: Exchange | None = None  # of the request that is being answered
        self._keep_alive = True
        self._head_begun = True  # the first head has to arrive in time even if it never begins
        self._waiting = False  # for another turn of the loop
        self._reading = True
        self._writable = True
        self._ending = False
        self._lingering: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, but not for ever: a silent client holds a connection."""
        self._transport = transport
        self._shared.accepted -= 1
        self._keep_alive = not self._shared.stopping
        transport.set_write_buffer_limits(high=0)
        self._shared.connections.add(self)
        self._become_idle(HEAD_TIMEOUT, head_begun=True)

    def connection_lost(self, _: Exception | None) -> None:
        """Stop answering."""
        self._leave()
        if self._lingering is not None:
            self._lingering.cancel()
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.cancel()
        if self._shared.freed is not None:
            self._shared.freed()

    def get_buffer(self, _: int) -> bytearray:
        """Return where to read to."""
        return self._shared.dropped if self._ending else self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived; drop it once the last answer is sent."""
        if not self._ending:
            received = bytes(self._shared.received[:nbytes])
            self._rest = self._rest + received if self._rest else received
            self._go_on()
        elif self._lingering is not None:
            # A client that sends as fast as it is read is read from in some turns, and not in each.
            self._transport.pause_reading()
            if self._shared.admit(self):
                self._shared.loop.call_soon(self._read_on)

    def eof_received(self) -> bool:
        """Answer what was asked before the client stopped sending; returning False closes."""
        self._keep_alive = False
        return self._exchange is not None

    def pause_writing(self) -> None:
        """Begin no other request: the client has not taken its last answer yet."""
        self._writable = False

    def resume_writing(self) -> None:
        """Begin requests again."""
        self._writable = True
        if not self._ending:
            self._go_on()

    # What the listener calls.

    def shutdown(self) -> None:
        """Make the answer to the request in hand, or to the next one, the last."""
        self._keep_alive = False

    def give_up(self) -> None:
        """Have the request in hand answered now, that it is too late for it."""
        if self._exchange is not None:
            self._exchange.cancel()

    def end(self) -> None:
        """Take no request from now on, if none is in hand."""
        if self._exchange is None and not self._waiting and not self._ending:
            self._linger()

    def drop(self) -> None:
        """Close at once: its deadline has passed, or another connection needs its place."""
        self._leave()
        self._transport.abort()

    def go_on(self) -> None:
        """Go on in this turn of the loop with what had to wait for it."""
        self._waiting = False
        if self._lingering is not None:
            self._read_on()
        elif not self._ending:
            self._go_on()

    # Requests.

    def _go_on(self) -> None:
        """Begin the next request, once the last one is done with and the next has arrived."""
        if self._body_left:
            self._drop_body()
        if self._rest and not self._is_busy():
            if self._shared.admit(self):
                self._take_head()
            else:
                self._waiting = True
        reading = self._ending or not (self._rest and self._is_busy())
        if reading is not self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _is_busy(self) -> bool:
        return self._exchange is not None or self._waiting or not self._writable

    def _drop_body(self) -> None:
        dropped = min(self._body_left, len(self._rest))
        self._rest = self._rest[dropped:]
        self._body_left -= dropped
        self._whole = not self._body_left
        if self._whole and self._exchange is None:  # it was answered before it had arrived
            self._become_idle(self._shared.keep_alive, head_begun=False)

    def _take_head(self) -> None:
        """Begin a request if its head is there as a whole; refuse it if it is too large."""
        received = self._rest
        if received[0] in b"\r\n":  # empty lines before a request mean nothing (RFC 9112, 2.2)
            self._rest = received = received.lstrip(b"\r\n")
            if not received:
                return
        end = received.find(END, self._searched)
        whole = end >= 0
        size = end if whole else len(received)
        head: Head | Response | None = oversized(received, size, whole=whole)
        if head is None and size > READ and not self._hold(size):
            head = TOO_MUCH
        if head is None and not whole:
            self._wait_for_rest(size)
            return
        self._searched = 0
        raw, self._rest = received[: size + len(END)], received[size + len(END) :]
        if head is None:
            head = self._shared.heads.parse(raw)
        if isinstance(head, Head):
            self._begin(head)
        else:
            self._refuse(head, bodiless=raw.startswith(b"HEAD "))

    def _hold(self, size: int) -> bool:
        """Count the bytes of a large head, or 0; return whether there is room for them."""
        shared = self._shared
        shared.held += size - self._held
        self._held = size
        return shared.held <= MAX_HELD

    def _wait_for_rest(self, size: int) -> None:
        self._searched = max(size - len(END) + 1, 0)
        if not self._head_begun:
            self._head_begun = True
            self.deadline = self._shared.loop.time() + HEAD_TIMEOUT

    def _begin(self, head: Head) -> None:
        """Have a request answered."""
        shared = self._shared
        shared.idle.pop(self, None)
        self._keep_alive = self._keep_alive and head.keep_alive
        if head.body != 0:
            self._expect_body(head)
        self._exchange = Exchange(head, self._answer)
        self._waiting = True  # an answer that is there at once begins no other request
        self._exchange.begin(shared.app)
        self._waiting = self._exchange is None and bool(self._rest)
        if self._waiting:
            shared.postpone(self)

    def _expect_body(self, head: Head) -> None:
        """Drop a body as it arrives, or let the connection end with the answer.

        The connection ends where it would cost too much to see where the body does: one in chunks,
        and a large one. It also ends where the client waits for `100 Continue` before its body,
        because it may send that body after its answer, or not.
        """
        self._whole = False
        if head.body is None or head.body > MAX_BODY or b"expect" in dict(head.headers):
            self._keep_alive = False
        else:
            self._body_left = head.body

    # Answers.

    def _answer(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Send the answer to a request, unless it has one already or its client is gone."""
        if self._exchange is not exchange:
            return
        message = self._encode(status, headers, body, bodiless=exchange.bodiless)
        self._exchange = None
        if self._held:
            self._hold(0)
        seconds = self._shared.keep_alive if self._whole else HEAD_TIMEOUT
        self._become_idle(seconds, head_begun=not self._whole)
        self._transport.writelines(message)
        if self._keep_alive:
            self._go_on()
        elif self._whole and not self._rest:
            self._ending = True
            self._transport.close()
        else:
            self._linger()

    def _refuse(self, response: Response, *, bodiless: bool) -> None:
        """Answer what is no request that could be answered, and end the connection.

        It ends because where the next request begins is known of a good one only.
        """
        self._keep_alive = False
        self._transport.writelines(self._encode(*response, bodiless=bodiless))
        self._linger()

    def _encode(self, status: int, headers: Headers, body: bytes, *, bodiless: bool) -> list[bytes]:
        always, last = self._shared.headers, not self._keep_alive
        return encode(status, headers, body, always=always, last=last, bodiless=bodiless)

    def _linger(self) -> None:
        """Close once the client does, or has had LINGER seconds for it.

        To close a socket with unread bytes in it resets the connection, and the client may lose its
        answer. So the client is told that no other answer will come, and what it still sends is
        read and dropped.
        """
        self._ending = True
        self._rest = b""
        self._hold(0)
        self._transport.write_eof()
        self._lingering = self._shared.loop.call_later(LINGER, self._transport.close)
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # Idleness.

    def _become_idle(self, seconds: float, *, head_begun: bool) -> None:
        """Take the last place among those that are idle, for so many seconds at most."""
        shared = self._shared
        self._head_begun = head_begun
        self.idle_since = shared.loop.time()
        self.deadline = self.idle_since + seconds
        shared.idle[self] = None

    def _leave(self) -> None:
        self._ending = True
        self._hold(0)
        self._shared.connections.discard(self)
        self._shared.idle.pop(self, None)
