"""Clear away what a killed process has left: a program, and what tells it of that."""

# A process that is killed outright cannot end its servers or remove their directories, some 40 MB
# for each PostgreSQL. So it starts this file as a program beside it, tells it by a pipe of each
# server and of each directory, and again when one is gone. The end of the pipe is the end of the
# process, however it came. Then the program ends the servers that are left, removes the directories
# and ends itself, all within two seconds. It has a session of its own, so that what kills a process
# group or a terminal's programs does not kill it.
#
# Isolated and without site packages this costs some 8 MB of memory and is started in 20 ms.

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

MERCY = 0.5  # seconds that a server has to end, before it is killed
EFFORT = 1.0  # seconds that it is tried to remove a directory to which a server still writes
POLL = 0.01  # seconds


class Janitor:
    """Starts the program, and tells it what there is."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - of our own
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._pipe = self._process.stdin.fileno() if self._process.stdin else -1
        atexit.register(self._process.communicate)  # ends the pipe, and awaits the program

    @contextmanager
    def minding(self, what: int | Path) -> Iterator[None]:
        """Have a server, by its process id, or a directory cleared away if we are killed."""
        self._tell(f"+{what}")
        try:
            yield
        finally:
            self._tell(f"-{what}")

    def _tell(self, line: str) -> None:
        with suppress(OSError):  # it was killed, too
            os.write(self._pipe, f"{line}\n".encode())


@cache
def janitor() -> Janitor:
    """Return the janitor of this process."""
    return Janitor()


def main(told: IO[str]) -> None:
    """Wait for the end of what is told, and clear away what is left."""
    left: dict[str, None] = {}
    for line in told:
        what = line[1:].rstrip("\n")
        if line.startswith("+"):
            left[what] = None
        else:
            left.pop(what, None)
    _end([int(each) for each in left if each.isdecimal()])
    for each in left:
        if not each.isdecimal():
            _remove(Path(each))


def _end(servers: list[int]) -> None:
    """End servers. One that is being started, and is no server yet, ends by these signals, too."""
    _signal(servers, signal.SIGQUIT)
    until = time.monotonic() + MERCY
    while time.monotonic() < until and _signal(servers, 0):
        time.sleep(POLL)
    _signal(servers, signal.SIGKILL)


def _signal(servers: list[int], number: int) -> bool:
    """Send a signal to servers; return whether any is there."""
    found = False
    for each in servers:
        with suppress(ProcessLookupError):
            os.killpg(each, number)
            found = True
    return found


def _remove(directory: Path) -> None:
    until = time.monotonic() + EFFORT
    while directory.exists() and time.monotonic() < until:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(POLL)


if __name__ == "__main__":
    main(sys.stdin)
