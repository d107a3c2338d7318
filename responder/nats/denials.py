"""The subjects to which a NATS server does not let us subscribe, asked for until it does."""

# Permissions are changed under running services. A server that takes one away ends the subscription
# and says so, but that it is given back it does not say: the subscription has to be asked for.

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Final

from nats import errors

from responder.terminal import visible
from responder.throttling import ThrottledLog

repeated: Final = ThrottledLog(__name__)

PAUSE: Final = 5.0  # seconds until what is denied is asked for again
_SUBSCRIPTION: Final = re.compile(r'subscription to "([^"]*)"')


class Denials:
    """What the server of this connection denies.

    Args:
        ask: subscribes to some subjects once more, and returns when the server has answered.

    Attributes:
        subjects: in lower case.
    """

    def __init__(self, ask: Callable[[Container[str]], Awaitable[None]]) -> None:
        self.subjects: set[str] = set()
        self._ask = ask
        self._latest: set[str] = set()  # those denied since they were asked for
        self._asking: asyncio.Task[None] | None = None

    def add(self, violation: str) -> None:
        """Note what a server has said, in lower case, of a subscription that it denies."""
        found = _SUBSCRIPTION.search(violation)
        subject = found[1] if found else ""
        self._latest.add(subject)
        if subject in self.subjects:
            return
        self.subjects.add(subject)
        shown = visible(subject)
        repeated.error("NATS does not permit to subscribe to %s", shown, kind=subject)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_again(), name="nats-denials")

    def forget(self) -> None:
        """Forget what is denied: it was another server, or another connection to it."""
        self.stop()
        self.subjects.clear()

    def stop(self) -> None:
        """Ask for nothing, because subscriptions are about to end, or have ended."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _ask_again(self) -> None:
        while self.subjects:
            await asyncio.sleep(PAUSE)
            self._latest.clear()
            with suppress(errors.Error, OSError):  # the next connection asks for all
                await self._ask(self.subjects)
                permitted = self.subjects - self._latest
                self.subjects -= permitted
                for each in permitted:
                    repeated.info("NATS permits to subscribe to %s", visible(each), kind=each)
        self._asking = None
