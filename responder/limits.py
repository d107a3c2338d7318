"""How large a message may be."""

from __future__ import annotations


class Limits:
    """What the NATS server permits; one object for all who have to know, because it may change it.

    Attributes:
        message: bytes that a message may have, headers included.
    """

    __slots__ = ("message",)

    def __init__(self) -> None:
        self.message: int = 1024 * 1024
