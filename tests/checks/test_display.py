"""A report in a terminal: in colour, no wider than that, and with every word whole."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from responder.checks import display
from responder.checks.report import BROKEN, NOTE, Candidate, Finding, Mapped, Report
from responder.terminal import visible

COMMAND = re.compile(r"\x1b\[[0-9;]*m")
INDEX = 'create index concurrently on "public"."members" ("organizationId", "createdAt", "id");'
REPORT = Report(
    servers={"nats": "NATS 2.10, 李小龍 " * 5, "keys": f"https://{'a' * 70}.example/"},
    candidates=[
        Candidate(
            "user", "public.users", True, ("it is called users", "x" * 30), ("[bold]y", ":x:")
        )
    ],
    mapping=[Mapped("public.user", "id", "id", "text", by_hand=True)],
    findings=[
        Finding("rows", NOTE, "each page reads and sorts the whole organization", INDEX),
        Finding("nats", BROKEN, "NATS is out of reach: \x1b[2J127.0.0.1:1", "Check NATS_URL."),
    ],
)


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **variables: str):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    display.show(REPORT)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 45, 80, 200])
def test_it_is_as_wide_as_the_terminal(capsys, monkeypatch, columns):
    """Lines end between words, so that only a longer word is wider, and what is said stays."""
    text = COMMAND.sub("", shown(capsys, monkeypatch, COLUMNS=str(columns)))

    for line in text.splitlines():
        cells = sum(2 if char > "\u2e80" else 1 for char in line)
        assert cells <= max(columns, 38) or len(line.split()) <= 2, line
    assert text.split() == REPORT.as_text().split()


def test_what_is_broken_is_first_and_red(capsys, monkeypatch):
    """Severities and headings have colours, and nothing that is said commands the terminal."""
    text = shown(capsys, monkeypatch, COLUMNS="80")

    assert text.startswith("\x1b[1;31mbroken")
    assert "\x1b[1;36mnote" in text
    assert "\x1b[1mpublic.user" in text
    assert COMMAND.sub("", text).replace("\n", "").isprintable()
    assert "[bold]y; :x:" in " ".join(COMMAND.sub("", text).split())


def test_no_color_is_heeded(capsys, monkeypatch):
    """With NO_COLOR set there is none (https://no-color.org)."""
    text = shown(capsys, monkeypatch, NO_COLOR="1")

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)


@pytest.mark.heavy
def test_check_knows_a_terminal_from_a_pipe(tmp_path):
    """In a terminal of 50 columns a report is coloured and folded; in a pipe it is neither."""
    check = [sys.executable, "-m", "responder", "check"]
    variables = {
        "DATABASE_URL": "postgres://x@127.0.0.1:1/x",
        "NATS_URL": "nats://127.0.0.1:1",
        "TERM": "xterm",
        "FORCE_COLOR": "1",
    }
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 50))
    with subprocess.Popen(
        check, cwd=tmp_path, env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        parts = []
        with suppress(OSError):  # the end of a terminal is an error on Linux
            while part := os.read(ours, 4096):
                parts.append(part)
        os.close(ours)
    piped = subprocess.run(
        check, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )

    seen = b"".join(parts).decode()
    assert (1, 1, "") == (process.returncode, piped.returncode, piped.stderr)
    assert COMMAND.search(seen)
    assert max(len(line) for line in COMMAND.sub("", seen).split("\r\n")) <= 50
    assert piped.stdout == visible(piped.stdout, keep="\n")
    assert COMMAND.sub("", seen).split() == piped.stdout.split()
