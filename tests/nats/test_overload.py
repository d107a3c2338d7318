"""What is too much is refused, all of it and at once, and what is not is answered."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from responder.nats.service import Statistics

MANY = 2000


class Flood:
    """Requests that leave in one write, and what was answered."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.codes: Counter[str | None] = Counter()
        self.messages: Counter[str] = Counter()

    async def ask(self, *requests: tuple[str, bytes]) -> None:
        """Ask, and return once all have an answer."""
        inbox, arrived = self.client.new_inbox(), asyncio.Event()

        async def receive(message: Any) -> None:
            body = json.loads(message.data)
            self.codes[body.get("code")] += 1
            self.messages[body.get("message", "")] += 1
            if self.codes.total() >= len(requests):
                arrived.set()

        subscription = await self.client.subscribe(f"{inbox}.*", cb=receive)
        for number, (subject, payload) in enumerate(requests):
            await self.client.publish(subject, payload, f"{inbox}.{number}")
        async with asyncio.timeout(60):
            await arrived.wait()
        await subscription.unsubscribe()


async def metric(service: Any, name: str) -> float:
    """The value of a metric."""
    text = (await service.admin.get("/metrics")).text
    (line,) = [each for each in text.splitlines() if each.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


async def test_what_is_refused_unread_is_answered_and_counted(start_with, cast, locked):
    """Of many requests for which there is no room each gets its refusal, and $SRV.STATS and
    /metrics have them all.
    """
    service = await start_with(RESPONDER_MAX_PENDING="1", RESPONDER_ADMIN_LISTEN="127.0.0.1:0")
    unread: list[int] = []
    count_refused = Statistics.count_refused

    def counting(self: Statistics, requests: int, error: str) -> None:
        unread.append(requests)
        count_refused(self, requests, error)

    flood = Flood(service.nc)
    Statistics.count_refused = counting  # type: ignore[method-assign]  # for this test
    try:
        async with locked(service):
            first = asyncio.create_task(service.ask("users.get", cast.owner.id))
            async with asyncio.timeout(60):
                while not await metric(service, "responder_pending_requests"):
                    await asyncio.sleep(0.01)
            await flood.ask(*[("users.get", b"x")] * MANY)
    finally:
        Statistics.count_refused = count_refused  # type: ignore[method-assign]  # as it was
    answered = await first
    (get,) = [
        each
        for each in (await service.ask("$SRV.STATS.users")).json["endpoints"]
        if each["name"] == "get"
    ]

    assert {"unavailable": MANY} == flood.codes
    assert {"too many requests are waiting": MANY} == flood.messages
    assert MANY / 2 < sum(unread) < MANY
    assert answered.code is None
    assert (MANY + 1, MANY, "unavailable") == (
        get["num_requests"],
        get["num_errors"],
        get["last_error"],
    )
    refused = 'responder_errors_total{code="unavailable",endpoint="get"}'
    assert MANY == await metric(service, refused)
    assert MANY + 1 == await metric(
        service, 'responder_request_duration_seconds_count{endpoint="get"}'
    )


async def test_a_flood_of_one_kind_refuses_no_other(start_with, cast):
    """Pages for which there is no room are refused; users that came with them are answered."""
    service = await start_with()
    pages = ("users.org_list", cast.organization.id.encode())
    requests = [pages] * 300
    requests[100:100] = requests[250:250] = [("users.get", cast.owner.id.encode())] * 5
    flood = Flood(service.nc)

    await flood.ask(*requests)

    assert flood.codes.total() == 310
    assert set(flood.codes) <= {None, "unavailable"}
    stats = (await service.ask("$SRV.STATS.users")).json["endpoints"]
    assert [(10, 0)] == [
        (each["num_requests"], each["num_errors"]) for each in stats if each["name"] == "get"
    ]


async def test_an_answer_that_fits_no_more_counts_as_an_error(start_with, cast, monkeypatch):
    """After the server's limit was lowered what does not fit is `payload_too_large`, in the
    statistics too.
    """
    service = await start_with()
    monkeypatch.setattr("responder.replies.user", lambda *_, **__: (b"x" * 2_000_000, 0, 0))

    answer = await service.ask("users.get", cast.owner.id)

    stats = (await service.ask("$SRV.STATS.users")).json["endpoints"]
    assert "payload_too_large" == answer.code
    assert [(1, "payload_too_large")] == [
        (each["num_errors"], each["last_error"]) for each in stats if each["name"] == "get"
    ]
