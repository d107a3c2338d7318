"""Bytes that are almost what they should be."""

from __future__ import annotations

import random
from collections.abc import Sequence


def mutated(sent: bytes, numbers: random.Random, words: Sequence[bytes], most: int = 4) -> bytes:
    """Return bytes of which some are changed, left out, doubled, or others put between.

    Args:
        sent: the bytes.
        numbers: decide what is done.
        words: what has a meaning to a reader of such bytes.
        most: how many changes there may be.
    """
    changed = bytearray(sent)
    for _ in range(numbers.randrange(most + 1)):
        at = numbers.randrange(len(changed) + 1)
        size = numbers.choice((0, 0, 1, 1, 2, 5, 40))
        part = bytes(changed[at : at + size])
        changed[at : at + size] = numbers.choice(
            (b"", part * 2, part * 50, numbers.randbytes(3), numbers.choice(words))
        )
    return bytes(changed)


def cut(sent: bytes, numbers: random.Random) -> list[bytes]:
    """Return bytes in pieces: whole, or in many, wherever they may begin."""
    size = numbers.choice((1, 3, 20, 500, 100_000))
    if len(sent) > 200 * size:
        size = len(sent) // 50
    return [sent[at : at + size] for at in range(0, len(sent), size)]
