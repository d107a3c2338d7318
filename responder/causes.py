"""What the operating system says of a connection that has failed, in words for an operator."""

# `str(error)` and `error.strerror` do not serve: some of these errors have no words, TLS has the
# number of another error ("Operation not permitted"), a resolver's numbers are no system's
# ("Unknown error -2"), and asyncio's words are lists of addresses.

from __future__ import annotations

import os
import ssl


def words(error: OSError) -> str:
    """Return why a connection has failed, without addresses; never empty.

    >>> words(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 4222)"))
    'Connection refused'
    """
    # What Python raises by itself, as at the end of a connection, has neither attribute.
    if isinstance(error, ssl.SSLCertVerificationError):
        said = getattr(error, "verify_message", None)
        return f"its certificate is not accepted: {said}" if said else "TLS: no valid certificate"
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "reason", None)
        return f"TLS: {said.lower().replace('_', ' ') if said else 'it fails'}"
    if isinstance(error, TimeoutError):
        return "no answer"
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    if str(error).startswith("Multiple exceptions"):  # asyncio's, of a name with several addresses
        return "none of its addresses takes a connection"
    return error.strerror or str(error) or "the connection has ended"
