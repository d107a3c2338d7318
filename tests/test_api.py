"""The Python API: what can be imported, and what comes with it."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import responder


def test_the_public_names_are_these():
    """`__all__` is the promise: the client, the models, and the errors of subjects.md, Errors."""
    assert {
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
    } == set(responder.__all__)
    assert all(hasattr(responder, name) for name in responder.__all__)


def test_it_is_typed():
    """Type checkers of other projects see the annotations."""
    assert files("responder").joinpath("py.typed").is_file()


def test_a_client_brings_no_database_driver():
    """Importing responder imports neither asyncpg nor a web server."""
    code = "import responder, sys; print({'asyncpg', 'uvicorn', 'starlette'} & set(sys.modules))"

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert "set()\n" == printed
