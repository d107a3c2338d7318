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
    """Takes the bytes as they come, in pieces of any size; stands in for nats-py's parser."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._buffer = bytearray()

    def reset(self) -> None:
        """Forget what has arrived: the next byte is from another connection."""
        self._buffer = bytearray()

    async def parse(self, data: bytes) -> None:
        """Take some bytes, and tell the client of all that is complete; raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        start = 0
        while (end := buffer.find(b"\r\n", start)) >= 0:
            line = bytes(buffer[start:end])
            if line.startswith((b"MSG ", b"HMSG ")):
                after = self._message(line, buffer, end + 2)
                if after is None:
                    break
                start = after
            else:
                start = end + 2
                await self._control(line)
                if self._buffer is not buffer:  # reset meanwhile
                    return
        else:
            if len(buffer) - start > MAX_LINE:
                raise ProtocolError("nats: a line without an end")
        del buffer[:start]

    def _message(self, line: bytes, buffer: bytearray, start: int) -> int | None:
        """Deliver a message, and return where the next line begins; None while it is not complete."""
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
        if len(buffer) < end + 2:
            return None
        reply = words[3] if len(words) > fixed else b""
        headers, payload = bytes(buffer[start : start + head]), bytes(buffer[start + head : end])
        self._client.receive(sid, words[1], reply, headers, payload)
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
