"""What a request costs each process, from measurements at several loads."""

# What a process costs for a request falls as batches grow, because a step is shared by all requests
# in it. So a line is drawn through the costs by 1 / (mean size of a batch), which the worker
# counts: its slope is what the steps of a batch cost, and where it meets zero is what a request
# costs.
#
# How much longer than it costs a step may take, and which core it waits for, is what brings rates
# and latencies nearest to those that were measured at the same loads, by trying.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Any

from simulation import Answered, Chance, Cost, Costs, closed, opened

Row = dict[str, Any]
SPREADS = (0.1, 0.2, 0.3, 0.5)
PAUSES = (10.0, 30.0, 100.0)  # a second of work
PAUSE = 1_000.0  # microseconds
STAYS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = {"rate": 2.0, "p50": 2.0, "p99": 1.0}
TRIED = 1.0  # seconds that are simulated of each


def costs_of(rows: Sequence[Row]) -> dict[str, Costs]:
    """Return the costs for each kind of load, by the loads that were measured for that."""
    every = [row for row in rows if row["learn"]]

    def cost(name: str, steps: int, of: Sequence[Row] = every) -> Cost:
        return line([(steps / row["batch"], row[name]) for row in of])

    # In an open loop the program that asks is woken to send, and again to read.
    found = {
        kind: Costs(
            load=cost("load", steps, [row for row in every if row["kind"] == kind]),
            nats=cost("nats", 2),
            worker=cost("worker", 2),
            postgres=cost("postgres", 1),
            chance=Chance(0.0, 0.0, PAUSE, 0.0),
        )
        for kind, steps in (("outstanding", 1), ("rate", 2))
    }
    chance = best(found, every)
    return {kind: replace(each, chance=chance) for kind, each in found.items()}


def line(points: Sequence[tuple[float, float]]) -> Cost:
    """Return slope and height of the line that misses the points least, each by its share."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = max(across / along, 0.0)
    height = max(mean_y - slope * mean_x, 0.0)
    return Cost(round(slope, 2), round(height, 2))


def best(costs: dict[str, Costs], rows: Sequence[Row]) -> Chance:
    """Return the chance with which what is simulated is nearest to what was measured."""

    def missed(chance: Chance) -> float:
        found = 0.0
        for row in rows:
            simulated = simulate(replace(costs[row["kind"]], chance=chance), row, seconds=TRIED)
            for name, weight in WEIGHTS.items():
                found += weight * log(getattr(simulated, name) / row[name]) ** 2
        return found

    every = itertools.product(SPREADS, PAUSES, [PAUSE], STAYS)
    return min((Chance(*each) for each in every), key=missed)


def simulate(costs: Costs, row: Row, *, seconds: float = 4.0) -> Answered:
    """Simulate the load of a measurement for so long."""
    if row["kind"] == "outstanding":
        return closed(costs, outstanding=row["size"], seconds=seconds)
    return opened(costs, rate=row["size"], seconds=seconds)
