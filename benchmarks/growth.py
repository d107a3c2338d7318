"""What a request costs with ten times the users."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from functools import partial

import rounds
from arena import arena, servers
from contestants import RESPONDER
from nats_rounds import LOOKUPS
from pace import Pace

OUTSTANDING = (1, 64, 256)


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return figures of responder for both numbers of users, in databases of one PostgreSQL."""
    many = replace(
        RESPONDER,
        prefix="many",
        environment={**RESPONDER.environment, "RESPONDER_SUBJECT_PREFIX": "many"},
    )
    async with (
        servers() as shared,
        arena(shared, [RESPONDER], users=arguments.users, checked=LOOKUPS) as few_place,
        arena(shared, [many], users=arguments.more_users, checked=LOOKUPS) as many_place,
    ):
        places = {arguments.users: few_place, arguments.more_users: many_place}
        measurements = {
            (lookup, outstanding, users): partial(
                places[users].measure,
                RESPONDER.name,
                lookup,
                Pace(outstanding),
                seconds=arguments.seconds,
            )
            for lookup, outstanding, users in itertools.product(LOOKUPS, OUTSTANDING, places)
        }
        return await rounds.run(("lookup", "outstanding", "users"), measurements, arguments.rounds)
