"""Verify the token of a request, without asking another service.

pip install better-auth-responder
python tokens.py
"""

import asyncio
import os

from responder import TokenVerifier, UnauthenticatedError


async def main() -> None:
    # Where the application signs tokens with its secret: TokenVerifier.connect(secret=…).
    async with TokenVerifier.connect(os.environ["BETTER_AUTH_URL"]) as tokens:
        identity = await tokens.verify(os.environ["OWNER"])
        print(identity.user_id, identity.name, identity.role)
        try:
            await tokens.verify("a session's token")
        except UnauthenticatedError as error:
            print(error.number, error.message)


asyncio.run(main())
