"""What one connection's flood does to another connection's latencies."""

# A flood takes all of the machine. The echo, which looks nothing up, shows what that alone does.

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from functools import partial
from pathlib import Path

import rounds
from arena import Arena, arena, servers
from contestants import contestants, end
from figures import Figures
from pace import Pace

LOOKUP = "get"
FLOOD = 256  # requests outstanding on the other connection
OUTSTANDING = (1, 16, 64)


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of one connection, alone and beside the flood of another."""
    who = [each for each in contestants() if each.name in arguments.contestants]
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
    return await place.measure(name, LOOKUP, Pace(outstanding), seconds=seconds)


async def _beside(place: Arena, name: str, *, outstanding: int, seconds: float) -> Figures:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("flood.py"), place.servers.messages.url),
        *(f"{place.who[name].prefix}.{LOOKUP}", LOOKUP, str(place.people.users), str(FLOOD)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        if not await process.stdout.readline():
            raise SystemExit("the flood did not begin")
        return await _alone(place, name, outstanding=outstanding, seconds=seconds)
    finally:
        await end(process)
