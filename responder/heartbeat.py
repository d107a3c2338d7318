"""The heartbeat of a worker process, to which its supervisor listens: both ends of it."""

# Strategy: the event loop of a worker sends a byte every BEAT seconds. A worker whose loop turns no
# more (it is stopped, or stuck in a call that does not return) still has its connections, and NATS
# still sends it its share of the requests. So a worker that is silent for SILENCE is taken for hung
# and is killed: it would not heed a gentler signal.
#
# Silence proves this only if the listener could have heard something. It is counted in ticks of
# the supervisor's own loop, and forgotten after a tick that came late: after a pause of the machine
# each worker gets a whole interval anew. It is forgotten, too, while a worker that was killed is
# not back: one is replaced at a time, so that what keeps all silent does not end all at once.

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

BEAT: Final = 0.2  # seconds
SILENCE: Final = 2.0  # seconds
LATE: Final = 0.5  # seconds by which a tick may be late
STARTING: Final = 30.0  # seconds before the first beat, in which a process reads its modules
BACK: Final = 10.0  # seconds that a worker which was killed may take to beat again


def beat(sock: socket.socket) -> None:
    """Send a byte every BEAT seconds, for as long as the running loop turns."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)

    def again() -> None:
        with suppress(OSError):  # the supervisor is gone, or has not listened for long
            sock.send(b".")
        loop.call_later(BEAT, again)

    again()


class Heart:
    """The heart of one process, as its supervisor hears it.

    Args:
        kill: ends the process if it hangs; another will come in its place.

    Attributes:
        kill: likewise.
        theirs: the end that the process is given.
        begun: whether it has ever beaten.
        silence: seconds of the supervisor's since the last beat.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self.kill = kill
        self.theirs: socket.socket
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.begun: bool = False
        self.silence: float = 0.0
        asyncio.get_running_loop().add_reader(self._ours, self._hear)

    def _hear(self) -> None:
        try:
            heard = self._ours.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if heard:
            self.begun = True
            self.silence = 0.0
        else:  # the process has ended
            asyncio.get_running_loop().remove_reader(self._ours)

    @property
    def hung(self) -> bool:
        """Whether it has been silent for too long."""
        return self.silence > (SILENCE if self.begun else STARTING)

    def close(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self.theirs.close()


async def watch(hearts: Callable[[], Sequence[Heart]]) -> None:
    """Have a process killed whose heart is silent for too long, one at a time, for ever.

    Args:
        hearts: returns those of the processes that run.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()
    awaited_until = last  # while a process that was killed is not back
    while True:
        await asyncio.sleep(BEAT)
        now = loop.time()
        late, last = now - last > BEAT + LATE, now
        beating = hearts()
        if late or (now < awaited_until and not all(each.begun for each in beating)):
            for each in beating:
                each.silence = 0.0
            continue
        awaited_until = now
        for each in beating:
            each.silence += BEAT
        hung = next((each for each in beating if each.hung), None)
        if hung is not None:
            hung.kill()
            awaited_until = now + BACK
