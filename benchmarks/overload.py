"""What a worker answers when it is asked for more than it can: `make overload`."""

# Capacity is what a closed loop with 256 requests outstanding gets; then twice and four times that
# is offered, at a rate and whatever is answered (see open_loop.py). Where the machine cannot offer
# as much, what was offered is in the table.
#
# With two cores the worker and PostgreSQL have one, the NATS server and the callers the other, so
# that a flood takes no time from the worker but by its requests.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop
from arena import Arena, arena, servers
from contestants import RESPONDER
from pace import Pace

from responder.dev.tokens import Mint

ADMIN = 18181
SAMPLE = 0.1  # seconds between two looks at memory
KEYS = 5000  # different requests of a stream
PROBE = 100.0  # requests a second, while the load lasts and after it
AFTER = 3.0  # seconds for which it goes on
HONEST = 1000.0  # requests a second
STALLED = 20_000.0
STALL = 0.3  # seconds
INVALID = 150_000.0
TOKENS = 50_000.0
MB = 1e6
MARKS = {"org_list": '{"users":'}  # what each value holds once


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests at a rate.

    Args:
        name: in the table.
        rate: requests a second; or, of capacity, a multiple.
        lookup: what is asked for.
        times: capacity, instead of a rate.
        connections: over which they are spread.
        payload: instead of the lookup's.
        tokens: "good" ones of the users who are asked for, or "bad" ones with wrong signatures.
    """

    name: str
    lookup: str = "get"
    rate: float = 0.0
    times: float = 0.0
    connections: int = 1
    payload: str | None = None
    tokens: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Loads at the same time."""

    loads: Sequence[Load]
    workers: int = 1
    stalled: bool = False
    tls: bool = False


HONEST_GETS = Load(name="honest get", rate=HONEST)
CASES = {
    f"{name}, {connections} conn.": Case(
        loads=[
            replace(load, connections=connections),
            *([] if load.name == "get" else [HONEST_GETS]),
        ]
    )
    for name, load in {
        "get 2x": Load(name="get", times=2),
        "get 4x": Load(name="get", times=4),
        "pages 4x beside honest": Load(name="org_list", lookup="org_list", times=4),
        "invalid beside honest": Load(name="invalid", rate=INVALID, payload='{"id":7}'),
    }.items()
    for connections in (1, 64)
} | {
    "get 4x beside honest": Case(loads=[Load(name="get", times=4), HONEST_GETS]),
    "bad tokens beside honest": Case(
        loads=[Load(name="bad token", rate=TOKENS, tokens="bad"), HONEST_GETS]
    ),
    "tokens beside honest": Case(
        loads=[Load(name="with token", rate=TOKENS, tokens="good"), HONEST_GETS]
    ),
    "TLS, get 4x beside honest": Case(loads=[Load(name="get", times=4), HONEST_GETS], tls=True),
    "stall": Case(loads=[Load(name="get", rate=STALLED)], stalled=True),
    "2 workers, get 2x": Case(loads=[Load(name="get", times=2, connections=64)], workers=2),
    "2 workers, get 4x": Case(loads=[Load(name="get", times=4, connections=64)], workers=2),
}
NAMES = ", ".join(CASES)


@dataclass
class Watched:
    """What was seen of the service meanwhile."""

    memory: float = 0.0  # the most, of one worker process, in bytes
    ready: list[tuple[float, int]] = field(default_factory=list)  # seconds, status


