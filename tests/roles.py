"""Connection strings for roles that a test makes."""

from __future__ import annotations

from urllib.parse import quote, urlsplit


def as_role(url: str, role: str) -> str:
    """Return the connection string of a database for a role that logs in without a password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(role, safe='')}@{place}").geturl()
