"""What honest callers notice of attacks, one after another: `make attacks`."""

# The service is `responder serve` as its operator runs it, with a limit of 1,024 open files as many
# systems have it. Honest services ask over NATS 500 times a second, whether they have been answered
# or not, and honest callers over HTTP each open a connection and bring a token of their own that
# has not been seen yet; the probes are those of an orchestrator. Attackers are a process of their
# own (see `attackers`), on the same two cores as everything else.

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nats
import uvloop
from arena import Servers, servers
from contestants import RESPONDER, Contestant, answers_http, end, running
from data import People
from figures import quantile
from http_rounds import free_port
from processes import resident, spent, usage

from responder.dev.tokens import ISSUER, Mint

SERVICES, CALLERS, PROBES = 500, 25, 10  # requests a second
PATIENCE = 2.0  # seconds that an honest caller waits
P99, MEMORY = 250.0, 100.0  # ms and MB that are allowed
FILES = 1024
SERVE = 'ulimit -Sn "$1" && exec "$0" serve'
USERS = 10_000


@dataclass(frozen=True)
class Attack:
    """What an attacker does, how much of it, and whether the key set hangs meanwhile."""

    kind: str
    amount: int
    over: str = "http"
    hangs: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.kind}, {self.amount:,}{', key set hangs' if self.hangs else ''}"


ATTACKS = (
    *(
        Attack(kind, amount)
        for kind in ("pipelined", "pipelined-with-host", "long-query", "long-path")
        for amount in (5, 30)
    ),
    Attack("query-of-8-kB", 30),
    Attack("path-of-8-kB", 30),
    Attack("held", 1300),
    Attack("unknown-keys-nats", 2000, "nats"),
    Attack("unknown-keys-nats", 2000, "nats", hangs=True),
    Attack("unknown-keys-http", 1100),
    Attack("unknown-keys-http", 1100, hangs=True),
    Attack("bad-signatures", 5000, "nats"),
)


@dataclass
class Answers:
    """Seconds that one kind of honest request took, and how many had no answer, or a wrong one."""

    times: array[float] = field(default_factory=lambda: array("d"))
    lost: int = 0

    @property
    def p50(self) -> float:
        """Half of the answers took less, in ms."""
        return quantile(sorted(self.times), 0.5)

    @property
    def p99(self) -> float:
        """All but one in a hundred took less, in ms."""
        return quantile(sorted(self.times), 0.99)


