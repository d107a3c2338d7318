"""Every lookup, contestant and load over NATS."""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from typing import Any

import pgbench
import rounds
from arena import Arena, arena, servers
from contestants import RESPONDER, contestants
from pace import Pace

LOOKUPS = ("get", "by_email", "get_many", "org_list", "memberships")
PGBENCH_CLIENTS = (1, 8)
MANY = 64  # outstanding, from which it makes sense to spread them over connections


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of each."""
    who = [each for each in contestants() if each.name in arguments.contestants]
    lookups = [name for name in LOOKUPS if name in arguments.only]
    async with (
        servers() as shared,
        arena(shared, who, users=arguments.users, checked=lookups) as place,
    ):
        loads = [
            (connections, outstanding)
            for connections in arguments.connections
            for outstanding in arguments.outstanding
            if connections == 1 or outstanding >= MANY
        ]
        measurements: dict[tuple[Any, ...], Any] = {
            (lookup, connections, outstanding, name): partial(
                place.measure,
                name,
                lookup,
                Pace(outstanding, connections=connections),
                seconds=arguments.seconds,
            )
            for lookup, (connections, outstanding), name in itertools.product(
                lookups, loads, place.who
            )
        }
        if "pgbench" in arguments.contestants and "get" in lookups:
            measurements |= await _pgbench(place, arguments.seconds)
        names = ("lookup", "connections", "outstanding", "who")
        return await rounds.run(names, measurements, arguments.rounds)


async def _pgbench(place: Arena, seconds: float) -> dict[tuple[Any, ...], Any]:
    if pgbench.program() is None or RESPONDER.name not in place.who:
        print("pgbench is left out: it needs to be installed, and responder's SQL", file=sys.stderr)
        return {}
    sql = await pgbench.script(place)
    return {
        ("get", clients, clients, "pgbench"): partial(
            pgbench.measure, place, sql, clients=clients, seconds=seconds
        )
        for clients in PGBENCH_CLIENTS
    }
