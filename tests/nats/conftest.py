"""What tests of requests over NATS share."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest


@pytest.fixture
def requests(cast):
    """A good request for each subject."""
    return {
        "get": {"id": cast.owner.id},
        "by_email": {"email": cast.owner.email},
        "org_list": {"organizationId": cast.second_organization.id},
        "get_many": {"ids": [cast.owner.id]},
    }


@pytest.fixture
def locked():
    """Keeps the PostgreSQL of a service from answering any lookup, while the context is open."""

    @asynccontextmanager
    async def locked(service):
        async with service.database.acquire() as connection, connection.transaction():
            await connection.execute("lock table users in access exclusive mode")
            yield

    return locked
