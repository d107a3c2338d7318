"""Bearer tokens in a request, over NATS or HTTP, and what a client over HTTP is told of them."""

# RFC 6750. A request with a token is made on behalf of its user, and must never be taken for one of
# a service, which sees more. So any other form than exactly one token is an error.

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from responder.errors import ForbiddenError, ResponderError, UnauthenticatedError

HEADER: Final = "Authorization"
NO_TOKEN: Final = "a token is required: Authorization: Bearer <JWT>"  # noqa: S105 - none
_QUOTED = re.compile(r"[^ !#-\[\]-~]")  # not allowed in error_description (RFC 6750, section 3)


def read(values: Sequence[str]) -> str | None:
    """Return the token of a request, None without one (RFC 6750, 2.1).

    Args:
        values: of each Authorization header.

    Raises UnauthenticatedError for any other form.
    """
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    token = token.lstrip(" ")
    # Python takes more for a blank than HTTP does; with one of those this is no token either.
    plain = token.isascii() and " " not in token and "\t" not in token and token == token.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not token or not plain:
        raise UnauthenticatedError("expected exactly one Authorization: Bearer <JWT>")
    return token


def challenge(error: ResponderError, values: Sequence[str]) -> str:
    """Return the WWW-Authenticate header of an error (RFC 6750, 3).

    It says what is wrong with a bearer token. A client that has sent none is told the scheme only.

    Args:
        error: that is answered.
        values: of each Authorization header.
    """
    scheme = 'Bearer realm="users"'
    if not values or values[0].partition(" ")[0].lower() != "bearer":
        return scheme
    code = "insufficient_scope" if isinstance(error, ForbiddenError) else "invalid_token"
    return f'{scheme}, error="{code}", error_description="{_QUOTED.sub("", error.message)}"'
