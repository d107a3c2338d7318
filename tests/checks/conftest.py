"""A NATS server, and databases of a test's own, to check."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from responder import checks
from responder.checks.report import Report
from responder.dev import nats
from responder.settings import Settings
from tests.roles import as_role

SCHEMAS = Path(__file__).parent.parent / "schemas"


@pytest.fixture(scope="module")
async def server():
    async with nats.running() as server:
        yield server


@pytest.fixture
async def check(server, create_database, template):
    """A function that checks a database after some statements have changed it."""

    async def begin(
        *statements: str, fixture: str = "", user: str = "", **variables: str
    ) -> Report:
        url = await create_database(template=None if fixture else template[0])
        connection = await asyncpg.connect(url)
        try:
            if fixture:
                await connection.execute((SCHEMAS / f"{fixture}.sql").read_text())
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()
        if user:
            url = as_role(url, user)
        return await checks.check(
            Settings.read(
                {
                    "DATABASE_URL": url,
                    "NATS_URL": server.url,
                    "RESPONDER_HTTP_AUTH": "disabled",
                    **variables,
                }
            )
        )

    return begin
