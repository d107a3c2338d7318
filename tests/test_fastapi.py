"""FastAPI's requests have the user of their token, or the error that HTTP has for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from responder import Identity, TokenVerifier, User, UsersClient
from responder.dev.tokens import ISSUER, Mint
from responder.fastapi import current_identity, current_user


@pytest.fixture(scope="module")
def mint() -> Mint:
    return Mint()


@pytest.fixture(scope="module")
def key_set(mint, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    mint.publish(file)
    return str(file)


@pytest.fixture
async def service(start, template, create_database, mint, tmp_path):
    return await start(
        await create_database(template=template[0]), **mint.publish(tmp_path / "jwks.json")
    )


@asynccontextmanager
async def application(users: UsersClient, key_set: str) -> AsyncIterator[httpx.AsyncClient]:
    """An application of FastAPI, asked without a server between."""
    async with TokenVerifier.connect(ISSUER, key_set=key_set) as tokens:
        app = FastAPI()
        app.state.users = users

        def find(request: Request) -> UsersClient:
            found: UsersClient = request.app.state.users
            return found

        @app.get("/identity")
        async def identity(me: Annotated[Identity, Depends(current_identity(tokens))]) -> str:
            return me.user_id

        @app.get("/user")
        async def user(me: Annotated[User, Depends(current_user(find))]) -> str:
            return f"{me.name}, {me.org_role}"

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://shop.example"
        ) as http:
            yield http


def token_of(mint: Mint, user_id: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint.token(user_id)}"}


async def test_a_request_has_the_user_of_its_token(service, cast, mint, key_set):
    """Both dependencies give the caller: from the token, and live from the tables."""
    async with application(service.users, key_set) as http:
        identity = await http.get("/identity", headers=token_of(mint, cast.owner.id))
        user = await http.get("/user", headers=token_of(mint, cast.owner.id))

    assert (200, cast.owner.id) == (identity.status_code, identity.json())
    assert (200, f"{cast.owner.name}, owner") == (user.status_code, user.json())


@pytest.mark.parametrize("path", ["/identity", "/user"])
@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ([], 'Bearer realm="users"'),
        ([("Authorization", "Basic dTpw")], 'Bearer realm="users"'),
        ([("Authorization", "Bearer x")], 'Bearer realm="users", error="invalid_token"'),
        ([("Authorization", "Bearer a.b.c")] * 2, 'Bearer realm="users", error="invalid_token"'),
    ],
    ids=["none", "another-scheme", "no-token", "two"],
)
async def test_without_a_good_token_it_is_401(service, key_set, path, headers, challenge):
    """A request without exactly one token that verifies is refused as RFC 6750 says."""
    async with application(service.users, key_set) as http:
        response = await http.get(path, headers=headers)

    assert 401 == response.status_code
    assert response.headers["www-authenticate"].startswith(challenge)


async def test_who_may_not_come_in_is_403(service, cast, mint, key_set):
    """A user who is banned, or has no row any more, is forbidden; the token still says who."""
    async with application(service.users, key_set) as http:
        banned = await http.get("/user", headers=token_of(mint, cast.banned.id))
        gone = await http.get("/user", headers=token_of(mint, "gone"))
        identity = await http.get("/identity", headers=token_of(mint, "gone"))

    assert [403, 403, 200] == [each.status_code for each in (banned, gone, identity)]
    assert 'error="insufficient_scope"' in banned.headers["www-authenticate"]


async def test_without_workers_it_is_503(service, mint, key_set):
    """A request that no worker answers may be tried again."""
    users = UsersClient(service.nc, prefix="elsewhere")
    async with application(users, key_set) as http:
        response = await http.get("/user", headers=token_of(mint, "x"))

    assert (503, "1") == (response.status_code, response.headers["retry-after"])


async def test_openapi_says_that_a_token_is_needed(service, key_set):
    """The application's own document has the scheme of the dependencies."""
    async with application(service.users, key_set) as http:
        document = (await http.get("/openapi.json")).json()

    assert {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"} == (
        document["components"]["securitySchemes"]["HTTPBearer"]
    )
    assert [{"HTTPBearer": []}] == document["paths"]["/user"]["get"]["security"]