async def measure(case: Case, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what became of each load of a case."""
    mint = Mint()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = await certified(folder) if case.tls else ""
        shared = await stack.enter_async_context(servers(config=config))
        contestant = replace(
            RESPONDER,
            command=(*RESPONDER.command, "--workers", str(case.workers)),
            environment={
                **RESPONDER.environment,
                "RESPONDER_ADMIN_LISTEN": f"127.0.0.1:{ADMIN}",
                **mint.publish(folder / "jwks.json"),
                **({"NATS_CA": str(folder / "ca.pem")} if case.tls else {}),
                **arguments.settings,
            },
        )
        pin(shared.database.pid, shared.messages.pid)
        lookups = sorted({load.lookup for load in case.loads})
        place = await stack.enter_async_context(
            arena(shared, [contestant], users=arguments.users, checked=lookups)
        )
        pin(place.pids[RESPONDER.name], shared.messages.pid)
        capacity = {
            name: (
                await place.measure(
                    RESPONDER.name, name, Pace(256), seconds=arguments.capacity_seconds
                )
            ).rate
            for name in lookups
        }
        return await offer(case, place, capacity, mint, arguments.seconds)


async def certified(folder: Path) -> str:
    """Make a certificate; return the configuration of a server that needs TLS of no client."""
    key, certificate = folder / "key.pem", folder / "ca.pem"
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit("openssl made no certificate")
    return f'allow_non_tls: true\ntls {{ cert_file: "{certificate}", key_file: "{key}" }}'


async def offer(
    case: Case, place: Arena, capacity: dict[str, float], mint: Mint, seconds: float
) -> list[dict[str, Any]]:
    """Offer the loads of a case, and a probe that outlasts them."""
    begin = time.time() + 3.0
    end = begin + seconds
    probe = Load(name="probe", rate=PROBE)
    watched = Watched()
    async with watching(place.pids[RESPONDER.name], watched):
        asked = [request(load, place, capacity, mint) for load in (*case.loads, probe)]
        lasting = [*(seconds for _ in case.loads), seconds + AFTER]
        running = [
            asyncio.create_task(stream({**each, "begin": begin, "seconds": lasts}))
            for each, lasts in zip(asked, lasting, strict=True)
        ]
        if case.stalled:
            await asyncio.sleep(begin + seconds / 2 - time.time())
            with stopped(place.servers.database.pid):
                await asyncio.sleep(STALL)
        *found, probed = await asyncio.gather(*running)
    recovered = max(probed["last_slow"] - end, 0.0)
    for load, each in zip(case.loads, found, strict=True):
        each |= {
            "name": load.name,
            "capacity": capacity[load.lookup],
            "memory": watched.memory / MB,
            "ready": all(status == httpx.codes.OK for _, status in watched.ready),
            "slowest_ready": max(took for took, _ in watched.ready) * 1e3,
            "normal_after": recovered,
        }
    return found


def request(load: Load, place: Arena, capacity: dict[str, float], mint: Mint) -> dict[str, Any]:
    """Return what a process of its own is to send."""
    lookup = place.asked[load.lookup]
    keys = random.sample(lookup.keys, min(KEYS, len(lookup.keys)))
    payloads = [load.payload or lookup.payload(key).decode() for key in keys]
    return {
        "url": place.servers.messages.url,
        "subject": f"{RESPONDER.prefix}.{load.lookup}",
        "mark": MARKS.get(load.lookup, '{"id":"'),
        "payloads": payloads,
        "headers": headers(load.tokens, keys, mint) if load.tokens else [""] * len(keys),
        "connections": load.connections,
        "rate": load.rate or load.times * capacity[load.lookup],
    }


def headers(kind: str, users: Sequence[bytes], mint: Mint) -> list[str]:
    """Return headers with a token of each user."""
    tokens = [mint.token(user.decode()).rpartition(".") for user in users]
    after = 1 if kind == "bad" else 0  # whose signature each has
    return [
        f"NATS/1.0\r\nAuthorization: Bearer {claims}.{tokens[number - after][2]}\r\n\r\n"
        for number, (claims, _, _) in enumerate(tokens)
    ]


async def stream(asked: dict[str, Any]) -> dict[str, Any]:
    """Send the requests of a load, from a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("open_loop.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    pin_one(process.pid, 0)
    said, _ = await process.communicate(json.dumps(asked).encode())
    found: dict[str, Any] = json.loads(said)
    return found


@asynccontextmanager
async def watching(pid: int, watched: Watched) -> AsyncIterator[None]:
    """Look at memory and /ready while the context is open."""
    tasks = [asyncio.create_task(look(pid, watched)), asyncio.create_task(ask(watched))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def look(pid: int, watched: Watched) -> None:
    """Look at the memory of each process of a service, again and again."""
    while True:
        for each in tree(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                watched.memory = max(watched.memory, each.memory_info().rss)
        await asyncio.sleep(SAMPLE)


async def ask(watched: Watched) -> None:
    """Ask whether the service is ready, again and again."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        while True:
            began = time.perf_counter()
            try:
                status = (await client.get(f"http://127.0.0.1:{ADMIN}/ready")).status_code
            except httpx.HTTPError:
                status = 0
            watched.ready.append((time.perf_counter() - began, status))
            await asyncio.sleep(2 * SAMPLE)


@contextlib.contextmanager
def stopped(postmaster: int) -> Iterator[None]:
    """Let the processes of a PostgreSQL do nothing while the context is open."""
    every = [each.pid for each in tree(postmaster)]
    for pid in every:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in every:
            os.kill(pid, signal.SIGCONT)


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all of its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def pin(worker: int, messages: int) -> None:
    """Give what answers one core and the NATS server the other, where there are two."""
    pin_one(worker, 1)
    pin_one(messages, 0)


def pin_one(pid: int, core: int) -> None:
    """Give a process, with its children, a core, where there are two."""
    if os.cpu_count() == 2:  # noqa: PLR2004 - each group has one
        # The affinity is that of a thread: the NATS server has several, which would take both.
        for thread in (thread for each in tree(pid) for thread in each.threads()):
            os.sched_setaffinity(thread.id, {core})


def row(case: str, each: dict[str, Any]) -> str:
    """Return a line of the table."""
    share = each["good"] / each["capacity"]
    honest = each["answered_good"] / max(each["sent"], 1)
    errors = ", ".join(f"{code}: {count:,}" for code, count in each["errors"].items())
    cells = (
        case,
        each["name"],
        f"{each['capacity']:,.0f}",
        f"{each['offered']:,.0f}",
        f"{each['good']:,.0f}",
        f"{share:.0%}",
        f"{honest:.1%}",
        errors or "-",
        f"{each['lost']:,}",
        f"{each['late']:,}",
        _ms(each["good_p99"]),
        _ms(each["refused_p99"]),
        f"{each['memory']:.0f}",
        f"{'yes' if each['ready'] else 'NO'}, {each['slowest_ready']:.0f}",
        f"{each['normal_after']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


HEAD = (
    "case", "load", "capacity/s", "offered/s", "good/s", "of capacity", "of its own",
    "errors", "lost", "late", "good p99 ms", "refused p99 ms", "MB",
    "ready, slowest ms", "normal after s",
)  # fmt: skip


async def main(arguments: argparse.Namespace) -> None:
    """Measure each case, and print the table."""
    print(f"| {' | '.join(HEAD)} |\n|{'--|' * len(HEAD)}", flush=True)
    for name in arguments.only:
        for each in await measure(CASES[name], arguments):
            print(row(name, each), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case")
    parser.add_argument("--capacity-seconds", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(";"),
        default=list(CASES),
        help=f"separated by semicolons, of {NAMES}",
    )
    parser.add_argument(
        "--settings",
        type=lambda text: dict(each.split("=") for each in text.split(",")),
        default={},
        help="of responder, such as RESPONDER_MAX_PENDING=4096",
    )
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(_arguments()))
