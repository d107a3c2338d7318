"""A program that uses all that is public, to be read by type checkers; it is never run."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from nats.aio.client import Client

from responder import (
    Identity,
    Membership,
    MembershipPage,
    NotFoundError,
    ResponderError,
    TokenVerifier,
    User,
    UserBatch,
    UserPage,
    UsersClient,
    WhoAmI,
)
from responder.fastapi import current_identity, current_user
from responder.testing import StubUsers, a_user


async def everything(nc: Client, token: str) -> list[str | None]:
    users = UsersClient(nc)
    user: User = await users.get("a", organization_id="o", timeout=1, headers={"traceparent": "x"})
    by_email: User = await users.by_email("a@example.com")
    batch: UserBatch = await users.get_many(["a", "b"])
    page: UserPage = await users.org_page("o", limit=10, cursor=None, roles=["owner"])
    memberships: MembershipPage = await users.memberships_page("a", limit=10)
    names = [each.name async for each in users.org_list("o", roles=["owner"])]
    first: list[Membership] = [each async for each in users.memberships("a")]
    me: WhoAmI = await users.on_behalf_of(token).whoami()
    identity: Identity = me.identity
    try:
        await users.get("nobody")
    except NotFoundError as error:
        names.append(error.message)
    except ResponderError as error:
        names.append(f"{error.code} {error.number}")
    async with UsersClient.connect("nats://127.0.0.1:4222", name="consumer") as own:
        names.append((await own.get("a")).org_role)
    stub: UsersClient = StubUsers(users=[a_user("ben", role="admin")], me=user)
    del by_email, batch, page, memberships, first, identity, stub
    return names


def application(users: UsersClient, verifier: TokenVerifier) -> FastAPI:
    app = FastAPI()
    me, who = Depends(current_user(users)), Depends(current_identity(verifier))

    @app.get("/me")
    async def read(user: Annotated[User, me], identity: Annotated[Identity, who]) -> str | None:
        return user.name or identity.email

    app.add_api_route("/me/too", read)

    return app
