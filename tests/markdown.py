"""Reads the tables of documents, for tests that compare them with the code."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent


def rows(document: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with that cell, without their backticks."""
    table = document.split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [
        [cell.strip().replace("`", "") for cell in row.strip("|").split("|")]
        for row in table.splitlines()[2:]
    ]
