"""`responder check`: all checks are made, each on its own, and the exit status tells the result."""

from __future__ import annotations

import asyncio
import json

import pytest

from responder import checks, cli
from responder.settings import Settings

pytestmark = pytest.mark.heavy


async def test_what_is_out_of_reach_is_said_and_the_rest_is_looked_at(
    server, create_database, template
):
    """Without NATS the tables are checked, without PostgreSQL NATS is."""
    url = await create_database(template=template[0])
    no_nats = await checks.check(
        Settings.read({"DATABASE_URL": url, "NATS_URL": "nats://127.0.0.1:1"})
    )
    no_postgres = await checks.check(
        Settings.read(
            {"DATABASE_URL": "postgres://x:hunter2@127.0.0.1:1/x", "NATS_URL": server.url}
        )
    )

    assert (False, ["postgres"]) == (no_nats.good, sorted(no_nats.servers))
    assert (False, ["nats", "workers"]) == (no_postgres.good, sorted(no_postgres.servers))
    assert "hunter2" not in no_postgres.as_text()
    assert "NATS is out of reach: 127.0.0.1:1: Connection refused" in no_nats.as_text()


async def test_json_and_exit_codes(create_database, template, capsys, monkeypatch):
    """Good is 0 and broken 1; `--json` prints one object with the same content."""
    monkeypatch.setenv("DATABASE_URL", await create_database(template=template[0]))
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")

    status = await asyncio.to_thread(cli.main, ["check", "--json"])

    printed = json.loads(capsys.readouterr().out)
    assert 1 == status
    assert {"good", "servers", "candidates", "mapping", "findings"} == printed.keys()
    assert {"check", "severity", "message", "remedy"} == printed["findings"][0].keys()
