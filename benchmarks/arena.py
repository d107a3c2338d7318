"""The servers that all contestants share, with the users in them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import nats
from callers import KINDS, Callers
from contestants import Contestant, ready, running
from data import People, fill
from figures import Figures
from load import measure
from lookups import Lookup, lookups
from nats.aio.client import Client
from pace import Pace
from traffic import Stream

from responder.dev import nats as nats_server
from responder.dev import postgres

SAMPLE = 80  # answers of each kind compared before anything is measured
SAMPLING = 0.1  # seconds
MIX = {"get": 0.9, "org_list": 0.05, "get_many": 0.05}  # shares; latencies are those of the first
SETTINGS = {
    "shared_buffers": "1GB",  # everything is in memory, as on a server of one's own
    "track_activity_query_size": "16kB",  # pgbench gets the SQL from there
}
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Servers:
    """A PostgreSQL and a nats-server."""

    database: postgres.Postgres
    messages: nats_server.NatsServer

    def processes(self, worker: int) -> dict[str, int]:
        """Whose CPU time is counted when this process answers."""
        return {"worker": worker, "postgres": self.database.pid, "nats": self.messages.pid}

    async def filled(self, users: int, *, largest: bool = False) -> str:
        """Make a database with users, and return its URL."""
        url = await self.database.create_database(f"users_{next(_numbers)}")
        await fill(url, users, largest=largest)
        return url


@asynccontextmanager
async def servers(*, config: str = "") -> AsyncIterator[Servers]:
    """Run both while the context is open, the NATS server with some configuration."""
    async with (
        postgres.running(settings=SETTINGS) as database,
        nats_server.running(config=config) as messages,
    ):
        yield Servers(database, messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A database with users, and contestants by name."""

    servers: Servers
    url: str
    people: People
    asked: dict[str, Lookup]  # of those without additional fields
    asked_with: dict[str, dict[str, Lookup]]  # of those with some, by their names
    who: dict[str, Contestant]
    pids: dict[str, int]

    callers: dict[str, Callers]  # of those who accept tokens

    async def measure(self, name: str, kind: str, pace: Pace, *, seconds: float) -> Figures:
        """Ask one contestant for a while."""
        return await measure(
            self.servers.messages.url,
            self.streams(name, kind, seconds),
            pace,
            seconds=seconds,
            pids=self.servers.processes(self.pids[name]),
        )

    def streams(self, name: str, kind: str, seconds: float) -> list[Stream]:
        """Return what to ask one contestant for: a lookup, the mix, or `get` of some callers."""
        each = self.who[name]
        if kind in KINDS:
            callers = self.callers[name]
            requests = callers.requests(kind, seconds)
            return [Stream(callers.lookup, requests, subject=f"{each.prefix}.get")]
        asked = self.asked_with.get(name, self.asked)
        return [
            Stream(
                asked[lookup],
                subject=f"{each.prefix}.{lookup}",
                fixed=each.fixed,
                share=share,
            )
            for lookup, share in (MIX if kind == "mix" else {kind: 1.0}).items()
        ]


@asynccontextmanager
async def arena(
    shared: Servers, who: Sequence[Contestant], *, users: int, checked: Sequence[str]
) -> AsyncIterator[Arena]:
    """Start everything, and make sure that each contestant answers right before it is measured."""
    people = People(users)
    asked = lookups(people)
    url = await shared.filled(users)
    messages = shared.messages
    async with AsyncExitStack() as stack:
        pids = {
            each.name: await stack.enter_async_context(
                running(each, url, messages.url, directory=messages.directory)
            )
            for each in who
        }
        place = Arena(
            servers=shared,
            url=url,
            people=people,
            asked=asked,
            asked_with={
                each.name: lookups(People(users, each.fields)) for each in who if each.fields
            },
            who={each.name: each for each in who},
            pids=pids,
            callers={each.name: Callers(people, each.mint) for each in who if each.mint},
        )
        async with await nats.connect(messages.url) as client:
            for each in who:
                await ready(client, each, asked["get"].payload(asked["get"].keys[0]))
            for each, kind in itertools.product(who, checked):
                if each.answers:
                    await _right_answers(client, place.streams(each.name, kind, SAMPLING))
        yield place


async def _right_answers(client: Client, streams: Sequence[Stream]) -> None:
    """Make sure that a contestant does the whole work: right answers to the last field."""
    for stream in streams:
        subject = stream.subject.decode()
        for key, token in itertools.islice(stream.requests, SAMPLE):
            payload = stream.lookup.payload(key)
            headers = {"Authorization": f"Bearer {token.decode()}"} if token else None
            answer = (await client.request(subject, payload, timeout=5, headers=headers)).data
            if not stream.lookup.is_right(key, answer):
                raise SystemExit(f"{subject} does not answer {key!r} right: {answer!r}")
