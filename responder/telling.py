"""A line in the log for each request, at debug level."""

# It names the subject or the route's template, what it was answered, how long that took, and the
# trace that the caller has begun. Nothing of who asks, or for whom: a payload, a path and a reply
# subject are never in it.

from __future__ import annotations

import logging
import re
from typing import Final

log: Final = logging.getLogger(__name__)

_TRACE = re.compile(rb"(?:^|\r\n)traceparent:\s*[0-9a-f]{2}-([0-9a-f]{32})-", re.IGNORECASE)


def is_wanted() -> bool:
    """Tell whether requests are to be told of."""
    return log.isEnabledFor(logging.DEBUG)


def trace_of(headers: bytes) -> str:
    """Return the id of a request's trace by its header block, or "" if it has none."""
    found = _TRACE.search(headers)
    return found[1].decode() if found else ""


def tell(what: str, answer: str | int, seconds: float, trace: str) -> None:
    """Write the line of a request.

    Args:
        what: its subject, or method and template of its route.
        answer: "ok", a code or a status.
        seconds: until it was answered.
        trace: the id of its trace.
    """
    log.debug("%s %s %.1f ms%s", what, answer, 1000 * seconds, trace and f" trace {trace}")
