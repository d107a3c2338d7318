"""The CPU time and the memory of processes with all their children."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil

Usage = dict[int, int]  # nanoseconds by process id


def usage(pid: int) -> Usage:
    """Return the CPU time so far of a process and of each of its descendants."""
    found = {}
    for each in _tree(pid):
        try:
            found[each] = time.clock_gettime_ns(_clock(each))
        except OSError:  # it has just ended
            continue
    return found


def spent(before: Usage, after: Usage) -> float:
    """Return the microseconds between two usages; what has ended meanwhile is not counted."""
    return sum(now - before.get(pid, 0) for pid, now in after.items()) / 1e3


def usages(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Return the usage of each program, and of this one as `load`."""
    return {name: usage(pid) for name, pid in pids.items()} | {"load": {0: time.process_time_ns()}}


def resident(pid: int) -> float:
    """Return the resident memory of a process and its descendants, in MB of a million bytes."""
    total = 0
    for each in _tree(pid):
        try:
            total += psutil.Process(each).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def _tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _clock(pid: int) -> int:
    # clock_getcpuclockid(3) of Linux: nanoseconds of all threads, past ones too, where psutil and
    # /proc/PID/stat count hundredths of a second.
    return ~pid << 3 | 2
