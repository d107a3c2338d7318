"""One of four workers ten times slower, or its database: what the callers of the others notice."""

# NATS gives each worker of a queue group the same share of the requests, whatever it makes of them.
# Each worker here has a database of its own, in which every user is called after the worker: so an
# answer says who gave it.
#
# A worker is slow because it may run for a tenth of the time only, a thousandth of a second at a
# time; a database because a proxy holds back what passes between it and the worker.

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import nats
import uvloop
from arena import servers
from contestants import RESPONDER, ready, running
from data import People
from lookups import lookups

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.faults.proxy import Proxy

WORKERS = 4
KEYS = 5_000  # different requests
SLICE = 0.001  # seconds
LABEL = r'"name":"worker (\d)"'


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is slow: the share of the time that a worker runs, or how late its database is."""

    name: str
    runs: float = 1.0
    late: float = 0.0  # seconds, each way
    tries: int = 1


CASES = (
    Case(name="all alike"),
    Case(name="one worker ten times slower", runs=0.1),
    Case(name="one database ten times slower", late=0.003),
)
# Of these the first worker has one connection, and asks for one user at a time.
NARROW = {"RESPONDER_CONNECTIONS": "1", "RESPONDER_MAX_BATCH": "1"}
OVERLOADED = (
    Case(name="one database too slow for its share", late=0.003),
    Case(name="the same, refusals asked once more", late=0.003, tries=2),
)


@contextmanager
def slowed(pid: int, runs: float) -> Iterator[None]:
    """Let a process run for a share of the time only."""
    over = threading.Event()

    def alternate() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE / runs - SLICE)
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLICE)

    thread = threading.Thread(target=alternate)
    if runs < 1:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if runs < 1:
            thread.join()


@asynccontextmanager
async def workers(
    arguments: argparse.Namespace, settings: dict[str, str]
) -> AsyncIterator[dict[str, Any]]:
    """Run four workers, each on a database of its own; the first by a proxy, with settings."""
    async with servers() as shared, AsyncExitStack() as stack:
        first = await shared.filled(arguments.users)
        template = first.rpartition("/")[2]
        pids = []
        proxy = await stack.enter_async_context(Proxy(shared.database.port).listening())
        client = await stack.enter_async_context(await nats.connect(shared.messages.url))
        key = lookups(People(arguments.users))["get"].keys[0]
        for number in range(WORKERS):
            url = await shared.database.create_database(f"of_{number}", template=template)
            connection = await asyncpg.connect(url)
            await connection.execute(f"update users set name = 'worker {number}'")
            await connection.execute("vacuum analyze")
            await connection.close()
            each = RESPONDER
            if number == 0:
                url = url.replace(f":{shared.database.port}/", f":{proxy.port}/")
                each = replace(each, environment={**each.environment, **settings})
            context = running(each, url, shared.messages.url, directory=shared.messages.directory)
            pids.append(await stack.enter_async_context(context))
        await ready(client, RESPONDER, key)
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < WORKERS:  # all of them answer
                reply = await client.request("users.get", key, timeout=5)
                seen.add(json.loads(reply.data)["name"])
        yield {"url": shared.messages.url, "pid": pids[0], "proxy": proxy}


async def main(arguments: argparse.Namespace) -> None:
    """Print a table of what became of the requests of each case."""
    print(f"| {' | '.join(HEAD)} |\n|--|{'--:|' * (len(HEAD) - 1)}")
    for settings, cases in (({}, CASES), (NARROW, OVERLOADED)):
        async with workers(arguments, settings) as place:
            for case in cases:
                print(row(case, await asked(case, place, arguments)), flush=True)


async def asked(case: Case, place: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Send the requests of a case; return what became of them."""
    keys = lookups(People(arguments.users))["get"]
    request = {
        "url": place["url"],
        "subject": "users.get",
        "payloads": [keys.payload(key).decode() for key in random.sample(keys.keys, KEYS)],
        "rate": arguments.rate,
        "seconds": arguments.seconds,
        "label": LABEL,
        "tries": case.tries,
    }
    place["proxy"].delay = case.late
    with slowed(place["pid"], case.runs):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, Path(__file__).with_name("poisson.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate(json.dumps(request).encode())
    place["proxy"].delay = 0.0
    found: dict[str, Any] = json.loads(said)
    return found


HEAD = (
    "case", "asked", "p50 ms", "p99 ms", "p50 of the slow one", "p99", "answered by it",
    "p50 of the others", "p99", "refused", "asked again",
)  # fmt: skip


def row(case: Case, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    slow = found["by"].get("0", {"count": 0, "p50": 0, "p99": 0})
    others = [each for label, each in found["by"].items() if label != "0"]
    count = sum(each["count"] for each in others)
    cells = (
        case.name,
        f"{found['sent']:,}",
        f"{found['p50']:.1f}",
        f"{found['p99']:.1f}",
        f"{slow['p50']:.1f}",
        f"{slow['p99']:.1f}",
        f"{slow['count'] / found['sent']:.1%}",
        f"{sum(each['p50'] * each['count'] for each in others) / count:.1f}",
        f"{max(each['p99'] for each in others):.1f}",
        str(found["errors"] or "-") + (f", lost {found['lost']}" if found["lost"] else ""),
        f"{found['again']:,}",
    )
    return f"| {' | '.join(cells)} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1_000.0, help="requests a second, of all")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    parser.add_argument("--users", type=int, default=20_000)
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(_arguments()))
