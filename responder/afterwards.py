"""What is to be done at the end of what is being done now."""

# While what a socket has brought is dealt with, more of it may follow in the same read: other
# requests, which shall share a query, and other replies, which shall leave in one write. So a query
# and a write wait for the end of the read, and not for the next turn of the loop: to turn once more
# costs a lone request a system call, and about a tenth of our time.
#
# Outside of a read they wait for the next turn, as others do.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeAlias

log: Final = logging.getLogger(__name__)

Call: TypeAlias = Callable[[], object]


class Afterwards:
    """Calls functions once what is being read has been dealt with.

    Attributes:
        reading: set to True when something is being read; `end` has to follow.
    """

    def __init__(self) -> None:
        self._call_soon = asyncio.get_running_loop().call_soon
        self.reading: bool = False
        self._calls: list[Call] = []

    def call(self, function: Call) -> None:
        """Call a function at the end of the read, or in the next turn where there is none."""
        if self.reading:
            self._calls.append(function)
        else:
            self._call_soon(function)

    def end(self) -> None:
        """Call what waits, and what is added meanwhile."""
        calls = self._calls
        while calls:
            try:
                calls.pop(0)()
            except Exception:
                log.exception("what follows a read failed")
        self.reading = False
