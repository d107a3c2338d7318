"""The certificate authorities that a connection to PostgreSQL trusts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit


def trusting_the_system(tls: str) -> ssl.SSLContext | None:
    """Verify as libpq does with `sslrootcert=system`; None leaves it to asyncpg.

    libpq and asyncpg look for `~/.postgresql/root.crt` and refuse to go without. The application's
    own driver does not: node-postgres trusts the authorities that the system trusts.
    """
    parameters = dict(parse_qsl(urlsplit(tls).query))
    if "PGSSLROOTCERT" in os.environ or Path("~/.postgresql/root.crt").expanduser().exists():
        return None
    context = ssl.create_default_context()
    if "sslcrl" in parameters:
        context.load_verify_locations(parameters["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.check_hostname = parameters["sslmode"] == "verify-full"
    if "sslcert" in parameters:
        password = parameters.get("sslpassword", "")
        context.load_cert_chain(parameters["sslcert"], parameters.get("sslkey"), lambda: password)
    return context
