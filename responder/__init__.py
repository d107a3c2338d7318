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
from responder.models import User, UserBatch, UserPage

__all__ = [
    "ForbiddenError",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "PayloadTooLargeError",
    "RequestTimeoutError",
    "ResponderError",
    "UnauthenticatedError",
    "UnavailableError",
    "User",
    "UserBatch",
    "UserPage",
    "UsersClient",
]
