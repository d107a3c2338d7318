"""Everything that can go wrong, with the code that callers see."""

# ResponderError
# ├── InvalidRequestError     invalid_request    400
# ├── UnauthenticatedError    unauthenticated    401
# ├── ForbiddenError          forbidden          403
# ├── NotFoundError           not_found          404
# ├── PayloadTooLargeError    payload_too_large  413
# ├── InternalError           internal           500
# ├── UnavailableError        unavailable        503
# │   ├── RefusedError        (too much is waiting)
# │   └── SchemaError         (the tables are missing)
# │       └── OperatorError   (only the operator can mend it)
# ├── RequestTimeoutError     timeout            504
# └── NewerError              (a code that a newer worker has, and this version does not)
#
# SettingsError stands apart: it is for the operator, never for a caller.

from __future__ import annotations


class ResponderError(Exception):
    """A failure that callers may see: a code for the program, a message for the person."""

    code: str
    number: int

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(ResponderError):
    """The request breaks the contract; the message names the field."""

    code = "invalid_request"
    number = 400


class UnauthenticatedError(ResponderError):
    """No token where one is required, or one that does not verify."""

    code = "unauthenticated"
    number = 401


class ForbiddenError(ResponderError):
    """The caller is banned now, or has no row any more."""

    code = "forbidden"
    number = 403


class NotFoundError(ResponderError):
    """There is no such user, or none that this caller may see."""

    code = "not_found"
    number = 404


class PayloadTooLargeError(ResponderError):
    """The answer would not fit into one message."""

    code = "payload_too_large"
    number = 413


class InternalError(ResponderError):
    """A bug. The message says only that; the log has the cause."""

    code = "internal"
    number = 500

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


class UnavailableError(ResponderError):
    """Something responder needs is out of reach, or there is too much waiting already."""

    code = "unavailable"
    number = 503


class RefusedError(UnavailableError):
    """There is no room at the moment, for this request and for others of its kind."""


class SchemaError(UnavailableError):
    """Better Auth's tables were not found."""


class OperatorError(SchemaError):
    """Only the operator can say how the tables are to be read; the message names the setting."""


class RequestTimeoutError(ResponderError):
    """Not done within the timeout."""

    code = "timeout"
    number = 504

    def __init__(self, message: str = "not done within the timeout") -> None:
        super().__init__(message)


class NewerError(ResponderError):
    """An error whose code this version does not know, as a newer worker may send one."""

    def __init__(self, message: str, *, code: str, number: int) -> None:
        super().__init__(message)
        self.code = code
        self.number = number


class SettingsError(Exception):
    """What the operator set cannot work; the message says which setting and why."""


BY_CODE: dict[str, type[ResponderError]] = {
    error.code: error
    for error in (
        InvalidRequestError,
        UnauthenticatedError,
        ForbiddenError,
        NotFoundError,
        PayloadTooLargeError,
        InternalError,
        UnavailableError,
        RequestTimeoutError,
    )
}
