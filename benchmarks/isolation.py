"""What one connection's flood does to another connection's latencies."""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import rounds
from arena import Arena, arena, servers
from contestants import contestants
from figures import Figures
from load import Log, asking

LOOKUP = "get"
FLOOD = 256  # requests outstanding on the other connection
OUTSTANDING = (1, 16, 64)


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of one connection, alone and beside the flood of another."""
    who = [each for each in contestants() if each.name in arguments.contestants and each.answers]
    async with (
        servers() as shared,
        arena(shared, who, users=arguments.users, checked=[LOOKUP]) as place,
    ):
        measurements = {
            (outstanding, name, flood): partial(
                _beside if flood else _alone,
                place,
                name,
                outstanding=outstanding,
                seconds=arguments.seconds,
            )
            for outstanding, name, flood in itertools.product(OUTSTANDING, place.who, (0, FLOOD))
        }
        names = ("outstanding", "who", "flood")
        return await rounds.run(names, measurements, arguments.rounds)


async def _alone(place: Arena, name: str, *, outstanding: int, seconds: float) -> Figures:
    return await place.measure(name, LOOKUP, outstanding=outstanding, seconds=seconds)


async def _beside(place: Arena, name: str, *, outstanding: int, seconds: float) -> Figures:
    subject = f"{place.who[name].prefix}.{LOOKUP}"
    url, lookup = place.servers.messages.url, place.asked[LOOKUP]
    async with asking(url, subject, lookup, Log(), outstanding=FLOOD):
        return await _alone(place, name, outstanding=outstanding, seconds=seconds)
