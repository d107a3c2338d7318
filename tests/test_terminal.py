"""What others have said reaches a terminal as text, and never as a command to it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from responder import cli
from responder.dev import process, service
from responder.terminal import visible

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(text=st.text(st.characters(codec=None)))
@example(text="\x1b[2J\x9b2J\u202e\u2028\r\n\ud800")
def test_no_character_is_obeyed(text):
    """Each character of what is shown can be printed."""
    assert visible(text).isprintable()


@given(text=st.text(st.characters().filter(str.isprintable)))
def test_what_can_be_printed_stays(text):
    """Text that a terminal obeys nothing of is shown as it is."""
    assert text == visible(text)


@given(value=json_values)
@example(value={"\x9b": "\u202e\x7f\U000e0041\ud800"})
def test_json_stays_the_same_json(value):
    """A JSON reply is printed as JSON of the same value, of nothing that a terminal obeys."""
    shown = cli._readable(json.dumps(value).encode())

    assert value == json.loads(shown)
    assert shown.replace("\n", "").isprintable()


@given(reply=st.binary() | st.text().map(str.encode))
@example(reply=b"\x1b]0;title\x07\x9b31m\r\nnext\ttab")
@example(reply=b"[" * 100_000)
@example(reply=b"1" * 5000)
@example(reply=b"[NaN, 1e999]")
def test_any_reply_can_be_shown(reply):
    """Whatever a program replies, it is shown with line breaks and tabs at most."""
    assert cli._readable(reply).replace("\n", "").replace("\t", "").isprintable()


def test_a_reply_keeps_its_letters():
    """Letters of any language are shown as they are."""
    assert '"Zoë 李小龍 🎸"' == cli._readable('"Zoë 李小龍 🎸"'.encode())


@pytest.mark.parametrize("arguments", [["\x1b[2J"], ["serve", "--\x9bfast"], ["check", "\u202e\n"]])
def test_a_wrong_argument_is_repeated_as_text(capsys, arguments):
    """The complaint about an argument holds no character that a terminal obeys."""
    with pytest.raises(SystemExit):
        cli.main(arguments)

    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


def test_the_log_of_a_server_that_does_not_start_is_shown_as_text(capsys, monkeypatch):
    """What `responder dev` shows of the log of its server holds nothing that a terminal obeys."""

    def running() -> None:
        raise process.StartError("postgres ended:\n\x1b[2J\x9b31m\u202e")

    monkeypatch.setattr(service, "running", running)

    assert 1 == cli.main(["dev"])
    lines = capsys.readouterr().err.splitlines()
    assert ["responder: postgres ended:", r"\u001b[2J\u009b31m\u202e"] == lines
