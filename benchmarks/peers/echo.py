"""The limit of the client library: answer every request with bytes as long as the real answer's."""

import asyncio
import os

import nats
import uvloop
from nats.aio.msg import Msg

USER = b'{"id":"echo","padding":"%b"}' % (b"." * 325)  # as long as a user
USERS = {"get": 1, "by_email": 1, "get_many": 50, "org_list": 100, "memberships": 4}


async def main() -> None:
    """Answer until killed."""
    connection = await nats.connect(os.environ["NATS_URL"])

    async def listen(lookup: str, users: int) -> None:
        body = USER * users

        async def handle(message: Msg) -> None:
            await message.respond(body)

        await connection.subscribe(f"echo.{lookup}", cb=handle)

    for lookup, users in USERS.items():
        await listen(lookup, users)
    await asyncio.Event().wait()


uvloop.run(main())
