"""An issuer's key set, downloaded and kept fresh."""

# Strategy: one task downloads, and no request ever does. It downloads at the start, every few
# minutes, and when a token arrives whose key is not known, because that key may be new. A token
# that its key has not signed is such a token, too: the key may have been replaced under its id.
#
# However many such tokens arrive, there is an interval between downloads. A token waits for the
# first download that begins after the token arrived, because only that one surely has its key. For
# example, a download is under way when a token with a new key arrives: Better Auth may have written
# the answer just before it made the key. So the token waits until that download has ended, the
# interval has passed, and the next download has ended. Then its key is there, or Better Auth does
# not have it; if the download failed, neither is known, and the answer is `unavailable`. So a good
# token is never refused, and a request can wait out the interval.
#
# A download that fails, or that brings something other than a key set, changes nothing: the last
# good key set is kept for as long as it takes. A key that was withdrawn is accepted until the next
# download that succeeds.

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final

import httpx

from responder.causes import words
from responder.errors import ResponderError, UnauthenticatedError, UnavailableError
from responder.tokens import urls
from responder.tokens.key_set import KeySet, UnknownKeyError

log: Final = logging.getLogger(__name__)

REFRESH: Final = 240.0  # seconds from one download that succeeded to the next
INTERVAL: Final = 1.0  # seconds between downloads, at least
MAX_PAUSE: Final = 30.0  # seconds between downloads while they fail, at most
TIMEOUT: Final = 5.0  # seconds that a download may take
MAX_SIZE: Final = 1024 * 1024  # bytes of a key set
MAX_TARGET: Final = 200  # characters that are told of where a redirect leads
HTTP_OK: Final = 200
NO_KEYS: Final = "no keys to verify a token with"
CANNOT_FETCH: Final = f"{NO_KEYS}: the key set cannot be fetched"


class KeySource:
    """Holds the key set of an issuer, and keeps it fresh while its context is open.

    Args:
        location: an http(s) URL, or the path of a file.
        presumed: whether there may be no key set at all, and tokens are accepted without.
        interval: seconds between downloads, at least.
        refresh: seconds from a download that succeeded to the next.
    """

    def __init__(
        self,
        location: str,
        *,
        presumed: bool = False,
        interval: float = INTERVAL,
        refresh: float = REFRESH,
    ) -> None:
        self.key_set: KeySet | None = None
        self.downloads: int = 0
        self.failures: int = 0
        self.problem: str | None = None  # of the last download
        self._succeeded_at = monotonic()
        self._location = location
        self._address = address(location)
        self._presumed = presumed
        self._interval = interval
        self._refresh = refresh
        self._wanted = asyncio.Event()
        # The download that is to begin, and the one under way; each future is done when its
        # download has ended. None where no token waits for it.
        self._next: asyncio.Future[None] | None = None
        self._under_way: asyncio.Future[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KeySource]:
        """Keep the key set fresh; tokens that still wait on leaving are told that it is closed."""
        task = asyncio.create_task(self._keep_fresh(), name="key source")
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
        """Seconds since the last download that succeeded."""
        return monotonic() - self._succeeded_at

    @property
    def expected(self) -> bool:
        """Whether it is a fault if there is no key set; one that was there should stay."""
        return not self._presumed or self.key_set is not None

    def warning(self) -> str | None:
        """Return what went wrong with the last download; None if nothing did, or no fault is."""
        wrong = self.problem if self.expected else None
        return wrong and f"the key set cannot be fetched from {self._address}: {wrong}"

    def newer(self) -> asyncio.Future[None]:
        """Return what is done once the first download that begins after this call has ended.

        All that wait for the same download share it: shield it where a task that awaits it may be
        cancelled. While no key set is known at all, a download that is under way will do.

        Raises UnavailableError if the context is closed.
        """
        if self._closed:
            raise UnavailableError(f"{NO_KEYS}: closed")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        return self._next

    def known(self) -> KeySet:
        """Return the key set; raises UnavailableError without one, or if the context is closed."""
        if self.key_set is None or self._closed:
            raise UnavailableError(CANNOT_FETCH)
        return self.key_set

    def verdict(self, refusal: UnauthenticatedError) -> ResponderError:
        """Return what a token is told for whose key the last download was awaited.

        That Better Auth does not have a key is known from a download that succeeded, and only then:
        to refuse a good token whose key is new would sign its user out.
        """
        if isinstance(refusal, UnknownKeyError) and self.problem is not None:
            return UnavailableError(CANNOT_FETCH)
        return refusal

    async def wait_for_newer(self) -> KeySet:
        """Return the key set that is known after a download that begins after this call.

        Raises UnavailableError if no key set is known then either, or the context is closed.
        """
        await asyncio.shield(self.newer())
        return self.known()

    async def _keep_fresh(self) -> None:
        pause = self._interval
        while True:
            self._wanted.clear()
            waiting, self._next = self._next, None
            self._under_way = waiting
            if self.key_set is None and waiting is None:
                # Without any keys, tokens that arrive during this download wait for this one.
                waiting = self._under_way = self._next = asyncio.get_running_loop().create_future()
            await self._download()
            if waiting is not None:
                if self._next is waiting:
                    self._next = None
                waiting.set_result(None)
            await asyncio.sleep(self._interval)
            failed = self.problem is not None
            pause = min(2 * pause, MAX_PAUSE) if failed else self._interval
            jitter = 1 - 0.1 * random.random()  # noqa: S311 - no secret
            rest = (pause if failed else self._refresh) * jitter
            with suppress(TimeoutError):
                async with asyncio.timeout(max(rest - self._interval, 0)):
                    await self._wanted.wait()

    async def _download(self) -> None:
        self.downloads += 1
        try:
            key_set = self._parse(await download(self._location))
        except Exception as error:  # noqa: BLE001 - after any failure the last keys still serve
            self.failures += 1
            problem = describe(error)
            if not self.expected:
                if self.problem is None:
                    log.info(
                        "only tokens of the shared secret are accepted: no key set at %s: %s",
                        self._address,
                        problem,
                    )
            elif self.problem != problem:
                log.warning("the key set cannot be fetched from %s: %s", self._address, problem)
            self.problem = problem
            return
        if self.problem is not None:
            log.info("fetched the key set again")
        self.problem, self._succeeded_at = None, monotonic()
        if key_set != self.key_set:
            # An equal one is not taken, because verified tokens are remembered with the object.
            self.key_set = key_set

    def _parse(self, document: bytes) -> KeySet:
        # A flood of tokens has the key set downloaded every second, mostly as it was.
        if self.key_set is not None and self.key_set.document == document:
            return self.key_set
        return KeySet(document)


