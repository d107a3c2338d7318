"""Requests on behalf of ever more distinct callers, beside those of services."""

from __future__ import annotations

import argparse
from functools import partial

import rounds
from arena import arena, servers
from callers import KINDS
from contestants import RESPONDER
from pace import Pace

from responder.dev.tokens import Mint

OUTSTANDING = 64


async def run(arguments: argparse.Namespace) -> list[rounds.Row]:
    """Return the figures of responder for each number of callers."""
    kinds = ["get", *KINDS]
    async with servers() as shared:
        ours = RESPONDER.accepting(Mint(), shared.messages.directory)
        async with arena(shared, [ours], users=arguments.users, checked=kinds) as place:
            measurements = {
                (kind,): partial(
                    place.measure, ours.name, kind, Pace(OUTSTANDING), seconds=arguments.seconds
                )
                for kind in kinds
            }
            return await rounds.run(("callers",), measurements, arguments.rounds)
