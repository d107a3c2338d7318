"""A proxy on loopback that fails as a network does: nothing passes, or late, or it resets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Proxy:
    """Passes bytes on to a port of this machine.

    Attributes:
        port: where it listens.
        delay: seconds by which each piece is late.
    """

    def __init__(self, to: int) -> None:
        self.port = 0
        self.delay = 0.0
        self._to = to
        self._open = asyncio.Event()
        self._open.set()
        self._sockets: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Let nothing through, as a network that drops all packets does; TCP sends them again."""
        self._open.clear()

    def heal(self) -> None:
        """Let through what comes and what was held."""
        self._open.set()

    def reset(self) -> None:
        """Reset each connection at both ends."""
        for writer in self._sockets:
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        """Listen while the context is open."""
        server = await asyncio.start_server(self._accept, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._sockets.add(writer)
        ends = [writer]
        try:
            await self._open.wait()
            there, out = await asyncio.open_connection("127.0.0.1", self._to)
            ends.append(out)
            self._sockets.add(out)
            ways = [
                asyncio.create_task(self._pass(reader, out)),
                asyncio.create_task(self._pass(there, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:  # the server is not there
            pass
        finally:
            for end in ends:
                end.close()
                self._sockets.discard(end)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                if reader.exception():  # a reset takes back what has not arrived
                    break
                writer.write(data)
                await writer.drain()
        except OSError:  # reset
            pass
