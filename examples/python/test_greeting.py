"""Test what asks for users, without servers: pip install pytest, and pytest test_greeting.py."""

import asyncio

from responder import NotFoundError, UsersClient
from responder.testing import StubUsers, a_user

ANN = a_user("ann", name="Ann", organization_id="acme", org_role="owner")


async def greeting(users: UsersClient, user_id: str) -> str:
    try:
        return f"Hello, {(await users.get(user_id)).name}"
    except NotFoundError:
        return "Hello, stranger"


def test_greeting() -> None:
    users = StubUsers(users=[ANN])

    assert asyncio.run(greeting(users, "ann")) == "Hello, Ann"
    assert asyncio.run(greeting(users, "ben")) == "Hello, stranger"