async def download(location: str) -> bytes:
    """Return the document at a URL or in a file, within TIMEOUT seconds and MAX_SIZE bytes.

    Raises OSError or httpx.HTTPError, and ValueError for another status than 200, for a document
    that is too large, or for one that is compressed in a way that is not understood.
    """
    async with asyncio.timeout(TIMEOUT):
        if not urls.is_http(location):
            return _bounded(await asyncio.to_thread(_file_content, location))
        async with (
            httpx.AsyncClient(verify=_trust(), timeout=TIMEOUT, event_hooks=_HOOKS) as client,
            client.stream("GET", location, headers=_headers()) as response,
        ):
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_SIZE:
                    break
            return _decompressed(_bounded(bytes(body)), response.headers)


def address(location: str) -> str:
    """Return where a key set is, as it may be told: without a user, a password or a query.

    >>> address("https://u:secret@app.example.com/jwks?key=secret")
    'https://app.example.com/jwks'
    """
    if not urls.is_http(location):
        return location
    try:
        url = urls.parse_http(location)
    except ValueError:
        return "its URL"
    return f"{url.origin}{url.pathname}"


def describe(error: Exception) -> str:
    """Return what went wrong with a download, without the address, which may hold a password."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return _cause(error) or type(error).__name__
    if isinstance(error, OSError):
        return words(error)
    return str(error) if isinstance(error, ValueError) else type(error).__name__


def _cause(error: BaseException | None) -> str | None:
    """Return what the system says of a connection that has failed; None if it has said nothing."""
    said = None
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return words(error)
        if isinstance(error, OSError) and error.errno:
            said = words(error)
        error = error.__cause__ or error.__context__
    return said


@cache
def _headers() -> dict[str, str]:
    # Compression is refused; some proxies compress all the same, and one way is understood.
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"better-auth-responder/{version('better-auth-responder')}",
    }


@cache
def _trust() -> ssl.SSLContext:
    """Return the certificates that the machine trusts; reading them takes a while."""
    return ssl.create_default_context()


def _file_content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_SIZE + 1)


async def _refuse_status(response: httpx.Response) -> None:
    """Raise ValueError for another status than 200.

    It is a hook, because the client looks at where a redirect leads even if it is not to follow it,
    and may raise an error that does not name the redirect.
    """
    if response.status_code != HTTP_OK:
        raise ValueError(f"HTTP status {response.status_code}{_redirect(response)}")


_HOOKS: Final = {"response": [_refuse_status]}


def _redirect(response: httpx.Response) -> str:
    """Return what is told of a redirect: that it is one, and where it leads.

    It is not followed: who may publish the keys is for the operator to say. A user, a password and
    a query are not shown, because they may be secret; of a target on the same host the path is
    enough.
    """
    if not response.has_redirect_location:
        return ""
    target = ""
    with suppress(ValueError):
        source = urls.parse_http(str(response.url))
        url = urls.parse_http(response.headers["Location"], base=source.href)
        host = "" if url.origin == source.origin else url.origin
        target = f" to {host}{url.pathname}"[:MAX_TARGET]
    return f", a redirect{target}, to be set as RESPONDER_JWKS_URL"


def _decompressed(body: bytes, headers: httpx.Headers) -> bytes:
    """Return a body without its compression, within MAX_SIZE bytes: few can become many."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise ValueError("compressed, though that was refused")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip's header and checksum (RFC 1952)
    try:
        document = _bounded(inflate.decompress(body, MAX_SIZE + 1))
    except zlib.error:
        raise ValueError("compressed, and damaged") from None
    if not inflate.eof:
        raise ValueError("compressed, and cut off")
    return document


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_SIZE:
        raise ValueError(f"more than {MAX_SIZE} bytes")
    return body
