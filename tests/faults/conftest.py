"""The table of what was counted, at the end of the tests."""

from __future__ import annotations

import pytest

ROWS: list[tuple[str, str]] = []


@pytest.fixture
def note(request):
    """A function that adds what was seen to the table."""

    def add(**figures: object) -> None:
        ROWS.append((request.node.name, ", ".join(f"{k} {v}" for k, v in figures.items())))

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    if ROWS:
        terminalreporter.section("faults")
        for name, figures in ROWS:
            terminalreporter.line(f"{name}: {figures}")
