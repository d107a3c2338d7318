"""One user over HTTP: responder's bridge beside Better Auth's own endpoint and a static answer."""

# Both answer platform admins, who may see every user: responder asks for a token of Better Auth's
# jwt plugin, Better Auth for its own session token.

from __future__ import annotations

import argparse
import itertools
import json
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import rounds
from arena import Servers, servers
from contestants import PEERS, RESPONDER, Contestant, answers_http, bun, running
from data import People
from figures import Figures
from http_load import measure
from lookups import Judge, Lookup
from traffic import Stream

from responder.dev.tokens import Mint

SAMPLE = 40
SESSIONS = """
insert into sessions (id, token, "userId", "expiresAt", "updatedAt")
select md5('session' || id), md5('token' || id), id, now() + interval '7 days', now()
from unnest($1::text[]) id
"""
TOKENS = "select md5('token' || id) from unnest($1::text[]) with ordinality as a(id, n) order by n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A program that answers over HTTP, and what it is asked there."""

    contestant: Contestant
    port: int
    lookup: Lookup
    tokens: Sequence[str]  # of as many callers as there may be at once

    async def ready(self) -> None:
        """Wait until the program listens, and make sure that its answers are right."""
        await answers_http(self.port)
        lookup = self.lookup
        headers = {"Authorization": f"Bearer {self.tokens[0]}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            for key in (*lookup.keys[:SAMPLE], *lookup.keys[-SAMPLE:]):
                path = lookup.payload(key).decode().removeprefix("GET ")
                answer = await client.get(f"http://127.0.0.1:{self.port}{path}")
                if not answer.is_success or not lookup.is_right(key, answer.content):
                    raise SystemExit(f"{path} does not answer right: {answer.text}")

    async def measure(
        self, shared: Servers, pid: int, *, outstanding: int, seconds: float
    ) -> Figures:
        """Ask the program for a while, on as many connections as requests are outstanding."""
        return await measure(
            self.port,
            Stream(self.lookup, fixed=self.contestant.fixed),
            self.tokens[:outstanding],
            seconds=seconds,
            pids=shared.processes(pid),
        )


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of each."""
    people = People(arguments.users)
    callers = people.admins(max(arguments.outstanding))
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(servers())
        messages = shared.messages
        url = await shared.filled(arguments.users)
        ours = replace(RESPONDER, command=(RESPONDER.command[0], "serve"))
        sites = [
            site(ours, people, callers, messages.directory),
            await _better_auth(people, callers, url),
            _static(people, callers),
        ]
        pids = {}
        for each in sites:
            pids[each.contestant.name] = await stack.enter_async_context(
                running(each.contestant, url, messages.url, directory=messages.directory)
            )
            await each.ready()
        measurements = {
            ("http", outstanding, outstanding, each.contestant.name): partial(
                each.measure,
                shared,
                pids[each.contestant.name],
                outstanding=outstanding,
                seconds=arguments.seconds,
            )
            for outstanding, each in itertools.product(arguments.outstanding, sites)
        }
        names = ("lookup", "connections", "outstanding", "who")
        return await rounds.run(names, measurements, arguments.rounds)


def site(contestant: Contestant, people: People, callers: Sequence[str], directory: Path) -> Site:
    """Return a responder, with tokens of these callers and a key set of its own in a directory."""
    mint, port = Mint(), free_port()
    ours = contestant.accepting(mint, directory)
    return Site(
        contestant=replace(
            ours,
            environment={**ours.environment, "RESPONDER_HTTP_LISTEN": f"127.0.0.1:{port}"},
        ),
        port=port,
        lookup=Lookup(
            name="http",
            keys=people.ids(),
            head=b"GET /api/v1/users/",
            tail=b"",
            is_right=Judge(People(people.users, contestant.fields)).get,
        ),
        tokens=[mint.token(each, role="admin") for each in callers],
    )


async def _better_auth(people: People, callers: Sequence[str], url: str) -> Site:
    port = free_port()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(SESSIONS, callers)
        tokens = [row[0] for row in await connection.fetch(TOKENS, callers)]
    finally:
        await connection.close()

    def is_right(key: bytes, answer: bytes) -> bool:
        # Better Auth says nothing of organizations, and has null where responder has the value that
        # null means.
        user: dict[str, Any] = json.loads(answer)
        number = user["name"].rpartition(" ")[-1]
        right = people.user(int(number)) | {"id": key.decode()}
        same = ("id", "email", "emailVerified", "name", "image", "banned", "banReason")
        return all(user[name] == right[name] for name in same)

    return Site(
        contestant=Contestant(
            name="better-auth",
            command=(bun(), PEERS / "better-auth.mjs"),
            prefix="",
            environment={"PORT": str(port), "NODE_ENV": "production"},
        ),
        port=port,
        lookup=Lookup(
            name="http",
            keys=people.ids(),
            head=b"GET /api/auth/admin/get-user?id=",
            tail=b"",
            is_right=is_right,
        ),
        tokens=tokens,
    )


def _static(people: People, callers: Sequence[str]) -> Site:
    port = free_port()
    return Site(
        contestant=Contestant(
            name="static",
            command=(
                *(sys.executable, "-m", "uvicorn", "static:app", "--app-dir", PEERS),
                *("--port", str(port), "--loop", "uvloop", "--http", "httptools"),
                *("--lifespan", "off", "--no-access-log", "--log-level", "warning"),
            ),
            prefix="",
            fixed=b'"static"',
        ),
        port=port,
        lookup=Lookup(
            name="http",
            keys=people.ids(),
            head=b"GET /api/v1/users/",
            tail=b"",
            is_right=lambda _, answer: b'"static"' in answer,
        ),
        tokens=["none"] * len(callers),
    )


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
