"""Our tree side by side with another revision's: `make bench-compare BASE=<rev>`."""

# Both run at once with the same packages, on the same servers. Each is one process with worker and
# HTTP bridge. In every round both are asked, one right after the other; every other round begins
# with the other one. Ratios are of the two in one round, so that what slows a whole round down,
# slows both.
#
# Over HTTP the callers are platform admins with tokens, because responder requires tokens unless it
# is told otherwise.

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import uvloop
from arena import Arena, arena, servers
from callers import KINDS
from contestants import RESPONDER, Contestant
from data import People
from figures import ENOUGH, Figures, median_interval
from http_rounds import Site, site
from nats_rounds import LOOKUPS
from pace import CONNECTIONS, Pace

ROOT = Path(__file__).parent.parent
HTTP = "http"
EVERY = [*LOOKUPS, "mix", *KINDS, HTTP]
PROGRAM = """
import os, sys, responder
if not responder.__file__.startswith(os.environ["PYTHONPATH"]):
    sys.exit(f"this is not the tree to be measured: {responder.__file__}")
from responder.cli import main
sys.exit(main())
"""
BASE, THIS = "base", "this"
FIGURES: dict[str, Callable[[Figures], float]] = {
    "requests/s": lambda each: each.rate,
    "p50 ms": lambda each: each.p50 or 0,
    "p99 ms": lambda each: each.p99 or 0,
    "program µs": lambda each: each.cpu["worker"],
    "PostgreSQL µs": lambda each: each.cpu["postgres"],
    "nats-server µs": lambda each: each.cpu["nats"],
    "all three µs": lambda each: each.total,
    "memory MB": lambda each: each.memory,
}


async def main(arguments: argparse.Namespace, base: Path) -> None:
    """Measure both, and print figures and ratios."""
    people = People(arguments.users)
    callers = people.admins(max(arguments.outstanding, default=1))
    trees = [
        tree(THIS, ROOT, "users", RESPONDER_ADDITIONAL_FIELDS=arguments.fields),
        tree(BASE, base, "base"),
    ]
    async with servers() as shared:
        directory = shared.messages.directory
        sites = {each.name: site(each, people, callers, directory) for each in trees}
        async with arena(
            shared,
            [each.contestant for each in sites.values()],
            users=arguments.users,
            checked=[kind for kind in arguments.only if kind != HTTP],
        ) as place:
            if HTTP in arguments.only:
                for each in sites.values():
                    await each.ready()
            for kind in arguments.only:
                for pace in _paces(kind, arguments):
                    found = await _rounds(place, sites, kind, pace, arguments)
                    print("\n".join(report(kind, pace, found)), flush=True)


def tree(name: str, path: Path, prefix: str, **settings: str) -> Contestant:
    """Return the service of a source tree, with these settings besides."""
    return Contestant(
        name=name,
        command=(sys.executable, "-c", PROGRAM, "serve"),
        prefix=prefix,
        environment={
            **RESPONDER.environment,
            "PYTHONPATH": str(path),
            "RESPONDER_SUBJECT_PREFIX": prefix,
            **settings,
        },
    )


def report(kind: str, pace: Pace, found: dict[str, list[Figures]]) -> Iterator[str]:
    """Return the lines about one kind of request."""
    pairs = list(zip(found[THIS], found[BASE], strict=True))
    interval = (
        "95 % interval"
        if len(pairs) >= ENOUGH
        else f"least to most: fewer than {ENOUGH} rounds have no 95 % interval"
    )
    yield f"{kind}, {pace}; this : base, this / base ({interval})"
    for figure, value in FIGURES.items():
        this, base = (median(map(value, found[name])) for name in (THIS, BASE))
        ratio, low, high = median_interval([value(a) / value(b) for a, b in pairs])
        yield f"  {figure:15} {this:10,.2f} : {base:10,.2f}   {ratio:.3f} ({low:.3f} to {high:.3f})"
    if failures := sum(each.failures for pair in pairs for each in pair):
        yield f"  {failures} wrong or failed answers"


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Check a revision out while the context is open."""
    with tempfile.TemporaryDirectory(prefix="responder-base-") as directory:
        path = Path(directory) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(path), revision)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", ROOT, *arguments], check=True)


def _paces(kind: str, arguments: argparse.Namespace) -> Iterator[Pace]:
    for outstanding in arguments.outstanding:
        yield Pace(outstanding)
    for rate in arguments.rates if kind != HTTP else ():
        yield Pace(rate=rate, connections=CONNECTIONS)


async def _rounds(
    place: Arena,
    sites: dict[str, Site],
    kind: str,
    pace: Pace,
    arguments: argparse.Namespace,
) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {THIS: [], BASE: []}
    for number in range(arguments.rounds):
        for name in (THIS, BASE) if number % 2 else (BASE, THIS):
            if kind == HTTP:
                figures = await sites[name].measure(
                    place.servers,
                    place.pids[name],
                    outstanding=pace.outstanding,
                    seconds=arguments.seconds,
                )
            else:
                figures = await place.measure(name, kind, pace, seconds=arguments.seconds)
            found[name].append(figures)
    return found


def numbers(text: str) -> list[int]:
    """Read numbers with commas between them; of no text there are none."""
    return [int(part) for part in text.split(",") if part]


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="a revision, such as HEAD~3")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--fields",
        default="",
        help="RESPONDER_ADDITIONAL_FIELDS of this tree, of user.phoneNumber,member.title",
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[*LOOKUPS, HTTP],
        help=f"of {','.join(EVERY)}; of the last, as many connections as outstanding",
    )
    parser.add_argument("--outstanding", type=numbers, default=[1, 64, 256], help="may be empty")
    parser.add_argument(
        "--rates",
        type=numbers,
        default=[],
        help=f"of an open loop over {CONNECTIONS} connections, in requests a second",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    options = _arguments()
    with (
        worktree(options.base) as base_tree,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main(options, base_tree))
