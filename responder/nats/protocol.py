"""What a NATS server says, as bytes and then as calls; no I/O."""

# Strategy: this parser stands in for nats-py's own, which takes any white space for the end of a
# word. The server ends words at spaces and tabs only, and passes on a reply subject with a form
# feed in it, which any client may send. nats-py's parser then gives up its connection, or waits for
# ever for bytes that it already has.
#
# The server says two kinds of things. A message is delivered at once, from `take`. All else (PING,
# PONG, INFO, an error) has nats-py do something that may wait, so it is left to `parse`, and with
# it all that came after: of `MSG a`, `PING`, `MSG b` in one read, `take` delivers a.

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Final, Protocol

from nats.errors import ProtocolError

from responder.nats.backlog import Backlog
from responder.nats.senders import half_a_share, sender

_WITH_REPLY: Final = {b"MSG": 5, b"HMSG": 6}  # words of the first line, if a reply is wanted
MAX_LINE: Final = 1024 * 1024  # bytes; the longest is INFO, with the addresses of a whole cluster


class Recipient(Protocol):
    """Is told what the server says; the methods that begin with `_` are nats-py's.

    Attributes:
        backlog: is told who is spared.
    """

    backlog: Backlog

    def receive(
        self, sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> bool:
        """A message has arrived, for the subscription with that id.

        Returns whether the others that came with it, for the same subscription, are to be refused.
        """

    def refuse(self, sid: int, replies: list[bytes]) -> None:
        """Messages are refused, which had these reply subjects."""

    def receive_pong(self) -> bool:
        """A PONG has arrived; return whether it was of a measurement, so that it is dealt with."""

    async def _process_ping(self) -> None: ...

    async def _process_pong(self) -> None: ...

    async def _process_err(self, err_msg: str) -> None: ...

    async def _process_info(self, info: dict[str, Any]) -> None: ...


class Parser:
    """Takes the bytes of the server as they come, in pieces of any size.

    What `take` returns has to wait until it is given to `parse`, again in pieces of any size.
    """

    def __init__(self, recipient: Recipient) -> None:
        self._recipient = recipient
        self.reset()

    def reset(self) -> None:
        """Forget what has arrived: the next byte is from another connection."""
        self._partial = bytearray()  # the beginning of a message or line
        self._enough = 0  # bytes that it must have before it is worth looking at again
        self._waiting = 0  # bytes that `take` has returned, and that `parse` has not been given
        self._refused = set[bytes]()  # the subscriptions whose messages in this read are refused

    def take(self, data: bytes) -> bytes:
        """Deliver the messages in some bytes, and return what has to wait for `parse`.

        Raises ProtocolError for what no server says.
        """
        if not self._waiting:
            data = self._deliver(data)
        self._waiting += len(data)
        return data

    async def parse(self, data: bytes) -> None:
        """Tell the recipient all that some bytes complete; raises ProtocolError."""
        size = len(data)
        while data := self._deliver(data):
            line, _, data = data.partition(b"\r\n")
            partial = self._partial
            await self._control(line)
            if self._partial is not partial:  # there was a reset while the recipient was told
                return
        self._waiting = max(self._waiting - size, 0)

    def _deliver(self, data: bytes) -> bytes:
        """Deliver messages, up to the first line that is none; return the rest, from that line."""
        if self._refused:
            self._refused = set()
        if self._partial:
            self._partial += data
            if len(self._partial) < self._enough:
                return b""
            data = bytes(self._partial)
            self._partial.clear()
        start = 0
        while (end := data.find(b"\r\n", start)) >= 0:
            line = data[start:end]
            if not line.startswith((b"MSG ", b"HMSG ")):
                if line == b"PONG" and self._recipient.receive_pong():
                    start = end + 2
                    continue
                return data[start:]
            after = self._message(line, data, end + 2)
            if after > len(data):
                break
            start = self._refuse(data, after) if self._refused else after
        else:
            if len(data) - start > MAX_LINE:
                raise ProtocolError("nats: a line without an end")
            after = 0
        self._partial += data[start:]
        self._enough = after - start
        return b""

    def _message(self, line: bytes, data: bytes, start: int) -> int:
        """Deliver a message if it is complete; return where it ends, or will end."""
        words = line.split(b" ")
        fixed = 5 if words[0] == b"HMSG" else 4  # the number of words without a reply subject
        try:
            size = int(words[-1])
            head = int(words[-2]) if words[0] == b"HMSG" else 0
            sid = int(words[2])
        except (ValueError, IndexError):
            size = sid = head = -1
        if len(words) not in (fixed, fixed + 1) or not 0 <= head <= size:
            raise ProtocolError("nats: malformed message")
        end = start + size
        if end + 2 <= len(data):
            reply = words[3] if len(words) > fixed else b""
            middle = start + head
            headers, payload = data[start:middle], data[middle:end]
            if self._recipient.receive(sid, words[1], reply, headers, payload):
                self._refused.add(words[2])
        return end + 2

    def _refuse(self, data: bytes, start: int) -> int:
        """Refuse and deliver the messages from here to whatever is none; return where that is."""
        full = defaultdict[tuple[bytes, bytes], list[tuple[bytes, int]]](list)
        others: list[int] = []  # where the messages of other subscriptions begin
        while (end := data.find(b"\r\n", start)) >= 0:
            words = data[start:end].split(b" ")
            with_reply = _WITH_REPLY.get(words[0])
            if with_reply is None:
                break
            after = end + 4 + int(words[-1])
            if after > len(data):
                break
            if words[2] not in self._refused:
                others.append(start)
            elif len(words) == with_reply:
                full[words[2], sender(words[3])].append((words[3], start))
            start = after
        half = half_a_share(map(len, full.values()))
        for (sid, _), messages in full.items():
            if len(messages) > half:
                self._recipient.refuse(int(sid), [reply for reply, _ in messages])
            else:
                self._recipient.backlog.sparing = True
                for _, begin in messages:
                    self._deliver_one(data, begin)
                self._recipient.backlog.sparing = False
        for begin in others:
            self._deliver_one(data, begin)
        return start

    def _deliver_one(self, data: bytes, start: int) -> None:
        end = data.index(b"\r\n", start)
        self._message(data[start:end], data, end + 2)

    async def _control(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        match word.strip().upper():
            case b"PING":
                await self._recipient._process_ping()
            case b"PONG":
                await self._recipient._process_pong()
            case b"INFO":
                await self._recipient._process_info(json.loads(rest))
            case b"-ERR":
                error = rest.decode(errors="replace").lower()
                await self._recipient._process_err(error)
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")
