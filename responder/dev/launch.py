"""Become a server that ends when its parent does: the first moments of every child process."""

# Run as a program by `process`, never imported by it.
#
# Why a program and not subprocess's `preexec_fn`: Python code between fork and exec may deadlock
# where there are threads (Python 3.12 warns about it), and uvloop takes neither `user` nor `group`.
# Here there is one thread and nothing shared. Isolated and without site packages it costs 20 ms.

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: str, uid: str, gid: str, program: str, *arguments: str) -> None:
    """Drop privileges (unless `uid` is -1), tie this process to its parent, become the program."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    if int(uid) >= 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if prctl is not None:
        # After setuid, which clears it. SIGINT is the signal both servers know as "stop now,
        # cleanly"; only the directory outlives a parent that is killed.
        prctl(PR_SET_PDEATHSIG, int(signal.SIGINT))
        if os.getppid() != int(parent):
            sys.exit("the parent is gone")
    # Python ignores these two, and what is ignored stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program, [program, *arguments])  # noqa: S606 - a program without a shell is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
