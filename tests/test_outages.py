"""What an operator reads of an outage: why, and once; and nothing where there is none."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime

import asyncpg
import httpx
import pytest

from responder.app import serving
from responder.postgres.connection import connect
from responder.postgres.dsn import parse
from responder.postgres.errors import LostError
from responder.postgres.refusals import why
from responder.settings import Settings

PATIENCE = 60


@pytest.fixture
def variables(people_service):
    return {
        "DATABASE_URL": people_service.url,
        "NATS_URL": people_service.nats.url,
        "RESPONDER_SUBJECT_PREFIX": "outages",
        "RESPONDER_HTTP_LISTEN": "off",
        "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
    }


async def page(url: str, text: str) -> str:
    """Wait until a page has a text, and return it."""
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
        while text not in (found := (await client.get(url)).text):
            await asyncio.sleep(0.02)
    return found


async def test_a_wrong_password_is_told_once_and_in_ready(variables, caplog):
    """The log and /ready say what to mend, and the log says it once for all connections."""
    variables["DATABASE_URL"] = re.sub(r":[^:@/]+@", ":hunter2@", variables["DATABASE_URL"])
    why = "PostgreSQL is out of reach: the password is wrong"
    async with serving(Settings.read(variables)) as running:
        ready = await page(f"{running.admin_url}/ready", "password")

    assert f"not ready: {why}\n" == ready
    assert 1 == caplog.text.count(why)
    assert 1 == caplog.text.count("password")


@pytest.mark.heavy
async def test_connections_that_end_because_they_are_idle_are_no_outage(
    variables, create_database, template, caplog
):
    """A server that ends idle connections fills no log, and nothing is said to be out of reach."""
    url = variables["DATABASE_URL"] = await create_database(template=template[0])
    name = url.rpartition("/")[2]
    observer = await asyncpg.connect(url)
    seen: set[int] = set()
    try:
        await observer.execute(f"alter database {name} set idle_session_timeout = '100ms'")
        async with serving(Settings.read(variables)), asyncio.timeout(PATIENCE):
            while len(seen) < 20:  # each of three connections several times
                rows = await observer.fetch(
                    "select pid from pg_stat_activity where datname = $1 and pid <> $2",
                    name,
                    observer.get_server_pid(),
                )
                seen |= {row["pid"] for row in rows}
                await asyncio.sleep(0.02)
    finally:
        await observer.close()

    assert "out of reach" not in caplog.text
    assert "lost a connection to PostgreSQL: it has ended while it was idle" in caplog.text
    assert caplog.text.count("lost a connection") <= 3


async def test_why_a_connection_is_lost_is_said_in_words(people_service):
    """Whether what PostgreSQL says at its end is read before the end itself, or not."""
    connection = await connect(parse(people_service.url), timeout=60)
    with pytest.raises(LostError) as lost:
        await connection.fetch("select pg_terminate_backend(pg_backend_pid())")
    connection.terminate()

    said = why(lost.value)
    assert said in ("it was told to end it, or to shut down", "the other end has closed it")


async def test_a_supervised_worker_tells_its_number():
    """JSON lines have the time in UTC, and say which worker they are from."""
    code = "from responder import logs; import logging; logs.configure('info', 'json', worker=2); "
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code + "logging.getLogger('x').info('said')"),
        stderr=asyncio.subprocess.PIPE,
        env={"TZ": "Asia/Tokyo"},
    )
    _, err = await process.communicate()
    line = json.loads(err)

    assert (2, "said") == (line["worker"], line["event"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    now = datetime.now(UTC)
    assert abs((now - datetime.fromisoformat(line["ts"])).total_seconds()) < 60
