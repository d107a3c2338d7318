"""What the tests of topologies share: the table of what was counted, and workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.scaling.workers import Start, worker

ROWS: list[tuple[str, str]] = []


@pytest.fixture
def note(request):
    """A function that adds what was seen to the table."""

    def add(**figures: object) -> None:
        ROWS.append((request.node.name, ", ".join(f"{k} {v}" for k, v in figures.items())))

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    if ROWS:
        terminalreporter.section("scaling")
        for name, figures in ROWS:
            terminalreporter.line(f"{name}: {figures}")


@pytest.fixture
async def start(people_service) -> AsyncIterator[Start]:
    """A function that starts a worker on the demo people, or wherever its settings say."""
    async with AsyncExitStack() as stack:

        async def begin(*nodes, **settings):
            url = settings.pop("DATABASE_URL", people_service.url)
            context = worker(*nodes, DATABASE_URL=url, **settings)
            return await stack.enter_async_context(context)

        yield begin
