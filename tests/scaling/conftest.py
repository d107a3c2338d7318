"""What the tests of topologies share: workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.scaling.workers import Start, worker


@pytest.fixture
async def start(people_service) -> AsyncIterator[Start]:
    """A function that starts a worker on the demo people, or wherever its settings say."""
    async with AsyncExitStack() as stack:

        async def begin(*nodes, **settings):
            url = settings.pop("DATABASE_URL", people_service.url)
            context = worker(*nodes, DATABASE_URL=url, **settings)
            return await stack.enter_async_context(context)

        yield begin
