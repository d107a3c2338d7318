"""The stand-in answers as the service does, so that a test of an application proves something."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI

from responder import User, UsersClient
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    ResponderError,
    UnauthenticatedError,
)
from responder.fastapi import current_user
from responder.testing import StubUsers, UserFields, a_user


@pytest.fixture
async def stub(people_service, cast) -> StubUsers:
    """The members of an organization of the demo people, as the service answers them."""
    users, memberships = [], {}
    async for member in people_service.users.org_list(cast.organization.id):
        users.append(await people_service.users.get(member.id))
        memberships[member.id] = [
            each async for each in people_service.users.memberships(member.id)
        ]
    return StubUsers(users=users, memberships=memberships, me=users[0])


async def said(users: UsersClient, call: str) -> object:
    """What a call answers, or the error that it raises."""
    try:
        found = eval(f"users.{call}", {"users": users})
        return [each async for each in found] if hasattr(found, "__aiter__") else await found
    except ResponderError as error:
        return type(error), error.message


async def test_it_answers_as_the_service_does(people_service, stub, cast):
    """Each call, right or wrong, has the same outcome as over NATS."""
    one, other = cast.organization.id, cast.second_organization.id
    person = cast.two_organizations
    for call in (
        f"get({person.id!r})",
        f"get({person.id!r}, organization_id={other!r})",
        f"get({person.id!r}, organization_id='nowhere')",
        "get('nobody')",
        f"by_email({person.email.upper()!r})",
        "by_email('nobody@example.com')",
        f"get_many(['nobody', {person.id!r}, {person.id!r}], organization_id={other!r})",
        f"org_list({one!r}, page=50)",
        f"org_list({one!r}, roles=['owner', 'viewer'])",
        "org_list('nowhere')",
        f"org_page({one!r}, limit=501)",
        f"memberships({person.id!r}, page=1)",
        f"memberships_page({person.id!r}, limit=0)",
        "memberships_page()",
        "memberships_page('nobody')",
        "whoami()",
    ):
        assert (call, await said(people_service.users, call)) == (call, await said(stub, call))


async def test_a_token_speaks_for_me(stub):
    """With any token the caller is the one that the test has named; without one there is none."""
    me = (await stub.on_behalf_of("any.to.ken").whoami()).user
    assert me
    own = await stub.on_behalf_of("any.to.ken").memberships_page()

    banned = me.model_copy(update={"banned": True})
    with pytest.raises(ForbiddenError):
        await StubUsers(me=banned).on_behalf_of("any.to.ken").get(me.id)
    assert me.organization_id in [each.organization_id for each in own.memberships]
    with pytest.raises(UnauthenticatedError):
        await StubUsers().on_behalf_of("any.to.ken").whoami()
    with pytest.raises(NotFoundError):
        await StubUsers().get("x")
    with pytest.raises(InvalidRequestError, match="cursor"):
        await stub.org_page("x", cursor="y")


async def test_a_user_has_what_the_test_says():
    """The rest is filled in, so that the user is found by id and by email; a slip is refused."""
    ann, ben = a_user("Ann", role="admin", banned=True), a_user("ben", email=None)
    users = StubUsers(users=[ann, ben])

    assert ("admin", True, None) == (ann.role, ann.banned, ben.email)
    assert ann == await users.by_email("ann@example.com")
    assert ben == await users.get("ben")
    with pytest.raises(TypeError, match=r"a user has no rol$"):
        a_user(rol="admin")  # type: ignore[call-arg]  # a slip
    with pytest.raises(ValueError, match="role"):
        a_user(role=None)  # type: ignore[arg-type]  # a user has one


def test_a_user_can_have_every_field():
    """What `a_user` takes is what a user has, and additional fields are absent unless named."""
    assert User.model_fields.keys() == {"id", *UserFields.__annotations__}
    assert "additionalFields" not in a_user().model_dump(by_alias=True)
    assert {"badge": 7} == a_user(additional_fields={"badge": 7}).additional_fields


async def test_a_fastapi_application_is_tested_with_it(stub):
    """The dependencies of `responder.fastapi` take it for a client."""
    app = FastAPI()

    async def show(me: User) -> str:
        return me.id

    show.__annotations__["me"] = Annotated[User, Depends(current_user(stub))]
    app.get("/me")(show)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as http:
        mine = await http.get("/me", headers={"Authorization": "Bearer a.b.c"})
        refused = await http.get("/me")

    assert (200, 401) == (mine.status_code, refused.status_code)
