"""The first step of the program: a signal to end is heeded before the modules are read."""

# Reading the modules takes half a second, and a process manager may change its mind meanwhile. The
# service has received nothing by then, so it ends well and at once, as it does later by itself
# (see `cli.end_on_signals`). Commands that give an answer are ended by the signal, as any program:
# exit status 0 would say that there was one.

import os
import signal
import sys
from types import FrameType

SERVICES = ("serve", "bridge", "dev")
WRONG_USE = 2


def main() -> int:
    """Run the command line; return its exit status."""
    _open_streams()
    if sys.argv[1:2] and sys.argv[1] in SERVICES:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _end)
    try:
        from responder import cli  # noqa: PLC0415 - it is what takes so long
    except ModuleNotFoundError as error:
        return _say_what_is_missing(error)
    return cli.main()


def _open_streams() -> None:
    """Let standard streams that are closed lead nowhere, before a socket is given their number."""
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            stream = os.fdopen(number, mode, closefd=False)
            setattr(sys, ("stdin", "stdout", "stderr")[number], stream)


def _say_what_is_missing(error: ModuleNotFoundError) -> int:
    """Say what to install where only the client is; raises any other error."""
    if (error.name or "").partition(".")[0] == "responder":
        raise error
    extra = "dev" if sys.argv[1:2] == ["dev"] else "server"
    print(
        f"responder: the command needs {error.name}, which is not installed: "
        f"pip install 'better-auth-responder[{extra}]'",
        file=sys.stderr,
    )
    return WRONG_USE


def _end(_: int, __: FrameType | None) -> None:
    os._exit(0)
