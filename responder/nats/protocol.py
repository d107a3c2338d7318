"""What a NATS server says, as bytes and then as calls; no I/O."""

# nats-py's own parser takes any white space for the end of a word, while the server ends words at
# spaces and tabs only: a reply subject with a form feed in it, which any client may send, makes that
# parser give up its connection, or wait for ever for what it has already got.

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from nats.errors import ProtocolError

MAX_LINE: Final = 1024 * 1024  # bytes; the longest is INFO, with the addresses of a whole cluster


class Client(Protocol):
    """Who is told; all but `receive` are methods of nats-py's client."""

    def receive(
        self, sid: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> None:
        """A message has arrived."""

    async def _process_ping(self) -> None: ...

    async def _process_pong(self) -> None: ...

    async def _process_err(self, err_msg: str) -> None: ...

    async def _process_info(self, info: dict[str, Any]) -> None: ...


class Parser:
    """Takes the bytes as they come, in pieces of any size; stands in for nats-py's parser.

    `take` delivers messages at once. What nats-py has to act upon, and what follows it, has to wait until
    it is given to `parse`, in pieces of any size too.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.reset()

    def reset(self) -> None:
        """Forget what has arrived: the next byte is from another connection."""
        self._partial = bytearray()  # the beginning of a message or line
        self._enough = 0  # bytes of it, before it is worth looking at again
        self._waiting = 0  # bytes that `take` has returned, and `parse` not had

    def take(self, data: bytes) -> bytes:
        """Take some bytes, and return what has to wait for `parse`; raises ProtocolError."""
        if not self._waiting:
            data = self._deliver(data)
        self._waiting += len(data)
        return data

    async def parse(self, data: bytes) -> None:
        """Take some bytes, and tell the client of all that is complete; raises ProtocolError."""
        size = len(data)
        while data := self._deliver(data):
            line, _, data = data.partition(b"\r\n")
            partial = self._partial
            await self._control(line)
            if self._partial is not partial:  # reset meanwhile
                return
        self._waiting = max(self._waiting - size, 0)

    def _deliver(self, data: bytes) -> bytes:
        """Deliver messages, and return what begins with a line that is something else."""
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
                return data[start:]
            after = self._message(line, data, end + 2)
            if after > len(data):
                break
            start = after
        else:
            if len(data) - start > MAX_LINE:
                raise ProtocolError("nats: a line without an end")
            after = 0
        self._partial += data[start:]
        self._enough = after - start
        return b""

    def _message(self, line: bytes, data: bytes, start: int) -> int:
        """Deliver a message if it is complete, and return where it ends."""
        words = line.split(b" ")
        fixed = 5 if words[0] == b"HMSG" else 4  # words, without a reply subject
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
            self._client.receive(sid, words[1], reply, data[start:middle], data[middle:end])
        return end + 2

    async def _control(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        match word.strip().upper():
            case b"PING":
                await self._client._process_ping()  # noqa: SLF001
            case b"PONG":
                await self._client._process_pong()  # noqa: SLF001
            case b"INFO":
                await self._client._process_info(json.loads(rest))  # noqa: SLF001
            case b"-ERR":
                await self._client._process_err(rest.decode(errors="replace").lower())  # noqa: SLF001
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")
