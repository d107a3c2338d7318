"""How old what arrives is: the age of the backlog in the server and in the socket."""

# What a worker has not read waits in nats-server and in sockets, and nothing says for how long. So
# a PING is sent: the server answers it behind all that it holds for us, and so what is read before
# its PONG is at least as old as the PING.
#
# An example: the server holds 30,000 requests, which take a second to read. A PING is sent. After
# 0.2 s what is read has waited for at least 0.2 s, after 0.9 s for 0.9 s; then comes the PONG.
#
# A PONG may be late for other reasons: a packet was lost, or the server was paused, or is so busy
# that the PING has to wait there. What is read meanwhile may be fresh, and must not look old. So it
# is measured only while a read brings so much that more must be behind it, and nothing is older
# than the last moment at which there was nothing to read. At normal load no PING is sent.

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

MUCH: Final = 60_000  # bytes in one read that tell of more behind them
INTERVAL: Final = 0.05  # seconds between two measurements


class Backlog:
    """Knows how old what is being read is, at least.

    Args:
        now: returns the time in seconds.

    Attributes:
        age: seconds for which the server has had what is being read, at least; 0 when in doubt.
        sparing: whether what is being passed on comes from a sender of little, while others are
            refused (see `senders`).
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.age: float = 0.0
        self.sparing = False
        self._now = now
        self._sent: deque[float] = deque()  # when each PING was sent that has no PONG yet
        self._small = True  # whether the last read brought little
        self._empty = now()  # when there was nothing to read

    def begin(self, size: int) -> bool:
        """Begin to read so many bytes; return whether a PING is to be sent."""
        self.age = 0.0
        if size < MUCH:
            self._small = True
            return False
        now = self._now()
        if self._small:
            self._small = False
            self._empty = now
        self._measure(now)
        if self._sent and now - self._sent[-1] < INTERVAL:
            return False
        self._sent.append(now)
        return True

    def caught_up(self) -> None:
        """Note that there is nothing to read."""
        self._empty = self._now()

    def end(self) -> None:
        """Take the PONG of the first PING: what is read from here on came after it."""
        self._sent.popleft()
        if not self._small:
            self._measure(self._now())

    def _measure(self, now: float) -> None:
        self.age = now - max(self._sent[0], self._empty) if self._sent else 0.0

    def reset(self) -> None:
        """Forget what was sent: the connection is another."""
        self.age = 0.0
        self._sent.clear()
