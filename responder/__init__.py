"""Every program in a company reads its Better Auth users: live, typed, fast."""

from responder.client import UsersClient
from responder.errors import (
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ResponderError,
    UnauthenticatedError,
    UnavailableError,
)
from responder.models import Identity, User, UserBatch, UserPage, WhoAmI
from responder.tokens.verifier import TokenVerifier

__all__ = [
    "ForbiddenError",
    "Identity",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "PayloadTooLargeError",
    "RequestTimeoutError",
    "ResponderError",
    "TokenVerifier",
    "UnauthenticatedError",
    "UnavailableError",
    "User",
    "UserBatch",
    "UserPage",
    "UsersClient",
    "WhoAmI",
]
