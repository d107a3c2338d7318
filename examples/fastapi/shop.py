"""A FastAPI application whose requests have the user of their token.

pip install better-auth-responder fastapi uvicorn
uvicorn shop:app --port 8000
curl -H "Authorization: Bearer $OWNER" http://127.0.0.1:8000/orders
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from responder import Identity, TokenVerifier, User, UsersClient
from responder.fastapi import current_identity, current_user

Me = Annotated[User, Depends(current_user(lambda request: request.app.state.users))]
Caller = Annotated[Identity, Depends(current_identity(lambda request: request.app.state.tokens))]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with UsersClient.connect(os.environ["NATS_URL"]) as app.state.users:
        async with TokenVerifier.connect(os.environ["BETTER_AUTH_URL"]) as app.state.tokens:
            yield


app = FastAPI(lifespan=lifespan)


@app.get("/orders")
async def orders(me: Me) -> str:  # live, from the tables
    return f"orders of {me.name}, {me.org_role}"


@app.get("/cart")
async def cart(caller: Caller) -> str:  # from the token alone
    return f"cart of {caller.user_id}"
