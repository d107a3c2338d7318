"""However often callers send what makes a log line, few such lines are written, and all counted."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import nats as nats_py
import pytest

from responder import logs, throttling
from responder.app import serving
from responder.dev import nats
from responder.nats.connection import connected
from responder.settings import Settings
from responder.throttling import ThrottledLog

MANY = 200
MORE = re.compile(r"\((\d+) more like this within ")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """An interval that a test can wait for."""
    monkeypatch.setattr(throttling, "INTERVAL", 0.2)


@pytest.fixture
def lines(caplog):
    """A function that returns the lines that hold some words."""
    caplog.set_level(logging.DEBUG)

    def holding(words: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if words in record.getMessage()]

    return holding


async def all_told(lines, words: str, count: int) -> list[str]:
    """Wait until lines with some words have told of so many events, and return them."""
    async with asyncio.timeout(60):
        while True:
            found = lines(words)
            told = sum(int(more[1]) for line in found if (more := MORE.search(line)))
            plain = sum(not MORE.search(line) for line in found)
            if plain + told >= count:
                assert count == plain + told
                return found
            await asyncio.sleep(0.01)


# Lines


async def test_the_first_line_is_written_at_once_and_the_rest_counted(lines):
    """Of a thousand lines there is the first, and one with how many more there were."""
    log = ThrottledLog("responder.test")
    for number in range(1000):
        log.error("it failed: %s", number)

    assert ["it failed: 0"] == lines("it failed")
    found = await all_told(lines, "it failed", 1000)
    assert "it failed: 999 (999 more like this within 0 s)" == found[1]


async def test_what_comes_later_is_written_again(lines):
    """Once an interval has passed without such a line, the next is written at once."""
    log = ThrottledLog("responder.test")
    log.error("it failed")
    async with asyncio.timeout(60):
        while log._throttle._kinds:
            await asyncio.sleep(0.01)
    log.error("it failed")

    assert ["it failed"] * 2 == lines("it failed")


async def test_one_kind_hides_no_other(lines):
    """Another text, another class of error and another kind are written, whatever floods."""
    log = ThrottledLog("responder.test")
    for _ in range(9):
        log.error("it failed %s", "a")
    log.error("it failed otherwise")
    log.error("it failed %s", "b", exc_info=ValueError())
    log.error("it failed %s", "c", exc_info=TypeError())
    log.error("it failed %s", "d", kind="d")

    written = ["it failed a", "it failed otherwise", *(f"it failed {each}" for each in "bcd")]
    assert written == lines("it failed")


def test_where_there_is_no_loop_each_line_is_written(lines):
    """A command without an event loop answers no caller."""
    log = ThrottledLog("responder.test")
    for _ in range(3):
        log.error("it failed")

    assert 3 == len(lines("it failed"))


def test_an_event_loop_that_has_ended_silences_nothing(lines, monkeypatch):
    """What was begun in one loop is forgotten in the next, soon enough."""
    monkeypatch.setattr(throttling, "INTERVAL", 0)
    log = ThrottledLog("responder.test")

    async def fail() -> None:
        log.error("it failed")

    for _ in range(3):
        asyncio.run(fail())

    assert 3 == len(lines("it failed"))


async def test_lines_of_libraries_are_throttled_by_where_they_are_written(capsys):
    """A library's line with another text each time, from one place, is written once and counted."""
    logs.configure("info", "text")
    for number in range(MANY):
        logging.getLogger("asyncio").warning(f"100% odd {number}")  # noqa: G004 - what asyncio does
    logging.getLogger("nats").warning("another %(way)s", {"way": "place"})
    written = ""
    async with asyncio.timeout(60):
        while f"100% odd {MANY - 1} (" not in written:
            await asyncio.sleep(0.01)
            written += capsys.readouterr().err

    assert ["another place"] == re.findall("another .*", written)
    assert 2 == written.count("100% odd")
    assert f"100% odd {MANY - 1} ({MANY - 1} more like this" in written


# What callers can repeat at will


async def metrics(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


async def test_replies_that_nats_does_not_permit(create_database, template, lines):
    """A worker that may not publish to reply subjects says so a few times, and counts each."""
    config = """authorization { users = [
        { user: w, password: w, permissions: { publish: { deny: "_INBOX.>" } } },
        { user: c, password: c } ] }"""
    async with nats.running(config=config) as server:
        settings = Settings.read(
            {
                "DATABASE_URL": await create_database(template=template[0]),
                "NATS_URL": server.url,
                "NATS_USER": "w",
                "NATS_PASSWORD": "w",
                "RESPONDER_HTTP_LISTEN": "off",
                "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
            }
        )
        async with (
            serving(settings) as running,
            await nats_py.connect(server.url, user="c", password="c") as nc,
            httpx.AsyncClient(base_url=running.admin_url or "", trust_env=False) as admin,
        ):
            for number in range(MANY):
                await nc.publish("users.get", b"x", reply=f"_INBOX.to-be-kept-private.{number}")
            found = await all_told(lines, "NATS does not permit to publish", MANY)
            counted = await metrics(admin)

    assert len(found) < MANY / 10
    assert "NATS does not permit to publish to _inbox.…: a message was lost" == found[0]
    assert [] == lines("to-be-kept-private")
    assert MANY == counted['responder_messages_lost_total{reason="denied"}']


async def test_requests_that_fail(start_with, lines, monkeypatch):
    """A bug that callers have found fills no log; each of its answers is counted as internal."""
    service = await start_with(RESPONDER_ADMIN_LISTEN="127.0.0.1:0")
    monkeypatch.setattr("responder.replies.user", lambda *_: 1 / 0)
    for _ in range(MANY):
        await service.nc.publish("users.by_email", b"zoe.lindqvist@lumen.example.com", reply="x")
    found = await all_told(lines, "a lookup failed", MANY)
    counted = await metrics(service.admin)

    assert len(found) < MANY / 10
    assert MANY == counted['responder_errors_total{code="internal",endpoint="by_email"}']


async def test_replies_that_are_too_large_or_are_not_connected(lines):
    """What cannot be sent is dropped with few lines, and counted by the reason."""
    async with nats.running() as server, connected([server.url], name="test") as connection:
        for _ in range(MANY):
            connection.send(b"nowhere", b"x" * (connection.limits.message + 1))
        found = await all_told(lines, "dropped a message: it is larger", MANY)
        lost = dict(connection.lost)

    assert len(found) < MANY / 10
    assert {"denied": 0, "too_large": MANY, "not_connected": 0, "unread": 0} == lost


async def test_http_requests_that_fail(people_service, lines, monkeypatch):
    """The same over HTTP."""
    monkeypatch.setattr("responder.wire.encode_request", lambda _: 1 / 0)
    for _ in range(MANY):
        assert 500 == (await people_service.http.get("/api/v1/users/x")).status_code

    assert len(await all_told(lines, "a request to /api/v1/users/{id} failed", MANY)) < MANY / 10
