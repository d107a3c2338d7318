"""Log lines that callers could repeat at will, a few of each kind."""

# Some log lines are written because of what a caller has sent: a request that makes a view fail, a
# reply subject on which NATS does not let a worker answer. How often that happens is the caller's
# to say, so that it must not be how often a line is written: the caller could fill a disk, and all
# other lines would drown. Of each kind the first line is written at once. Those that follow within
# INTERVAL are counted, and one line then tells how many they were, for example:
#
#   ERROR a lookup failed: DivisionByZeroError [22012]
#   ERROR a lookup failed: DivisionByZeroError [22012] (1203 more like this within 5 s)
#
# What such a line is about is counted in /metrics, whether it is written or not: errors by their
# codes, messages that were lost by the reason.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from time import monotonic
from typing import Any, Final, TypeAlias

INTERVAL: Final = 5.0  # seconds
_OURS: Final = "responder"
_TOLD: Final = {"told": True}  # marks a line that tells how many others were left out

# The text of a line, and what is filled into it.
_Line: TypeAlias = tuple[object, tuple[object, ...] | Mapping[str, object] | None]


class _LeftOut:
    """How many lines of a kind were not written since the last that was, and the latest of them."""

    __slots__ = ("count", "latest", "until")

    def __init__(self, line: _Line) -> None:
        self.count = 0
        self.latest = line
        self.until = monotonic() + INTERVAL


class Throttle:
    """Knows which kinds of lines have been written just now.

    A kind is forgotten once an interval has passed without such a line.
    """

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _LeftOut] = {}

    def admits(self, kind: Hashable, log: logging.Logger, level: int, line: _Line) -> bool:
        """Tell whether a line is to be written now; else it is counted.

        Args:
            kind: of the line.
            log: where it is written.
            level: of the line.
            line: its text, and what is filled into it.
        """
        left_out = self._kinds.get(kind)
        # What is long over was begun in an event loop that has ended.
        if left_out is not None and monotonic() < left_out.until + INTERVAL:
            left_out.count += 1
            left_out.latest = line
            return False
        return self._begin(kind, log, level, line)

    def _begin(self, kind: Hashable, log: logging.Logger, level: int, line: _Line) -> bool:
        """Begin an interval in which lines of a kind are left out; the line itself is written."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # in a thread, where no request is answered
            return True
        self._kinds[kind] = _LeftOut(line)
        loop.call_later(INTERVAL, self._tell, kind, log, level)
        return True

    def _tell(self, kind: Hashable, log: logging.Logger, level: int) -> None:
        """End an interval: tell how many lines were left out in it, and begin another if any."""
        left_out = self._kinds.pop(kind, None)
        if left_out is None or not left_out.count:
            return
        text, arguments = left_out.latest
        said = str(text) % arguments if arguments else text
        more = "%s (%d more like this within %d s)"
        log.log(level, more, said, left_out.count, INTERVAL, extra=_TOLD)
        self._begin(kind, log, level, left_out.latest)


class ThrottledLog(logging.LoggerAdapter[logging.Logger]):
    """A log for lines that callers could repeat at will.

    Lines are of one kind if their texts are, before anything is filled in, and the classes of their
    errors. A line may name its `kind` besides, one out of few.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))
        self._throttle = Throttle()

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Write a line, unless there was one of its kind just now (called by `error`, …)."""
        kind = msg, type(options.get("exc_info")), options.pop("kind", None)
        if self.isEnabledFor(level) and self._throttle.admits(
            kind, self.logger, level, (msg, args)
        ):
            self.logger.log(level, msg, *args, **options)


class LibrariesThrottle(logging.Filter):
    """Throttles the lines of libraries, any of which may be one that callers repeat at will.

    Lines are of one kind if the same line of code has written them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is written (called by `logging`)."""
        if record.name.partition(".")[0] == _OURS or hasattr(record, "told"):
            return True
        kind = record.name, record.levelno, record.pathname, record.lineno
        log = logging.getLogger(record.name)
        return self._throttle.admits(kind, log, record.levelno, (record.msg, record.args))
