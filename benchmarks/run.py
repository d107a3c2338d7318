"""responder side by side with what one would write instead: `make bench`."""

# Everything runs at once and on this machine, each contestant on subjects of its own; one is asked
# at a time, and idle ones cost next to nothing. Rounds are interleaved and figures are medians, so
# that whatever else this machine does meanwhile meets all of them alike.

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import nats
import uvloop
from contestants import Contestant, contestants, ready, running
from data import People, fill
from figures import Figures, middle
from load import measure
from lookups import Lookup, lookups
from nats.aio.client import Client

from responder.dev import nats as nats_server
from responder.dev import postgres

LOOKUPS = ("get", "by_email", "get_many", "org_list")
OUTSTANDING = (1, 16, 64, 256)
SAMPLE = 40  # answers compared before anything is measured
SETTINGS = {"shared_buffers": "1GB", "track_activity_query_size": "16kB"}


async def main() -> None:
    """Run every contestant at every number of outstanding requests, and print the table."""
    arguments = _arguments()
    people = People(arguments.users)
    asked = lookups(people)
    who = [each for each in contestants() if each.name in arguments.contestants]
    figures: dict[tuple[str, int, int, str], list[Figures]] = {}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres.running(settings=SETTINGS))
        messages = await stack.enter_async_context(nats_server.running())
        await fill(database.url, arguments.users)
        pids = {
            each.name: await stack.enter_async_context(
                running(each, database.url, messages.url, directory=messages.directory)
            )
            for each in who
        }
        async with await nats.connect(messages.url) as client:
            get = asked["get"]
            for each in who:
                await ready(client, each, get.payload(get.keys[0]))
            for name in arguments.only:
                await same_answers(client, [each for each in who if each.answers], asked[name])
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for name in arguments.only:
                for connections, outstanding in _loads(arguments):
                    for each in who:
                        found = await measure(
                            messages.url,
                            f"{each.prefix}.{name}",
                            asked[name],
                            outstanding=outstanding,
                            connections=connections,
                            seconds=arguments.seconds,
                            pids={
                                "worker": pids[each.name],
                                "postgres": database.pid,
                                "nats": messages.pid,
                            },
                            fixed=each.fixed,
                        )
                        key = name, connections, outstanding, each.name
                        figures.setdefault(key, []).append(found)
    for (name, connections, outstanding, contestant), found in figures.items():
        one = middle(found)
        cpu = " ".join(f"{key} {value:.1f}" for key, value in one.cpu.items())
        print(
            f"{name:9} {connections}x {outstanding:4} {contestant:11} {one.rate:9,.0f}/s "
            f"p50 {one.p50:.2f} p99 {one.p99:.2f} p99.9 {one.p999:.2f} ms, µs: {cpu}, "
            f"{one.memory:.0f} MB, {one.failures} failures"
        )


async def same_answers(client: Client, who: Sequence[Contestant], lookup: Lookup) -> None:
    """Make sure that each does the whole work: the right answers to the last field."""
    for key in (*lookup.keys[:SAMPLE], *lookup.keys[-SAMPLE:]):
        for each in who:
            subject = f"{each.prefix}.{lookup.name}"
            answer = (await client.request(subject, lookup.payload(key), timeout=5)).data
            if not lookup.is_right(key, answer):
                raise SystemExit(f"{subject} does not answer right for {key!r}: {answer!r}")


def _loads(arguments: argparse.Namespace) -> list[tuple[int, int]]:
    return [
        (connections, outstanding)
        for connections in arguments.connections
        for outstanding in arguments.outstanding
        if outstanding % connections == 0
    ]


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--only", type=_words, default=list(LOOKUPS))
    parser.add_argument("--outstanding", type=_numbers, default=list(OUTSTANDING))
    parser.add_argument("--connections", type=_numbers, default=[1])
    parser.add_argument("--contestants", type=_words, default=[each.name for each in contestants()])
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main())
