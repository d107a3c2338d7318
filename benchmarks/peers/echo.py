"""The limit of the client library: answer every request with the same bytes."""

import asyncio
import os

import nats
import uvloop
from nats.aio.msg import Msg

BODY = b'{"id":"echo","padding":"%b"}' % (b"." * 325)  # as long as a user


async def main() -> None:
    """Answer until killed."""
    connection = await nats.connect(os.environ["NATS_URL"])

    async def handle(message: Msg) -> None:
        await message.respond(BODY)

    await connection.subscribe("echo.get", cb=handle)
    await asyncio.Event().wait()


uvloop.run(main())
