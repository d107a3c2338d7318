"""Every program in a company reads its Better Auth users: live, typed, fast."""

# Each name is imported when it is first asked for: the program begins in this package, too, and has
# to mind signals before it reads 0.3 s of modules (see `start`). That of `typing` takes as long as
# all else until then.

TYPE_CHECKING = False  # as type checkers know it without `typing`

if TYPE_CHECKING:
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
    from responder.models import (
        Identity,
        Membership,
        MembershipPage,
        User,
        UserBatch,
        UserPage,
        WhoAmI,
    )
    from responder.tokens.verifier import TokenVerifier

__all__ = [
    "ForbiddenError",
    "Identity",
    "InternalError",
    "InvalidRequestError",
    "Membership",
    "MembershipPage",
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

_PLACES = ("errors", "models", "client", "tokens.verifier")


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module  # noqa: PLC0415 - see above

        for place in _PLACES:
            module = import_module(f"responder.{place}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
