"""Start a server that ends when its parent process does: the program every child begins with."""

# `process` runs this file as a program. It drops privileges, ties itself to its parent, and then
# becomes the server by `exec`.
#
# subprocess could do this by `preexec_fn`, but Python code between fork and exec may deadlock where
# there are threads (Python 3.12 warns of it), and uvloop takes neither `user` nor `group`. Here is
# one thread, and nothing is shared. Isolated and without site packages this costs 20 ms.

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: str, uid: str, gid: str, program: str, *arguments: str) -> None:
    """Drop privileges unless `uid` is -1, tie this process to its parent, become the program."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    if int(uid) >= 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if prctl is not None:
        # setuid clears this, so it comes after. On SIGINT both servers stop at once and cleanly, so
        # that of a parent that was killed only the directory is left.
        prctl(PR_SET_PDEATHSIG, int(signal.SIGINT))
        if os.getppid() != int(parent):
            sys.exit("the parent is gone")
    # Python ignores these two signals, and a signal that is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program, [program, *arguments])  # noqa: S606 - a program without a shell is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
