"""Requests at random times, as many a second as real systems have; alone, and in a mix."""

# What each contestant can answer is found in a closed loop beforehand, several times, because
# machines are noisy. It is asked for a share of that, and for no rate that it could not keep up
# with: it would go on answering while others are measured.

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

import rounds
from arena import Arena, arena, servers
from contestants import contestants
from pace import CONNECTIONS, Pace

RATES = {"get": (1000, 5000, 10_000), "mix": (2500, 5000)}
CAPACITY = Pace(256, connections=CONNECTIONS)
TIMES = 3  # that capacity is measured, the median of which counts
SHARE = 0.7
MOST = 0.9
NEAR = f"{SHARE:.0%} of its capacity"


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of each; of the mix the latencies are those of `get`."""
    who = [each for each in contestants() if each.name in arguments.contestants and each.answers]
    async with (
        servers() as shared,
        arena(shared, who, users=arguments.users, checked=list(RATES)) as place,
    ):
        measurements: dict[tuple[Any, ...], Any] = {}
        capacities = {kind: await _capacities(place, kind, arguments.seconds) for kind in RATES}
        for kind, name in itertools.product(RATES, place.who):
            capacity = capacities[kind][name]
            rates = {f"{rate:,}/s": rate for rate in RATES[kind] if rate < MOST * capacity}
            if kind == "get":
                rates[NEAR] = round(SHARE * capacity)
            measurements |= {
                (kind, said, name): partial(
                    place.measure,
                    name,
                    kind,
                    Pace(rate=rate, connections=CONNECTIONS),
                    seconds=arguments.seconds,
                )
                for said, rate in rates.items()
            }
        names = ("lookup", "rate of arrivals", "who")
        found = await rounds.run(names, measurements, arguments.rounds)
    order = [*(f"{rate:,}/s" for rates in RATES.values() for rate in rates), NEAR]
    return sorted(found, key=lambda row: order.index(row["rate of arrivals"]))


async def _capacities(place: Arena, kind: str, seconds: float) -> Mapping[str, float]:
    """Return how many requests a second each contestant answers in a closed loop."""
    found = [
        {
            name: (await place.measure(name, kind, CAPACITY, seconds=seconds)).rate
            for name in place.who
        }
        for _ in range(TIMES)
    ]
    return {name: median(each[name] for each in found) for name in place.who}
