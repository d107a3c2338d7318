"""A server as a child process: started in a directory of its own, awaited, ended, cleaned up."""

# When a context here is left, by return, error or cancellation, the process and its directory are
# gone. A context that is cancelled again while it ends its server sends the server a harsher signal
# at once, but still waits for it to end. When the parent is killed outright, Linux ends its servers
# as well (see `launch`), and what is left is cleared away by a process beside it (see `janitor`).

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from . import launch
from .janitor import janitor

T = TypeVar("T")

PATIENCE = 5.0  # seconds that a process has after each signal, before the next
POLL = 0.005  # seconds
LOG_TAIL = 4_000  # characters


class StartError(RuntimeError):
    """A server does not start; the message says why, with the end of its log."""


class Account(NamedTuple):
    """The account that a process runs as, where it is not our own."""

    uid: int
    gid: int


@contextmanager
def temporary_directory(
    name: str, *, parent: Path | None = None, owner: Account | None = None
) -> Iterator[Path]:
    """Make a directory that only we may enter; on leaving, remove it and its content.

    Args:
        name: a part of its own name.
        parent: where it is made; by default where temporary files are.
        owner: the account that owns what is in it, and may enter it by its group.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"responder-{name}-", dir=parent)).resolve()
    with janitor().minding(directory):
        try:
            if owner is not None:
                os.chown(directory, -1, owner.gid)
                directory.chmod(0o770)
            yield directory
        finally:
            remove(directory)


def remove(directory: Path) -> None:
    """Remove a directory, even while the last children of a killed server write to it."""
    for _ in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(POLL)
    shutil.rmtree(directory)


@asynccontextmanager
async def running(
    program: Path,
    *arguments: str,
    directory: Path,
    log: Path,
    account: Account | None = None,
    stop: signal.Signals = signal.SIGINT,
) -> AsyncIterator[Process]:
    """Run a program; leaving the context ends it, first by the signal `stop`.

    The program gets a process group of its own, so that Ctrl-C in a terminal reaches us and not
    it. It gets next to nothing of our environment, so that no PG* or NATS_* variable configures it.

    Args:
        program: the file to run.
        arguments: what it is called with.
        directory: its working directory.
        log: the file that its output is added to.
        account: what it runs as, if not as ourselves.
        stop: the first signal to end it; SIGQUIT and SIGKILL follow.
    """
    uid, gid = account or (-1, -1)
    environment = {"LC_ALL": "C", "TZ": "UTC"}
    environment |= {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(uid), str(gid)),
            *(str(program), *arguments),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    with janitor().minding(process.pid):
        try:
            yield process
        finally:
            await _end(process, stop)


async def _end(process: Process, stop: signal.Signals) -> None:
    cancelled: asyncio.CancelledError | None = None
    for number in (stop, signal.SIGQUIT, signal.SIGKILL):
        if process.returncode is not None:
            break
        with suppress(ProcessLookupError):
            # The process group has the process and, for initdb, the servers that it runs for a
            # moment. PostgreSQL's own children leave the group, and their parent ends them.
            os.killpg(process.pid, number)
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            continue
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def ready(
    process: Process, probe: Callable[[], T | None], *, log: Path, within: float = 20.0
) -> T:
    """Call `probe` until it returns something other than None, and return that.

    Args:
        process: the process that is starting.
        probe: is called every few milliseconds.
        log: the file with its output, for the message of an error.
        within: seconds to wait.

    Raises StartError if the process ends first, or is not ready within that time.
    """
    deadline = time.monotonic() + within
    while (found := probe()) is None:
        if process.returncode is not None:
            message = (
                f"{log.stem} ended with status {process.returncode} while starting:\n{tail(log)}"
            )
            raise StartError(message)
        if time.monotonic() > deadline:
            message = f"{log.stem} is not ready after {within:g} s:\n{tail(log)}"
            raise StartError(message)
        await asyncio.sleep(POLL)
    return found


def tail(log: Path) -> str:
    """Return the end of a log, for an error message."""
    try:
        return log.read_text(errors="replace")[-LOG_TAIL:].strip() or "(its log is empty)"
    except FileNotFoundError:
        return "(it has no log)"