@dataclass
class KeySet:
    """What publishes the key set, or hangs."""

    body: bytes
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one download."""
        try:
            await reader.readuntil(b"\r\n\r\n")
            await self.answering.wait()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + self.body)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


@dataclass
class Place:
    """The service, and how it is asked."""

    shared: Servers
    client: Any
    key_set: KeySet
    pid: int
    http: tuple[str, int]
    admin: tuple[str, int]
    kid: str
    ids: list[bytes]
    tokens: Any  # each once

    def url(self, over: str) -> str:
        """Return what is attacked."""
        return self.shared.messages.url if over == "nats" else "http://{}:{}".format(*self.http)

    async def serve(self) -> bool:
        """Ask as a service."""
        id_ = self.ids[int(time.monotonic() * 1e6) % len(self.ids)]
        reply = await self.client.request("users.get", id_, timeout=PATIENCE)
        return not reply.headers and id_ in reply.data

    async def call(self) -> bool:
        """Ask as a caller, on a new connection and with a new token."""
        return await _over_http(
            self.http, "/api/v1/me", f"Authorization: Bearer {next(self.tokens)}"
        )

    async def probe(self) -> bool:
        """Ask whether the service is alive and ready."""
        return await _over_http(self.admin, "/live") and await _over_http(self.admin, "/ready")


async def _over_http(at: tuple[str, int], path: str, header: str = "X: y") -> bool:
    reader, writer = await asyncio.open_connection(*at)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
        return (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    finally:
        writer.close()


async def again(
    rate: float, seconds: float, ask: Callable[[], Coroutine[Any, Any, bool]]
) -> Answers:
    """Ask so many times a second, whether answers have come or not."""
    answers, began = Answers(), time.monotonic()

    async def one() -> None:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                right = await ask()
        except (OSError, EOFError, nats.errors.Error):
            right = False
        answers.times.append(time.monotonic() - asked)
        answers.lost += not right

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            group.create_task(one())
    return answers


@asynccontextmanager
async def attacking(place: Place, attack: Attack | None) -> AsyncIterator[dict[str, Any]]:
    """Attack while the context is open; on leaving, tell what the attacker did a second."""
    found: dict[str, Any] = {"done": 0.0}
    if attack is None:
        yield found
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("attackers.py"), attack.kind),
        *(place.url(attack.over), str(attack.amount), place.kid),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    if attack.hangs:
        place.key_set.answering.clear()
    try:
        if not await process.stdout.readline():
            raise SystemExit(f"{attack.name} did not begin")
        found["pid"] = process.pid
        yield found
        process.stdin.close()
        found |= json.loads(await process.stdout.readline())
    finally:
        place.key_set.answering.set()
        await end(process)


async def measure(place: Place, attack: Attack | None, seconds: float) -> dict[str, Any]:
    """Ask honestly for a while, under an attack or none."""
    most = 0.0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, resident(place.pid))
            await asyncio.sleep(0.05)

    async with attacking(place, attack) as found:
        pids = {"service": place.pid, **({"attacker": found["pid"]} if "pid" in found else {})}
        watching = asyncio.create_task(watch())
        before, began = {name: usage(pid) for name, pid in pids.items()}, time.monotonic()
        services, callers, probes = await asyncio.gather(
            again(SERVICES, seconds, place.serve),
            again(CALLERS, seconds, place.call),
            again(PROBES, seconds, place.probe),
        )
        took = time.monotonic() - began
        cores = {name: spent(before[name], usage(pid)) / took / 1e6 for name, pid in pids.items()}
        watching.cancel()
    return {
        "name": attack.name if attack else "none",
        "services": services,
        "callers": callers,
        "probes": probes,
        "memory": most,
        "cores": cores,
        "attack": found,
    }


def line(row: dict[str, Any], quiet: float) -> tuple[str, bool]:
    """Return the line about an attack, and whether all that is promised held."""
    services, callers, probes = row["services"], row["callers"], row["probes"]
    lost = [each.lost for each in (services, callers, probes)]
    more = row["memory"] - quiet
    held = not any(lost) and max(services.p99, callers.p99) < P99 and more < MEMORY
    cores = row["cores"]
    return (
        f"| {row['name']} | {row['attack']['done']:,.0f} | {services.p50:.1f} | {services.p99:.0f} "
        f"| {callers.p50:.1f} | {callers.p99:.0f} | {probes.p99:.0f} | {'/'.join(map(str, lost))} "
        f"| {more:+.1f} | {cores['service']:.2f} | {cores.get('attacker', 0):.2f} "
        f"| {'yes' if held else 'NO'} |"
    ), held


HEAD = """\
| attack | done/s | NATS p50 ms | p99 | HTTP p50 ms | p99 | probes p99 | lost | MB more | service \
| attacker | held |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"""


@asynccontextmanager
async def attacked() -> AsyncIterator[Place]:
    """Run a service to be attacked while the context is open."""
    mint, people = Mint(), People(USERS)
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(servers())
        directory = shared.messages.directory
        mint.publish(directory / "keys.json")
        body = (directory / "keys.json").read_bytes()
        key_set = KeySet(body)
        key_set.answering.set()
        publisher = await asyncio.start_server(key_set.answer, "127.0.0.1", 0)
        stack.callback(publisher.close)
        at = publisher.sockets[0].getsockname()[1]
        http, admin = (("127.0.0.1", free_port()) for _ in range(2))
        service = Contestant(
            name="responder",
            command=("/bin/sh", "-c", SERVE, RESPONDER.command[0], str(FILES)),
            prefix="users",
            environment={
                "RESPONDER_HTTP_LISTEN": "{}:{}".format(*http),
                "RESPONDER_ADMIN_LISTEN": "{}:{}".format(*admin),
                "RESPONDER_JWKS_URL": f"http://127.0.0.1:{at}/jwks",
                "RESPONDER_JWT_ISSUER": ISSUER,
                "RESPONDER_JWT_AUDIENCE": ISSUER,
                "RESPONDER_LOG_LEVEL": "error",
            },
        )
        url = await shared.filled(USERS)
        pid = await stack.enter_async_context(
            running(service, url, shared.messages.url, directory=directory)
        )
        await answers_http(http[1])
        client = await stack.enter_async_context(await nats.connect(shared.messages.url))
        yield Place(
            shared=shared,
            client=client,
            key_set=key_set,
            pid=pid,
            http=http,
            admin=admin,
            kid=json.loads(body)["keys"][0]["kid"],
            ids=people.ids(),
            tokens=map(partial(_token, mint, people.admins(100)), itertools.count()),
        )


def _token(mint: Mint, admins: list[str], number: int) -> str:
    return mint.token(admins[number % len(admins)], jti=str(number))


async def main(arguments: argparse.Namespace) -> bool:
    """Measure under each attack; tell whether everything held under all of them."""
    async with attacked() as place:
        await measure(place, None, arguments.seconds / 2)  # what is loaded at first is no attack's
        quiet = await measure(place, None, arguments.seconds)
        print(HEAD)
        all_held = True
        for attack in (None, *ATTACKS):
            if attack and arguments.only and attack.kind not in arguments.only:
                continue
            row = await measure(place, attack, arguments.seconds) if attack else quiet
            text, held = line(row, quiet["memory"])
            print(text, flush=True)
            all_held &= held
        return all_held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack")
    parser.add_argument("--only", type=lambda text: text.split(","), help="kinds of attacks")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(0 if uvloop.run(main(parser.parse_args())) else 1)
