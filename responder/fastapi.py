"""The current user of a FastAPI request, from its bearer token."""

# FastAPI is the application's: this module is the only one that imports it.

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final, NoReturn, TypeAlias, TypeVar

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPBearer

from responder import bearer
from responder.client import UsersClient
from responder.errors import (
    ForbiddenError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.models import Identity, User
from responder.tokens.verifier import TokenVerifier

Opened = TypeVar("Opened")
# FastAPI opens things in its lifespan, and dependencies are named before. So each of them takes the
# thing, or a function that finds it, such as `lambda request: request.app.state.users`.
Source: TypeAlias = Opened | Callable[[Request], Opened]

# What OpenAPI says of the dependencies; the token is read here, because FastAPI would take the
# first of two.
_SCHEME: Final = HTTPBearer(auto_error=False, bearerFormat="JWT")


def current_identity(verifier: Source[TokenVerifier]) -> Callable[..., Awaitable[Identity]]:
    """Return a dependency: who the token of a request speaks for, from the token alone.

        @app.get("/orders")
        async def orders(me: Annotated[Identity, Depends(current_identity(tokens))]): ...

    A request without a token that verifies is 401, and 503 while there are no keys.

    Args:
        verifier: of tokens, or a function of the request that returns it.
    """

    async def identity(request: Request, _: Annotated[object, Security(_SCHEME)]) -> Identity:
        try:
            return await _opened(verifier, request).verify(_token(request))
        except ResponderError as error:
            _raise(error, request)

    return identity


def current_user(users: Source[UsersClient]) -> Callable[..., Awaitable[User]]:
    """Return a dependency: the user of the token of a request, live from Better Auth's tables.

        @app.get("/orders")
        async def orders(me: Annotated[User, Depends(current_user(users))]): ...

    A request without a token that verifies is 401; a user who is banned now, or exists no more, is
    403; 503 and 504 are as for `UsersClient`.

    Args:
        users: asks the workers, or a function of the request that returns it.
    """

    async def user(request: Request, _: Annotated[object, Security(_SCHEME)]) -> User:
        try:
            caller = _opened(users, request).on_behalf_of(_token(request))
            found = (await caller.whoami()).user
            if found is None:
                raise ForbiddenError("the user of this token exists no more")
            if found.is_banned(datetime.now(UTC)):
                raise ForbiddenError("the user of this token is banned")
        except ResponderError as error:
            _raise(error, request)
        return found

    return user


def _opened(source: Source[Opened], request: Request) -> Opened:
    return source(request) if callable(source) else source


def _token(request: Request) -> str:
    token = bearer.read(request.headers.getlist(bearer.HEADER))
    if token is None:
        raise UnauthenticatedError(bearer.NO_TOKEN)
    return token


def _raise(error: ResponderError, request: Request) -> NoReturn:
    """Raise an error of the contract as HTTP has it."""
    headers: dict[str, str] = {}
    if isinstance(error, UnauthenticatedError | ForbiddenError):
        given = request.headers.getlist(bearer.HEADER)
        headers["WWW-Authenticate"] = bearer.challenge(error, given)
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = "1"
    raise HTTPException(error.number, error.message, headers) from error
