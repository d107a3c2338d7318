"""Ask for users on the NATS connection that a program already has.

pip install better-auth-responder
python users.py
"""

import asyncio
import os

import nats

from responder import NotFoundError, UsersClient

ZOE = "KbO8WbOTItGbdi0KY5YfJyfimmurNJra"  # two ids of the demo
LUMEN = "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud"


async def main() -> None:
    nc = await nats.connect(os.environ["NATS_URL"])
    users = UsersClient(nc)

    zoe = await users.get(ZOE, organization_id=LUMEN, timeout=0.5)
    print(zoe.name, zoe.email, zoe.org_role)
    batch = await users.get_many([ZOE, "no such id"])
    print(len(batch.users), "found, missing:", batch.missing)
    async for member in users.org_list(LUMEN, roles=["owner", "admin"]):
        print("-", member.name, member.org_role)

    caller = users.on_behalf_of(os.environ["VIEWER"])  # a token that came with a request
    print("on behalf of", (await caller.whoami()).identity.name)
    try:
        await caller.get("no such id")
    except NotFoundError as error:  # or the id of a user whom the caller may not see
        print(error.code, error.number, error.message)

    await nc.close()


asyncio.run(main())
