"""What is to be sent once there is a connection again."""

# An answer is made while there is no connection: its caller may still be there, at another server
# of the cluster. After its deadline it is of no use any more, and is dropped.

from __future__ import annotations

from typing import Final

MAX_UNSENT: Final = 8 * 1024 * 1024  # bytes


class Unsent:
    """Keeps messages for a time, up to a bound."""

    def __init__(self) -> None:
        self._messages: list[tuple[float, bytes]] = []  # each with the end of its time
        self._size = 0  # bytes

    def keep(self, message: bytes, until: float) -> bool:
        """Keep a message until then; return whether there is room for it."""
        if self._size + len(message) > MAX_UNSENT:
            return False
        self._messages.append((until, message))
        self._size += len(message)
        return True

    def take(self, now: float) -> tuple[list[bytes], int]:
        """Return the messages whose time has not passed, and how many others there were."""
        kept = [message for until, message in self._messages if until > now]
        dropped = len(self._messages) - len(kept)
        self._messages, self._size = [], 0
        return kept, dropped
