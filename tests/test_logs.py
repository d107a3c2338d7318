"""Log lines tell where an error was raised, and nothing personal."""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from responder import logs


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_log_line_never_holds_the_message_of_an_error(capsys, style):
    """A traceback says where and of what class an error is, and not its message, however deep."""
    email, password = "alice" + "@example.com", "hunter" + "2"
    logs.configure("info", style)
    error = RuntimeError(password)
    error.__cause__ = ValueError(email)
    logging.getLogger("responder").error("it failed", exc_info=error)

    logged = capsys.readouterr().err
    assert all(word in logged for word in ("it failed", "RuntimeError", "ValueError"))
    assert not any(word in logged for word in (email, password))


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\n2026 INFO all is well", "\x9b31m", "\u2028\u202e"]
)
def test_a_record_is_one_line_that_a_terminal_obeys_nothing_of(capsys, style, hostile):
    """What a record repeats of others can neither begin a line nor command a terminal."""
    logs.configure("info", style)
    logging.getLogger("responder").error("NATS: %s", hostile)

    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.isprintable()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_line_has_its_time_in_utc_and_the_number_of_its_worker(capsys, style, monkeypatch):
    """RFC 3339, whatever the zone of the machine; the number is that under the supervisor."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    logs.configure("info", style, worker=3)
    try:
        before = datetime.now(UTC)
        logging.getLogger("responder").info("it goes on")
        line = capsys.readouterr().err
    finally:
        monkeypatch.undo()
        time.tzset()

    written = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line)
    assert written
    assert abs(datetime.fromisoformat(written[0]) - before) < timedelta(minutes=1)
    assert re.search(r'worker 3: it goes on|"worker": 3,', line)
