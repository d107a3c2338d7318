"""What /metrics shows is what docs/operating.md says, and what Prometheus wants."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from typing import NamedTuple

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from responder.app import serving
from responder.dev import nats
from responder.metrics import Metrics
from responder.nats.connection import connected
from responder.settings import Settings
from responder.supervisor import Child, combined
from tests.markdown import ROOT, rows
from tests.signing import ED, jwk

OPERATING = (ROOT / "docs" / "operating.md").read_text()
PROMTOOL = shutil.which("promtool")


class Figure(NamedTuple):
    type: str
    labels: frozenset[str]


def promtool(page: str) -> tuple[int, str, str]:
    """What `promtool check metrics` ends with and prints."""
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def figures(page: str) -> dict[str, Figure]:
    """Each metric of a page, by its name, with its type and its labels."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: Figure(
            family.type, frozenset(key for each in family.samples for key in each.labels) - {"le"}
        )
        for family in text_string_to_metric_families(page)
    }


@pytest.fixture(scope="module")
async def scraped(people_service, cast, tmp_path_factory):
    """/metrics of a service that has every part, after one request over HTTP."""
    keys = tmp_path_factory.mktemp("keys") / "jwks.json"
    keys.write_text(json.dumps({"keys": [jwk(ED)]}))
    settings = Settings.read(
        {
            "DATABASE_URL": people_service.url,
            "NATS_URL": people_service.nats.url,
            "RESPONDER_SUBJECT_PREFIX": "scraped",
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_JWKS_URL": str(keys),
            "RESPONDER_JWT_ISSUER": "x",
            "RESPONDER_JWT_AUDIENCE": "x",
        }
    )
    async with serving(settings) as running, httpx.AsyncClient(trust_env=False) as http:
        await running.wait_ready()
        answer = await http.get(f"{running.http_url}/api/v1/users/{cast.owner.id}")
        assert 200 == answer.status_code
        return (await http.get(f"{running.admin_url}/metrics")).text


@pytest.fixture
async def supervised(tmp_path):
    """/metrics of a supervisor whose one worker does not run."""
    app = combined([Child(1, tmp_path / "admin.sock", None, drain_timeout=1)])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return (await client.get("/metrics")).text


async def test_every_metric_is_documented(scraped, supervised):
    """The table has each metric with its type and its labels, and no other."""
    documented = {
        name: Figure(type_, frozenset(filter(None, labels.split(", "))))
        for names, type_, labels, _ in rows(OPERATING, "metric")
        for name in names.split(", ")
    }
    of_supervisor = {
        name: figure for name, figure in figures(supervised).items() if "responder_worker" in name
    }

    assert {**figures(scraped), **of_supervisor} == documented


async def test_a_supervisor_tells_its_own_figures_from_those_of_workers(supervised):
    """Each figure of a process has the label `worker`, and that of the supervisor says so."""
    assert re.search(r'^process_open_fds{worker="supervisor"} \d', supervised, re.MULTILINE)
    assert re.search(r'^responder_build_info{.*worker="supervisor"', supervised, re.MULTILINE)


@pytest.mark.skipif(not PROMTOOL, reason="promtool (Debian's package prometheus) is not installed")
async def test_promtool_takes_it(scraped, supervised):
    """`promtool check metrics` has nothing to say about names, types and help."""
    assert [(0, "", "")] * 2 == [promtool(page) for page in (scraped, supervised)]


def value(page: str, sample: str) -> float:
    (found,) = re.findall(rf"^{re.escape(sample)} (\S+)$", page, re.MULTILINE)
    return float(found)


async def test_a_query_and_its_batch_are_counted(scraped):
    """One request is one batch of one; its query took some time, as did the request."""
    assert 1 == value(scraped, "responder_batch_size_count")
    assert 1 == value(scraped, 'responder_batch_size_bucket{le="1.0"}')
    assert value(scraped, "responder_postgres_query_duration_seconds_count") > 0
    assert value(scraped, "responder_postgres_query_duration_seconds_sum") > 0
    assert 3 == value(scraped, "responder_postgres_connections")
    assert 3 == value(scraped, "responder_postgres_connections_limit")
    assert 32_768 == value(scraped, "responder_pending_requests_limit")


async def test_an_error_that_has_not_happened_is_zero(scraped):
    """So that Prometheus sees the first."""
    assert 0 == value(scraped, 'responder_errors_total{code="internal",endpoint="get"}')


async def test_an_outage_of_nats_shows():
    """Whether there is a connection, and how often there was one again."""
    async with nats.running() as server, connected([server.url], name="test") as connection:
        before = generate_latest(Metrics(nats=connection)).decode()
        await connection._client.force_reconnect()
        async with asyncio.timeout(60):
            while not connection.reconnects:
                await asyncio.sleep(0.01)
        server.process.kill()
        async with asyncio.timeout(60):
            while connection.is_connected:
                await asyncio.sleep(0.01)
        after = generate_latest(Metrics(nats=connection)).decode()

    names = ("responder_nats_up", "responder_nats_reconnects_total")
    assert [1, 0] == [value(before, name) for name in names]
    assert [0, 1] == [value(after, name) for name in names]


@pytest.mark.heavy
async def test_an_outage_of_postgres_shows(start_with):
    """Tables that are gone, and connections that are lost, and the others that are made."""
    service = await start_with(RESPONDER_ADMIN_LISTEN="127.0.0.1:0", RESPONDER_TIMEOUT="0.5")

    async def until(sample: str, reached: float) -> None:
        async with asyncio.timeout(60):
            while value((await service.admin.get("/metrics")).text, sample) < reached:
                await asyncio.sleep(0.02)

    await service.database.execute("alter table users rename to users_old")
    await service.ask("users.get", "x")
    assert 0 == value((await service.admin.get("/metrics")).text, "responder_tables_found")
    await service.database.execute("alter table users_old rename to users")
    await until("responder_tables_found", 1)
    await service.database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'responder' and datname = current_database()"
    )
    await until("responder_postgres_connections_lost_total", 1)
    await until("responder_postgres_connections", 3)
