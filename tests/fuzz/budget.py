"""How long the fuzzers go on, and from which seed: see CONTRIBUTING."""

# A fuzzer prints its seed where it fails; with that seed it makes the same requests again. What
# they meet depends on when they arrive, so that a fault may take a longer run to show again.

from __future__ import annotations

import os
import random
import time
from typing import Final

SECONDS: Final = float(os.environ.get("RESPONDER_TEST_FUZZ_SECONDS", "10"))  # of each fuzzer
SEED: Final = int(os.environ.get("RESPONDER_TEST_FUZZ_SEED") or random.randrange(2**32))
TIMEOUT: Final = SECONDS + 120  # seconds that a test of this folder may take


class Budget:
    """The time that a fuzzer has, which begins now.

    Args:
        share: of SECONDS.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._end = time.monotonic() + SECONDS * share

    @property
    def left(self) -> bool:
        """Whether there is any."""
        return time.monotonic() < self._end


def chance(name: str) -> random.Random:
    """Return the numbers of one part of a fuzzer: the same for the same seed and name."""
    return random.Random(f"{SEED} {name}")
