"""Test what asks for users, without servers: pip install pytest, and pytest test_greeting.py."""

import asyncio

from responder import NotFoundError, User, UsersClient
from responder.testing import StubUsers

ANN = User(
    id="1",
    email="ann@example.com",
    email_verified=True,
    name="Ann",
    image=None,
    is_anonymous=False,
    role="user",
    banned=False,
    ban_reason=None,
    ban_expires=None,
    organization_id="acme",
    org_role="owner",
    manager_id=None,
    department_id=None,
)


async def greeting(users: UsersClient, user_id: str) -> str:
    try:
        return f"Hello, {(await users.get(user_id)).name}"
    except NotFoundError:
        return "Hello, stranger"


def test_greeting() -> None:
    users = StubUsers(users=[ANN])

    assert asyncio.run(greeting(users, "1")) == "Hello, Ann"
    assert asyncio.run(greeting(users, "2")) == "Hello, stranger"
