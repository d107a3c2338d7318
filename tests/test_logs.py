"""Log lines tell where an error was raised, and nothing personal."""

from __future__ import annotations

import logging

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
