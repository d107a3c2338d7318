"""Programs that stand still for a while, as those of a machine without time do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60  # seconds


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """While in this context none of these processes runs, from the first moment on."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        # The signal is only noted by kill: a thread on another core goes on for a moment.
        while not all(map(_stands_still, pids)):
            assert time.monotonic() < deadline
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(each.read_text().rpartition(")")[2].split()[0] == "T" for each in threads)
