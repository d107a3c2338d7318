"""What a hidden user costs beside one who does not exist: the time of an answer must not tell."""

# A caller asks for users whom they may not see and, in turn with those, for users who do not exist.
# Requests are sent one at a time, each kind first in every other pair, so that what slows one kind
# down slows the other. A ratio is of the two medians.
#
#     python benchmarks/hidden.py

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import nats
import uvloop
from arena import servers
from contestants import RESPONDER, ready, running

from responder.dev.tokens import Mint

USERS = 20_000  # in one organization each
CROWDED = 500  # of them in twenty
ORGANIZATIONS = 200
CALLER = hashlib.md5(b"the caller").hexdigest()  # among the others, wherever ids are in order
WARM_UP = 100  # requests of each kind
FILL = (
    """insert into users (id, name, email, "emailVerified")
    select md5(n::text), 'x', md5(n::text) || '@example.com', true
    from generate_series(1, {users}) n
    union all select '{caller}', 'x', 'caller@example.com', true""",
    """insert into organizations (id, name, slug, "createdAt")
    select md5('organization' || n), 'x', n, now() from generate_series(0, {organizations}) n""",
    """insert into members (id, "organizationId", "userId", role, "createdAt")
    select md5(n || ' ' || k), md5('organization' || (n + k) % {organizations}), md5(n::text),
           'member', now() + n * interval '1 second'
    from generate_series(1, {users}) n
    cross join lateral generate_series(0, case when n <= {crowded} then 19 else 0 end) k
    union all
    select 'm', md5('organization' || {organizations}), '{caller}', 'member', now()""",
    "vacuum analyze",
)

# What is asked for by numbers, and the code or the body of its answer.
Payload = Callable[[Sequence[str]], dict[str, Any]]
LOOKUPS: dict[str, tuple[str, int, Payload]] = {
    "get": ("get", 1, lambda ids: {"id": ids[0]}),
    "by_email": ("by_email", 1, lambda ids: {"email": f"{ids[0]}@example.com"}),
    "org_list": ("org_list", 1, lambda ids: {"organizationId": ids[0]}),
    "get_many of 10": ("get_many", 10, lambda ids: {"ids": ids}),
    "get_many of 100": ("get_many", 100, lambda ids: {"ids": ids}),
}


def _md5(text: object) -> str:
    return hashlib.md5(str(text).encode()).hexdigest()


def ids(lookup: str, *, many: bool) -> tuple[list[str], list[str]]:
    """Return hidden ids, and as many absent ones."""
    if lookup == "org_list":
        hidden = [_md5(f"organization{n}") for n in range(ORGANIZATIONS)]
    else:
        hidden = [_md5(n) for n in (range(1, CROWDED + 1) if many else range(CROWDED + 1, USERS))]
    return hidden, [_md5(f"absent {n}") for n in range(len(hidden))]


async def measure(
    client: Any, lookup: str, headers: dict[str, str], *, many: bool, requests: int
) -> tuple[float, float]:
    """Return the medians in ms of so many hidden and absent requests each."""
    endpoint, size, payload = LOOKUPS[lookup]
    pools = ids(lookup, many=many)
    times: tuple[list[float], list[float]] = [], []
    for number in range(WARM_UP + requests):
        bodies = {}
        for kind in (0, 1) if number % 2 else (1, 0):
            asked = random.sample(pools[kind], size)
            data = json.dumps(payload(asked)).encode()
            began = time.perf_counter()
            reply = await client.request(f"users.{endpoint}", data, timeout=5, headers=headers)
            ended = time.perf_counter()
            bodies[kind] = reply.data
            if size > 1:
                said = json.loads(reply.data)
                assert said == {"users": [], "missing": asked}, said
            if number >= WARM_UP:
                times[kind].append(ended - began)
        if size == 1:
            assert bodies[0] == bodies[1], bodies
            assert b'"not_found"' in bodies[0], bodies
    return median(times[0]) * 1e3, median(times[1]) * 1e3


async def main(arguments: argparse.Namespace) -> None:
    """Measure every lookup, with and without an index, and print the figures."""
    mint = Mint()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = await stack.enter_async_context(servers())
        url = await shared.database.create_database("hidden")
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        await database.execute(files("responder.dev").joinpath("tables.sql").read_text())
        sizes = {"users": USERS, "crowded": CROWDED, "organizations": ORGANIZATIONS}
        for statement in FILL:
            await database.execute(statement.format(caller=CALLER, **sizes))
        settings = {**RESPONDER.environment, **mint.publish(directory / "keys.json")}
        service = replace(RESPONDER, environment=settings)
        await stack.enter_async_context(
            running(service, url, shared.messages.url, directory=directory)
        )
        client = await stack.enter_async_context(await nats.connect(shared.messages.url))
        await ready(client, service, CALLER.encode())
        headers = {"Authorization": f"Bearer {mint.token(CALLER)}"}
        print("lookup            in  index   hidden ms   absent ms   hidden / absent")
        for indexed, lookup in itertools.product((True, False), arguments.only):
            if not indexed:
                await database.execute('drop index if exists "members_userId_idx"')
            for many in (False,) if lookup == "org_list" else (False, True):
                count = arguments.requests
                if not indexed and lookup.startswith("get_many"):
                    count //= 5 if lookup.endswith(" 10") else 25  # each takes so much longer
                hidden, absent = await measure(client, lookup, headers, many=many, requests=count)
                print(
                    f"{lookup:16} {20 if many else 1:3}  {'yes' if indexed else 'no':5} "
                    f"{hidden:11.3f} {absent:11.3f} {hidden / absent:17.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(LOOKUPS))
    uvloop.run(main(parser.parse_args()))
