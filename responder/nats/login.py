"""nats-py's client, with the one login on every server, and words for what keeps it from one."""

# A login stands in variables or in a URL. nats-py sends that of a URL as it is written there, with
# its %40, and only to the server of that URL; the others of a cluster, of which it hears from the
# first, get none. Here it is decoded, and is that of each server whose URL has none of its own.
#
# Why a server refuses is said in its own words, where these are known words: others may be secret.
#
# Many clients lose a server at the same moment. So that they do not come back at the same moment,
# again and again, the pause between two attempts is random. An attempt that has hung for long has
# been a pause itself: then the next one follows soon, because the network may be well again.

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Client, Srv

from responder.causes import words
from responder.terminal import visible

PORT: Final = 4222  # where a URL has none
MIN_PAUSE, MAX_PAUSE = 0.2, 1.0  # seconds between two attempts to reach the same server

# What a server refuses a client with (nats-server's errors.go), in lower case.
_REFUSALS: Final = {
    each.lower(): each
    for each in (
        "Authorization Violation",
        "Authentication Timeout",
        "User Authentication Expired",
        "User Authentication Revoked",
        "Account Authentication Expired",
        "Maximum Connections Exceeded",
        "Maximum Account Active Connections Exceeded",
        "Secure Connection - TLS Required",
        "Server Shutdown",
    )
}
_KEYS: Final = ("user_credentials", "nkeys_seed", "nkeys_seed_str", "user_jwt_cb", "signature_cb")

# The options of nats-py that are a login, and the variables that they are from.
_VARIABLES: Final = {
    "user_credentials": "NATS_CREDS",
    "nkeys_seed": "NATS_NKEY",
    "user": "NATS_USER and NATS_PASSWORD",
    "token": "NATS_TOKEN",
}


class LoginClient(Client):
    """A client of nats-py that knows where it logs in, and with what."""

    def __init__(self) -> None:
        super().__init__()
        self._login: dict[str, Any] = {}
        self._tried: Srv | None = None
        self._tried_at = 0.0
        self._ended_by = ""

    async def connect(  # type: ignore[override]  # what follows is by name here
        self, servers: str | Sequence[str], **options: Any
    ) -> None:
        """Connect as nats-py does."""
        urls = [servers] if isinstance(servers, str) else list(servers)
        logins = [login for each in urls if (login := _login_of(urlsplit(each)))]
        if logins and not any(map(options.get, (*_KEYS, "user", "token"))):
            self._login = logins[0]
        options.setdefault("reconnect_time_wait", MAX_PAUSE)
        await super().connect(urls, **options)

    @property
    def address(self) -> str:
        """Host and port of the server that was tried last."""
        tried = self._tried or (self._server_pool[-1] if self._server_pool else None)
        uri = tried.uri if tried else None
        return visible(f"{uri.hostname}:{uri.port or PORT}") if uri else "no address"

    @property
    def ended_by(self) -> str:
        """What the server has said as it ended the last connection, after a colon; or nothing."""
        return f": {self._ended_by}" if self._ended_by else ""

    async def _process_op_err(self, e: Exception) -> None:
        """Note what the server has said of the end of a connection."""
        if self.is_connected:
            self._ended_by = _known(e)
        await super()._process_op_err(e)

    async def _select_next_server(self) -> None:
        """Wait only for a moment after an attempt that has taken long."""
        if not hasattr(Client, "_connect_to_server"):  # before 2.14: a pause for all attempts
            pause = random.uniform(MIN_PAUSE, MAX_PAUSE)  # noqa: S311 - as below
            self.options["reconnect_time_wait"] = pause
        elif time.monotonic() - self._tried_at > MAX_PAUSE:
            pause = random.uniform(0, MIN_PAUSE)  # noqa: S311 - as below
            self.options["reconnect_time_wait"] = pause
        await super()._select_next_server()

    async def _connect_to_server(self, s: Srv) -> None:
        """Note what is tried, and how long to wait until it is tried again."""
        self._tried, self._tried_at, self._ended_by = s, time.monotonic(), ""
        pause = random.uniform(MIN_PAUSE, MAX_PAUSE)  # noqa: S311 - jitter is no secret
        self.options["reconnect_time_wait"] = pause
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        """Return CONNECT, with the login for this server."""
        if self._login:
            server = self._current_server
            login = (_login_of(server.uri) if server else {}) or self._login
            self.options.update({"user": None, "password": None, "token": None, **login})
        return super()._connect_command()


def _login_of(url: Any) -> dict[str, str]:
    """Return the login in a URL, as options of nats-py: a name alone is a token."""
    if not url.username:
        return {}
    if url.password is None:
        return {"token": unquote(url.username)}
    return {"user": unquote(url.username), "password": unquote(url.password)}


def variables_of(options: Mapping[str, Any], servers: Sequence[str]) -> str:
    """Return the names of the variables that a login is from, or "" if there is none."""
    found = [name for option, name in _VARIABLES.items() if options.get(option)]
    if found:
        return found[0]
    return "NATS_URL" if any(urlsplit(each).username for each in servers) else ""


def why(error: Exception, *, address: str, login: str) -> str:
    """Return in words why a server was not reached, or does not let us in.

    Args:
        error: of nats-py or of the operating system.
        address: host and port of the server.
        login: the variables that the login is from.
    """
    refusal = _known(error)
    if refusal:
        tried = f"the login of {login}" if login else "us, who have no login"
        tried = tried if not refusal.endswith("Exceeded") else "us"
        return f"NATS at {address} refuses {tried}: {refusal}"
    return f"NATS is out of reach: {address}: {_cause(error)}"


def _known(error: Exception) -> str:
    """Return the words of a server that ends or refuses a connection, or "" for any other."""
    said = str(error).removeprefix("nats:").strip().strip("'").lower()
    return _REFUSALS.get(said, "")


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return words(error)
    if isinstance(error, errors.StaleConnectionError):
        return "the connection has ended"
    if type(error) is errors.Error:
        return "it does not answer as a NATS server does"
    return type(error.__cause__ or error).__name__
