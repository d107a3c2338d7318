"""Why PostgreSQL does not let us in, or ends a connection, in words."""

# PostgreSQL's and asyncpg's own words may hold a role, a row or a password, so only the operating
# system's are passed on.

from __future__ import annotations

from typing import Final

from responder.causes import words
from responder.postgres.errors import describe

# By SQLSTATE (PostgreSQL's manual, Appendix A, "PostgreSQL Error Codes").
_REFUSALS: Final = {
    "08003": "the other end has closed it",
    "28P01": "the password is wrong",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "42501": "the role may not connect to the database",
    "53300": "there are too many connections",
    "57P01": "it was told to end it, or to shut down",
    "57P02": "one of its processes has crashed",
    "57P03": "it is starting, stopping or recovering",
    "57P05": "it was idle for longer than idle_session_timeout",
}


def why(error: Exception) -> str:
    """Return in words why a connection was not made, or is lost."""
    # What went wrong may have been brought into a form of ours (see `connection`).
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    refusal = _REFUSALS.get(getattr(cause, "sqlstate", None) or "")
    if refusal:
        return refusal
    return words(cause) if isinstance(cause, OSError) else describe(error)
