"""A program that asks all the time, and what became of each of its requests."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from nats.aio.client import Client
from nats.aio.msg import Msg

TICK = 0.01  # seconds
DEADLINES = (2.0, 0.3, 1.0, 0.6)  # seconds, in turn
SOON = 0.11  # seconds within which a healthy service answers
VALUE, LOST, NO_WORKER = "value", "lost", "no worker"


@dataclass(slots=True)
class Asked:
    """A request: when it was sent, how long it could wait, and what it was answered, and when."""

    sent: float
    deadline: float
    answer: str = LOST
    at: float = 0.0

    @property
    def took(self) -> float:
        """Seconds until the answer."""
        return self.at - self.sent

    @property
    def late(self) -> float:
        """Seconds by which the answer was late; negative if it was not, or there was none."""
        return self.took - self.deadline if self.at else -self.deadline


class Load:
    """All requests of a program so far."""

    def __init__(self, client: Client, user_id: str) -> None:
        self.asked: list[Asked] = []
        self.heard = 0.0  # when there was an answer
        self._client = client
        self._payload = user_id.encode()
        self._inbox = client.new_inbox()

    async def listen(self) -> None:
        """Take answers from now on."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)
        await self._client.flush()

    async def send(self) -> None:
        """Send one request."""
        number = len(self.asked)
        deadline = DEADLINES[number % len(DEADLINES)]
        self.asked.append(Asked(monotonic(), deadline))
        await self._client.publish(
            "users.get",
            self._payload,
            reply=f"{self._inbox}.{number}",
            headers={"Responder-Timeout-Ms": str(round(deadline * 1000))},
        )

    async def _take(self, message: Msg) -> None:
        asked = self.asked[int(message.subject.rpartition(".")[2])]
        assert asked.answer == LOST, "two answers to one request"
        asked.at = self.heard = monotonic()
        headers = message.headers or {}
        if "Nats-Service-Error" in headers:
            asked.answer = json.loads(message.data)["code"]
        elif "Status" in headers:
            asked.answer = NO_WORKER
        else:
            assert self._payload in message.data
            asked.answer = VALUE

    def between(self, start: float, end: float) -> list[Asked]:
        """Return the requests sent in a span of time."""
        return [each for each in self.asked if start <= each.sent < end]

    def counts(self) -> Counter[str]:
        """Return how many had which answer."""
        return Counter(each.answer for each in self.asked)

    def normal_after(self, healed: float) -> float:
        """Return the seconds after that until the last request that got no value within 0.11 s."""
        bad = [
            each.sent - healed for each in self.asked if each.answer != VALUE or each.took > SOON
        ]
        return max([0.0, *bad])

    def latest(self) -> float:
        """Return by how many seconds the latest answer was late, or how near it came."""
        return max((each.late for each in self.asked if each.at), default=0.0)


@asynccontextmanager
async def paced(client: Client, user_id: str, *, rate: int) -> AsyncIterator[Load]:
    """Ask so often a second; on leaving, answers are waited for until none has come for 3 s."""
    load = Load(client, user_id)
    await load.listen()
    over = asyncio.Event()

    async def send() -> None:
        start = monotonic()
        while not over.is_set():
            for _ in range(len(load.asked), round((monotonic() - start) * rate)):
                await load.send()
            await asyncio.sleep(TICK)

    sending = asyncio.create_task(send())
    try:
        yield load
    finally:
        over.set()
        await sending
    last = monotonic()
    while monotonic() < last + 3 and any(each.answer == LOST for each in load.asked[-3 * rate :]):
        await asyncio.sleep(TICK)
        last = max(last, load.heard)


@asynccontextmanager
async def full(client: Client, user_id: str, *, outstanding: int) -> AsyncIterator[Counter[str]]:
    """Ask as much as one program can: each answer is followed by the next request."""
    counts = Counter[str]()
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            try:
                reply = await client.request("users.get", user_id.encode(), timeout=30)
            except Exception as error:  # noqa: BLE001 - each is counted
                counts[type(error).__name__] += 1
            else:
                counts[reply.headers["Nats-Service-Error"] if reply.headers else VALUE] += 1

    askers = [asyncio.create_task(ask()) for _ in itertools.repeat(None, outstanding)]
    try:
        yield counts
    finally:
        over.set()
        await asyncio.gather(*askers)
