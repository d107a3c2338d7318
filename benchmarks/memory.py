"""The memory of a worker as it answers more and more requests."""

from __future__ import annotations

import argparse
from typing import Any

from arena import arena, servers
from contestants import RESPONDER
from load import asking
from nats_rounds import LOOKUPS
from pace import Pace
from processes import resident

OUTSTANDING = 256
SAMPLES = 10
# Of requests, of each lookup: pages and batches are large, and rare.
SHARES = {"get": 0.9, "by_email": 0.08, "get_many": 0.01, "org_list": 0.01}


async def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the resident memory by requests answered, all lookups mixed."""
    found: list[dict[str, Any]] = []
    async with (
        servers() as shared,
        arena(shared, [RESPONDER], users=arguments.users, checked=LOOKUPS) as place,
    ):
        worker = place.pids[RESPONDER.name]
        found.append({"requests": 0, "memory": resident(worker)})
        failures = 0
        for number in range(1, SAMPLES + 1):
            for lookup, share in SHARES.items():
                wanted = round(arguments.requests * share / SAMPLES)
                streams = place.streams(RESPONDER.name, lookup, 0)
                async with asking(
                    shared.messages.url, streams, Pace(OUTSTANDING), wanted=wanted
                ) as load:
                    await load.reached.wait()
                failures += streams[0].failures
            found.append(
                {
                    "requests": arguments.requests * number // SAMPLES,
                    "memory": resident(worker),
                    "failures": failures,
                }
            )
    return found
