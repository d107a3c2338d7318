"""Callers whose tokens are good are answered whatever flood of other tokens arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import pytest

pytestmark = pytest.mark.load
SECONDS = 4  # that a flood goes on: longer than a token waits for its key
_numbers = itertools.count()


@asynccontextmanager
async def flooding(url: str, amount: int, *, kid: str, user: str) -> AsyncIterator[Counter[str]]:
    """Send tokens while the context is open; on leaving, tell the codes of their answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("flood.py"))),
        *(url, str(amount), kid, user),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    answers: Counter[str] = Counter()
    try:
        assert b"flooding\n" == await asyncio.wait_for(process.stdout.readline(), 60)
        yield answers
        process.stdin.close()
        answers.update(json.loads(await asyncio.wait_for(process.stdout.readline(), 60)))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Honest:
    """Callers with fresh tokens of a known key, and services without any."""

    def __init__(self, service, mint, cast) -> None:
        self._service = service
        self._mint = mint
        self._people = [cast.owner, cast.admin, cast.staff, cast.viewer]
        self.answers: Counter[str] = Counter()

    async def ask(self) -> None:
        """Ask over NATS with and without a token, over HTTP on a new connection, and for health."""
        person = self._people[next(_numbers) % len(self._people)].id
        await asyncio.gather(
            self._over_nats("service", person, {}),
            self._over_nats("NATS", person, self._fresh(person)),
            self._over_http(person),
            self._health("/live"),
            self._health("/ready"),
        )

    def _fresh(self, person: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._mint.token(person, jti=next(_numbers))}"}

    async def _over_nats(self, name: str, person: str, headers: dict[str, str]) -> None:
        answer = await self._service.ask("users.get", person, headers)
        self.answers[f"{name} {answer.code or (answer.json['id'] == person)}"] += 1

    async def _over_http(self, person: str) -> None:
        url = f"{self._service.running.http_url}/api/v1/me"
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:  # a new connection
            answer = await http.get(url, headers=self._fresh(person))
        self.answers[f"HTTP {answer.status_code}"] += 1

    async def _health(self, path: str) -> None:
        answer = await self._service.admin.get(path)
        self.answers[f"{path} {answer.status_code}"] += 1


@pytest.fixture
def request_timeout() -> str:
    """Less than SECONDS: a token waits for its key as long as its request may."""
    return "3"


@pytest.fixture(autouse=True)
def many_files():
    """Both ends of each connection to the bridge are files of this process, or of its child."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Flood:
    """Tokens that do not verify."""

    over: str  # nats or http
    amount: int  # tokens a second over NATS, connections with a token each over HTTP
    known_key: bool = False  # else each names another key
    user: str = ""  # for whom they claim to speak; else each for another
    hangs: bool = False  # whether the key set does


FLOODS = {
    "unknown keys": Flood("nats", 2000),
    "unknown keys, the key set hangs": Flood("nats", 1500, hangs=True),
    "unknown keys over HTTP": Flood("http", 1100),
    "unknown keys over HTTP, the key set hangs": Flood("http", 1100, hangs=True),
    "bad signatures in one name": Flood("nats", 5000, known_key=True, user="mallory"),
    "bad signatures in a caller's name": Flood("nats", 5000, known_key=True, user="owner"),
    "bad signatures in new names": Flood("nats", 5000, known_key=True),
    "bad signatures in new names over HTTP": Flood("http", 200, known_key=True),
    "bad signatures, the key set hangs": Flood("nats", 5000, known_key=True, hangs=True),
}


REFUSALS = (
    *("service unavailable", "service timeout", "NATS unavailable", "NATS timeout"),
    *("HTTP 503", "HTTP 504", "/ready 503"),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", FLOODS.values(), ids=FLOODS)
async def test_honest_callers_are_answered_during_a_flood(keyed_service, cast, endpoint, kind):
    """Honest requests are answered with what they ask for, and no token of the flood is.

    Each of them on a quiet machine; on a busy one the flood may take what is left of it.
    """
    service, mint = keyed_service
    honest = Honest(service, mint, cast)
    await honest.ask()
    endpoint.slow = asyncio.Event() if kind.hangs else None
    url = service.nats.url if kind.over == "nats" else service.running.http_url
    user = cast.owner.id if kind.user == "owner" else kind.user
    kid = mint._id if kind.known_key else ""
    async with flooding(url, kind.amount, kid=kid, user=user) as answers:
        rounds, end = 1, monotonic() + SECONDS
        while monotonic() < end:
            await honest.ask()
            rounds += 1
        if endpoint.slow:
            endpoint.slow.set()

    kinds = ("service True", "NATS True", "HTTP 200", "/live 200", "/ready 200")
    assert {*kinds, *REFUSALS} >= set(honest.answers)
    assert [] == [each for each in kinds if 3 * honest.answers[each] < rounds]
    assert set(answers) <= {"401", "503", "504"}
    assert answers.total() > 0
