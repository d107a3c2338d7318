"""Better Auth's key set, fetched and kept fresh."""

# Strategy: one task fetches, and nobody else: at the start, ahead of the time at which a key could be
# missed, and when somebody has a token whose key is not known, which may be new. However many ask for
# that, fetches are an interval apart, and everyone waits for the first that began after they asked: it
# has every key that had signed anything by then, so that a good token is never refused. The interval is
# short enough to be waited out.
#
# What cannot be fetched, or is no key set, changes nothing: the last good one is kept for as long as it
# takes. A key that was withdrawn is known until the next good fetch.

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Final

import httpx

from responder.errors import UnavailableError
from responder.tokens.identity import KeySet

log = logging.getLogger(__name__)

REFRESH: Final = 240.0  # seconds after a good fetch
INTERVAL: Final = 1.0  # seconds between fetches, at least
MAX_PAUSE: Final = 30.0  # seconds between fetches that fail
TIMEOUT: Final = 5.0  # seconds that a fetch may take
MAX_SIZE: Final = 1024 * 1024  # bytes
HTTP_OK: Final = 200


class Keys:
    """The key set of an issuer, while its context is open.

    Args:
        source: an http(s) URL, or the path of a file.
        interval: seconds between fetches, at least.
        refresh: seconds after which a good key set is fetched again.
    """

    def __init__(
        self, source: str, *, interval: float = INTERVAL, refresh: float = REFRESH
    ) -> None:
        self.known: KeySet | None = None
        self.fetches = 0
        self.failures = 0
        self.problem: str | None = None  # of the last fetch
        self._fetched_at = monotonic()  # the last good one
        self._source = source
        self._interval = interval
        self._refresh = refresh
        self._wanted = asyncio.Event()
        # Each is done when its fetch has ended: the one that is to begin, and the one that has begun.
        self._next: asyncio.Future[None] | None = None
        self._under_way: asyncio.Future[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Keys]:
        """Keep the key set fresh."""
        task = asyncio.create_task(self._keep(), name="keys")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._closed = True
            for waiting in (self._under_way, self._next):
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)

    @property
    def age(self) -> float:
        """Seconds since the key set was last fetched well."""
        return monotonic() - self._fetched_at

    def warn(self) -> str | None:
        """Say what is wrong with the last fetch, if anything is."""
        return self.problem and f"the key set cannot be fetched: {self.problem}"

    async def renewed(self) -> KeySet:
        """Return what a fetch that begins after now leaves; raises UnavailableError if nothing is known.

        Without anything known, a fetch under way will do.
        """
        if self._closed:
            raise UnavailableError("no keys to verify a token with: closed")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        await asyncio.shield(self._next)
        if self.known is None or self._closed:
            raise UnavailableError("no keys to verify a token with: the key set cannot be fetched")
        return self.known

    async def _keep(self) -> None:
        pause = self._interval
        while True:
            self._wanted.clear()
            waiting, self._next = self._next, None
            self._under_way = waiting
            if self.known is None and waiting is None:
                # Whoever comes meanwhile wants just this fetch.
                waiting = self._under_way = self._next = asyncio.get_running_loop().create_future()
            await self._fetch()
            if waiting is not None:
                if self._next is waiting:
                    self._next = None
                waiting.set_result(None)
            await asyncio.sleep(self._interval)
            failed = self.problem is not None
            pause = min(2 * pause, MAX_PAUSE) if failed else self._interval
            rest = (pause if failed else self._refresh) * (1 - 0.1 * random.random())  # noqa: S311 - jitter
            with suppress(TimeoutError):
                async with asyncio.timeout(max(rest - self._interval, 0)):
                    await self._wanted.wait()

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            known = KeySet(await read(self._source))
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys we have still serve
            self.failures += 1
            problem = describe(error)
            if self.problem != problem:
                log.warning("the key set cannot be fetched: %s", problem)
            self.problem = problem
            return
        if self.problem is not None:
            log.info("fetched the key set again")
        self.problem, self._fetched_at = None, monotonic()
        if known != self.known:
            self.known = known


async def read(source: str) -> bytes:
    """Return the document at a URL or in a file, within TIMEOUT seconds and MAX_SIZE bytes.

    Raises OSError, httpx.HTTPError, or ValueError for an answer that is not one.
    """
    async with asyncio.timeout(TIMEOUT):
        if not source.startswith(("http://", "https://")):
            return _bounded(await asyncio.to_thread(_read_file, source))
        async with (
            httpx.AsyncClient(verify=_trust(), follow_redirects=False, timeout=TIMEOUT) as client,
            client.stream("GET", source, headers=_ASKED) as response,
        ):
            if response.status_code != HTTP_OK:
                raise ValueError(f"HTTP status {response.status_code}")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_SIZE:
                    break
            return _bounded(bytes(body))


# Not compressed: a few bytes could become many at once.
_ASKED: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


def describe(error: Exception) -> str:
    """Say what went wrong, without addresses, which may hold a password."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return type(error).__name__
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, ValueError) else type(error).__name__


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that everything else on the machine trusts; reading them takes a while."""
    return ssl.create_default_context()


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_SIZE + 1)


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_SIZE:
        raise ValueError(f"more than {MAX_SIZE} bytes")
    return body
