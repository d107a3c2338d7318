"""Log lines, as text or JSON."""

# Tracebacks leave the messages of errors out: a driver's error may quote a value of a row, and an
# error about a URL the password in it. What is left says where an error and those that caused it
# were raised, and of which classes they are.
#
# What a line repeats of others (the name of a table, an error of the NATS server with a subject in
# it) may hold characters that a terminal obeys, or a line break and then a line that looks like
# ours. So a record is one line, and what cannot be printed is escaped.

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

from responder.models import as_javascript
from responder.terminal import visible
from responder.throttling import LibrariesThrottle


def configure(level: str, style: Literal["text", "json"], *, worker: int | None = None) -> None:
    """Write log lines to standard error.

    Args:
        level: of the least severe lines that are written, such as "info".
        style: "text", or "json" for one object a line.
        worker: the number of this process under its supervisor, which each line then tells.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(worker)
        if style == "json"
        else TextFormatter(
            f"%(asctime)s %(levelname)s {f'worker {worker}: ' if worker else ''}%(message)s"
        )
    )
    handler.addFilter(LibrariesThrottle())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("httpx", "httpcore"):  # they log the key set's address, which may hold a password
        logging.getLogger(name).setLevel(logging.WARNING)


def traceback_without_messages(error: BaseException | None) -> str:
    """Return where an error and those that caused it were raised, and their classes."""
    parts = []
    while error is not None:
        parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
        error = error.__cause__ or error.__context__
    return "\ncaused by\n".join(parts)


class TextFormatter(logging.Formatter):
    """Writes a log line as text, its time in UTC (RFC 3339), its traceback without messages."""

    def formatTime(  # noqa: N802 - the library's name
        self,
        record: logging.LogRecord,
        datefmt: str | None = None,  # noqa: ARG002 - there is one format
    ) -> str:
        """Return the time of the line (called by `logging`)."""
        return as_javascript(datetime.fromtimestamp(record.created, UTC))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line without the traceback (called by `logging`)."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        """Return the traceback of an error (called by `logging`)."""
        return traceback_without_messages(ei[1])


class JsonFormatter(TextFormatter):
    """Writes a log line as a JSON object, with the same time and traceback.

    Args:
        worker: the number of this process under its supervisor, if it has one.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line (called by `logging`)."""
        line = {
            "ts": self.formatTime(record),
            "level": record.levelname.lower(),
            **self._worker,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
