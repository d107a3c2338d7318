"""Measure what a request costs, and check the simulation that is made of it: `make capacity`."""

# Some loads are measured to learn what each process costs (LEARN), and others to see whether the
# simulation knows them without having been told (CHECK). All are measured in turn, in rounds.

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvloop
from arena import Arena, arena, servers
from contestants import RESPONDER
from fitting import costs_of, simulate
from pace import Pace
from plot import Series, svg
from simulation import CONNECTIONS, Answered, Costs, opened

ADMIN = 18182
FILE = Path(__file__).with_name("costs.json")
LEARN = {"outstanding": (1, 4, 32, 128, 512), "rate": (1_000, 4_000, 12_000)}
CHECK = {"outstanding": (16, 64, 256), "rate": (2_000, 8_000, 16_000)}
WITHIN = {"rate": (0.85, 1.15), "p50": (0.8, 1.2), "p99": (1 / 1.5, 1.5)}  # of the measurement
COUNTED = re.compile(r"(?m)^responder_batch_size_(sum|count) (\S+)")
Row = dict[str, Any]


async def measured(arguments: argparse.Namespace) -> list[Row]:
    """Measure every load in turn, so many times, and return the median of each."""
    contestant = replace(
        RESPONDER,
        environment={**RESPONDER.environment, "RESPONDER_ADMIN_LISTEN": f"127.0.0.1:{ADMIN}"},
    )
    found: dict[tuple[str, int], list[Row]] = {
        (kind, size): [] for kind in LEARN for size in sorted((*LEARN[kind], *CHECK[kind]))
    }
    async with (
        servers() as shared,
        arena(shared, [contestant], users=arguments.users, checked=["get"]) as place,
    ):
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for kind, size in reversed(found) if number % 2 else found:
                pace = Pace(**{kind: size})
                found[kind, size].append(await ask(place, pace, arguments.seconds))
    return [
        {"kind": kind, "size": size, "learn": size in LEARN[kind], **middle(rows)}
        for (kind, size), rows in found.items()
    ]


async def ask(place: Arena, pace: Pace, seconds: float) -> Row:
    """Measure a load, and how many requests shared a query meanwhile."""
    before = await batches()
    found = await place.measure(RESPONDER.name, "get", pace, seconds=seconds)
    after = await batches()
    assert found.failures == 0
    return {
        "rate": found.rate,
        "p50": found.p50,
        "p99": found.p99,
        "batch": (after[0] - before[0]) / (after[1] - before[1]),
        **found.cpu,
    }


async def batches() -> tuple[float, float]:
    """How many requests shared how many queries so far."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{ADMIN}/metrics")).text
    counted = {name: float(value) for name, value in COUNTED.findall(text)}
    return counted["sum"], counted["count"]


def middle(rows: Sequence[Row]) -> Row:
    """Return the median of each figure."""
    return {name: median(row[name] for row in rows) for name in rows[0]}


def named(row: Row) -> str:
    """Return the words for a load."""
    return f"{row['size']:,}{' outstanding' if row['kind'] == 'outstanding' else '/s'}"


def comparison(rows: Sequence[Row], simulated: Sequence[Answered]) -> str:
    """Return a table of what was measured and simulated, and by how much they differ."""
    lines = [HEAD]
    for row, each in zip(rows, simulated, strict=True):
        cells = [named(row)]
        for name, form in (("rate", ",.0f"), ("p50", ".2f"), ("p99", ".2f")):
            is_, was = getattr(each, name), row[name]
            cells.append(f"{was:{form}} / {is_:{form}} ({is_ / was - 1:+.0%})")
        cells.append(f"{row['batch']:.1f} / {each.batch:.1f}")
        cells.append("to learn from" if row["learn"] else "**to check**")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


HEAD = """| load | requests/s | p50 ms | p99 ms | batch | |
|--|--:|--:|--:|--:|--|"""


def picture(rows: Sequence[Row], simulated: Sequence[Answered]) -> str:
    """Draw latencies against what is answered, measured and simulated."""
    series = []
    for kind, words, colours in (
        ("outstanding", "closed loop", ("#1b6ca8", "#7fb3d5")),
        ("rate", "open loop", ("#b03a2e", "#e6a79f")),
    ):
        of = [(row, each) for row, each in zip(rows, simulated, strict=True) if row["kind"] == kind]
        for name, colour in zip(("p50", "p99"), colours, strict=True):
            measured = [(row["rate"], row[name]) for row, _ in of]
            modelled = [(each.rate, getattr(each, name)) for _, each in of]
            title = f"{words}, {name}"
            series += [
                Series(name=f"{title}, measured", points=measured, colour=colour),
                Series(name=f"{title}, simulated", points=modelled, colour=colour, joined=True),
            ]
    return svg(series, title="users.get on two cores", x="requests a second", y="latency, ms")


def plan(costs: Costs) -> str:
    """Return a table of what it takes to answer so many requests a second."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'--:|' * len(COLUMNS)}"]
    for rate in RATES:
        workers = max(ceil(rate / PER_WORKER), SPARE)
        each = opened(costs, rate=rate / workers, cores=ENOUGH)
        cores = {kind: workers * busy for kind, busy in each.cores.items()}
        cells = (
            f"{rate:,}",
            f"{workers:,}",
            *(f"{cores[kind]:,.1f}" for kind in ("worker", "postgres", "nats")),
            f"{ceil(cores['postgres'] / (BUSY * SERVER)):,}",
            f"{workers * CONNECTIONS:,}",
            f"{4 * rate:,}",
            f"{each.batch:.1f}",
            f"{each.p50:.1f}, {each.p99:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


RATES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
PER_WORKER = 20_000  # requests a second
SPARE = 2  # workers at least, so that one may be away
ENOUGH = 8  # cores of the machine on which a worker is simulated: none waits for one
SERVER, BUSY = 16, 0.6  # cores of a PostgreSQL server, and the share of them that is planned with
COLUMNS = (
    "requests/s", "workers", "cores busy with them", "with PostgreSQL", "with nats-server",
    "PostgreSQL servers", "connections", "NATS messages/s", "batch", "p50, p99 ms",
)  # fmt: skip


def missed(rows: Sequence[Row], simulated: Sequence[Answered]) -> list[str]:
    """Return what the simulation gets wrong of the loads that it was not told of."""
    return [
        f"{name} at {named(row)}"
        for row, each in zip(rows, simulated, strict=True)
        for name, (least, most) in WITHIN.items()
        if not row["learn"] and not least <= getattr(each, name) / row[name] <= most
    ]


def main(arguments: argparse.Namespace) -> None:
    """Measure if that is asked for, and show what came of it."""
    if arguments.measure:
        rows = uvloop.run(measured(arguments))
        learned = {kind: asdict(each) for kind, each in costs_of(rows).items()}
        FILE.write_text(json.dumps({"loads": rows, "costs": learned}, indent=1) + "\n")
    found = json.loads(FILE.read_text())
    rows = found["loads"]
    costs = {kind: Costs.read(each) for kind, each in found["costs"].items()}
    simulated = [simulate(costs[row["kind"]], row) for row in rows]
    print(comparison(rows, simulated), plan(costs["rate"]), sep="\n\n")
    if arguments.picture:
        arguments.picture.write_text(picture(rows, simulated))
    print("", f"Beyond the bounds: {', '.join(missed(rows, simulated)) or 'none'}.", sep="\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help=f"first, and write {FILE.name} anew")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, help="where to draw latency against load")
    return parser.parse_args()


if __name__ == "__main__":
    main(_arguments())
