"""A server as a child process: started in a directory of its own, awaited, ended, cleaned up."""

# What a context here owes to its caller: when it is left, by return, error or cancellation, the
# process is gone and so is its directory. Each further cancellation while it ends its server buys
# a ruder signal, never an orphan. A parent killed outright takes its servers along on Linux (see
# `launch`); only their directories are left then.

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

T = TypeVar("T")

PATIENCE = 5.0  # seconds for each signal, before the next
POLL = 0.005
LOG_TAIL = 4_000


class StartError(RuntimeError):
    """A server cannot be started here; the message says why, with the end of its log."""


class Account(NamedTuple):
    """Whom a process runs as, where that is not ourselves."""

    uid: int
    gid: int


@contextmanager
def temporary_directory(
    name: str, *, parent: Path | None = None, owner: Account | None = None
) -> Iterator[Path]:
    """Yield a fresh directory that only its owner may enter; remove it with all it holds."""
    directory = Path(tempfile.mkdtemp(prefix=f"responder-{name}-", dir=parent)).resolve()
    try:
        if owner is not None:
            os.chown(directory, *owner)
        yield directory
    finally:
        remove(directory)


def remove(directory: Path) -> None:
    """Remove a directory, even while the last children of a killed server still write to it."""
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
    """Run a program in `directory`, its output in `log`; leaving ends it, with the signal `stop`.

    It gets a session of its own, so that Ctrl-C in a terminal reaches us and not it, and next to
    nothing of our environment: no PG* or NATS_* variable of the caller may configure it.
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
            # The group is the process and, for initdb, the servers it runs for a moment;
            # PostgreSQL's own children leave the group and are their parent's to end.
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
    """Return what the probe finds once it finds something.

    Raises:
        StartError: the process ended first, or the time was over.
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
