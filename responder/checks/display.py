"""A report in a terminal: in colour, and as wide as that is, with no word broken."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from responder.checks.report import BROKEN, NOTE, WARNING, Line, Report

_STYLES: Final = {
    BROKEN: "bold red",
    WARNING: "bold yellow",
    NOTE: "bold cyan",
    "good": "bold green",
    "heading": "bold",
    "": "",
}
_NARROW: Final = 20  # columns beside a label, at least
_WORD: Final = re.compile(r"\S+\s*|\s+")  # with the blanks after it


def show(report: Report) -> None:
    """Print a report on standard output (NO_COLOR and COLUMNS are heeded)."""
    # What names and servers say is no markup.
    console = Console(markup=False, emoji=False, highlight=False)
    for line in report.lines():
        console.print(_folded(line, console.width), soft_wrap=True)


def _folded(line: Line, width: int) -> Text:
    """Return a line with line breaks where it would be wider."""
    label, said = line.text[: line.hang], line.text[line.hang :]
    parts = [""]
    for word in _WORD.findall(said):
        # A word that is too long, such as a URL, stays whole, so that it can be copied.
        if parts[-1] and cell_len(parts[-1] + word.rstrip()) > max(width - line.hang, _NARROW):
            parts.append("")
        parts[-1] += word
    folded = Text(label + f"\n{'':<{line.hang}}".join(part.rstrip() for part in parts))
    folded.stylize(_STYLES[line.kind], 0, line.hang or len(folded))
    return folded
