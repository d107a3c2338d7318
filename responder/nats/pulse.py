"""Notices that nothing comes from a NATS server any more, though it was asked."""

# Where the network swallows what is sent, no error tells of it. What then waits on the way, for
# longer than a timeout, is of no use to any caller, and would be if it passed later: requests whose
# callers have given up would be answered, and answers would come too late. So a connection that has
# been silent for so long is given up, with all that is on its way, and another is made.
#
# It is counted in beats. In one during which nothing has come, the server is sent a PING. An
# example, with a patience of 2 s: a beat is 1/8 s, and when nothing has come in 16 of them the
# connection is given up. A process that stands still itself for a minute misses one beat: then it
# reads what has come meanwhile, and all is well.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

BEATS: Final = 16
MIN_PATIENCE: Final = 1.0  # seconds: a server on a busy machine may be late


class Pulse:
    """Looks from time to time whether anything has come.

    Args:
        patience: seconds of silence after which the server is given up.
        ask: asks the server for a sign of life.
        give_up: called once it is silent, and for each beat for which it is.

    Attributes:
        heard: whether anything has come in this beat.
        silent: whether nothing has come for so long.
    """

    def __init__(
        self, patience: float, *, ask: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self.heard: bool = True
        self.silent: bool = False
        self.patience: float = max(patience, MIN_PATIENCE)
        self._ask, self._give_up = ask, give_up
        self._missed = 0
        self._call_later = asyncio.get_running_loop().call_later
        self._next = self._call_later(self.patience / BEATS, self._beat)

    def begin(self) -> None:
        """Begin anew: there is another connection."""
        self.heard, self.silent, self._missed = True, False, 0

    def stop(self) -> None:
        """Look no more."""
        self._next.cancel()

    def _beat(self) -> None:
        self._next = self._call_later(self.patience / BEATS, self._beat)
        if self.heard:
            self.begin()
            self.heard = False
            return
        self._missed += 1
        if self._missed == 1:
            self._ask()
        elif self._missed >= BEATS - 1:
            self.silent = True
            self._give_up()
