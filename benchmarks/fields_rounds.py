"""Users with two additional fields: responder beside the best peer."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from functools import partial

import rounds
from arena import arena, servers
from contestants import FIELDS, contestants
from pace import Pace

SETTING = "user.phoneNumber,member.title"
WHO = ("responder", "bun")
LOOKUPS = ("get", "org_list")
OUTSTANDING = (1, 64)


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of both."""
    who = [
        replace(each, environment={**each.environment, FIELDS: SETTING})
        for each in contestants()
        if each.name in WHO
    ]
    async with (
        servers() as shared,
        arena(shared, who, users=arguments.users, checked=LOOKUPS) as place,
    ):
        measurements = {
            (lookup, outstanding, name): partial(
                place.measure, name, lookup, Pace(outstanding), seconds=arguments.seconds
            )
            for lookup, outstanding, name in itertools.product(LOOKUPS, OUTSTANDING, place.who)
        }
        return await rounds.run(("lookup", "outstanding", "who"), measurements, arguments.rounds)
