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
from itertools import chain
from typing import Any, Final, Protocol

from nats.errors import ProtocolError

from responder.nats.backlog import Backlog
from responder.nats.senders import half_a_share

_WITH_REPLY: Final = {b"MSG": 5, b"HMSG": 6}  # words of the first line, if a reply is wanted
_BEFORE_REPLY: Final = 3  # spaces before the reply subject
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


class _Sent:
    """Messages to a subscription whose reply subjects begin alike."""

    __slots__ = ("ends", "reply", "sid", "starts")

    def __init__(self, sid: bytes, reply: bytes) -> None:
        self.sid = sid
        self.reply = reply  # how the reply subjects begin
        self.ends: list[bytes] = []  # and how each ends
        self.starts: list[int] = []  # where each message begins


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
        self._half = 0.0  # of an equal share of what was refused lately

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
        # What a line has before its last dot is the same for all messages of a sender to a
        # subscription, so that it is split once, and of the others only what comes behind it.
        senders: dict[bytes, _Sent] = {}
        silent: list[int] = []  # where the messages begin that want no reply
        find, size = data.find, len(data)
        while (end := find(b"\r\n", start)) >= 0:
            head, _, tail = data[start:end].rpartition(b".")
            words = tail.split(b" ")
            sent = senders.get(head)
            if sent is None:
                line = data[start:end].split(b" ")
                if (with_reply := _WITH_REPLY.get(line[0])) is None:
                    break
                if head.count(b" ") == _BEFORE_REPLY:  # the dot is that of a reply subject
                    sent = senders[head] = _Sent(line[2], head.split(b" ")[3] + b".")
                elif len(line) == with_reply:
                    sent, words = senders.setdefault(line[2], _Sent(line[2], b"")), line[3:]
            after = end + 4 + int(words[-1])
            if after > size:
                break
            if sent is None:
                silent.append(start)
            else:
                sent.ends.append(words[0])
                sent.starts.append(start)
            start = after
        self._refuse_most(data, list(senders.values()), silent)
        return start

    def _refuse_most(self, data: bytes, senders: list[_Sent], silent: list[int]) -> None:
        """Refuse the messages of those who send much, and deliver the others."""
        full = [each for each in senders if each.sid in self._refused]
        # A small read may hold what one sender of little has sent, and nothing else.
        self._half = max(half_a_share(len(each.ends) for each in full), self._half / 2)
        refused = defaultdict[bytes, list[bytes]](list)
        backlog = self._recipient.backlog
        for each in full:
            spared = 0
            if len(each.ends) <= self._half:
                backlog.sparing = True
                self._refused.discard(each.sid)
                for start in each.starts:
                    if each.sid in self._refused:
                        break
                    self._deliver_one(data, start)
                    spared += 1
                self._refused.add(each.sid)
                backlog.sparing = False
            refused[each.sid] += [each.reply + end for end in each.ends[spared:]]
        for sid, replies in refused.items():
            if replies:
                self._recipient.refuse(int(sid), replies)
        # What came with that for other subscriptions is as old, but its senders may send little.
        others = [each for each in senders if each.sid not in refused]
        little = {at for each in others if len(each.ends) <= self._half for at in each.starts}
        for start in sorted(chain(silent, *(each.starts for each in others))):
            backlog.sparing = start in little
            self._deliver_one(data, start)
        backlog.sparing = False

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
