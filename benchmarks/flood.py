"""Keep many requests outstanding until ended: a caller in a process of its own."""

# In the process that measures another connection's latencies, the flood would add its own work to
# them.

import asyncio
import sys

import uvloop
from data import People
from load import asking
from lookups import lookups
from pace import Pace
from traffic import Stream


async def main(nats_url: str, subject: str, lookup: str, users: str, outstanding: str) -> None:
    """Ask until the process is ended; a line says when the flood has begun."""
    asked = Stream(lookups(People(int(users)))[lookup], subject=subject)
    async with asking(nats_url, [asked], Pace(int(outstanding))):
        print("flooding", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
