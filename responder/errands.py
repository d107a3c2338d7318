"""Coroutines that need no task: each goes on in the call that brings what it waits for."""

# A task is begun, and woken, by the loop in its next turn: for a lone request each costs a system
# call, and an object or two. An errand is begun at once. What it waits for is a future, as with a
# task; where that is Prompt, the errand goes on in the very call that settles it. Any other future,
# such as that of a lock or of a pause, wakes it as it would a task.
#
# An errand is no task, so that it must not use what asks for one: `asyncio.timeout`, for example.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

log: Final = logging.getLogger(__name__)

Result = TypeVar("Result")
# Called once a coroutine has ended, with what it has returned, or raised.
Ended: TypeAlias = Callable[[Any, BaseException | None], None]


class Errand:
    """Runs a coroutine, and another once it has ended."""

    _coroutine: Coroutine[Any, Any, Any] | None = None
    _ended: Ended | None = None
    _awaited: asyncio.Future[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any], ended: Ended | None = None) -> None:
        """Run a coroutine: now, as far as it gets, and on whenever what it waits for is there."""
        self._coroutine, self._ended = coroutine, ended
        self._step(coroutine.send, None)

    def go_on(self, future: asyncio.Future[Any] | None) -> None:
        """Go on, if it is this future that was waited for."""
        if self._coroutine is not None and future is self._awaited:
            self._step(self._coroutine.send, None)

    def cancel(self) -> None:
        """Raise CancelledError where the coroutine waits."""
        if self._coroutine is not None:
            self._step(self._coroutine.throw, asyncio.CancelledError())

    def stop(self) -> None:
        """Let the coroutine end where it waits; `ended` is not called."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is None:
            return
        try:
            coroutine.close()
        except Exception:
            log.exception("what was stopped did not end well")

    def _step(self, step: Callable[[Any], Any], value: object) -> None:
        result, error = None, None
        try:
            self._awaited = future = step(value)
        except StopIteration as stopped:
            result = stopped.value
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - it is passed on
            error = raised
        else:
            self._wait(future)
            return
        self._coroutine = self._awaited = None
        if self._ended is not None:
            self._ended(result, error)

    def _wait(self, future: Any) -> None:
        """Have `go_on` called once a future is done."""
        if isinstance(future, Prompt):
            future.errand = self
        elif future is None:  # it wants another turn of the loop
            asyncio.get_running_loop().call_soon(self.go_on, None)
        else:
            future.add_done_callback(self.go_on)


class Prompt(asyncio.Future[Result]):
    """A future; the errand that waits for it goes on at once."""

    errand: Errand | None = None

    def settle(self, result: Result | BaseException) -> None:
        """Set its result, or what it raises, unless it has one."""
        if self.done():
            return
        if isinstance(result, BaseException):
            self.set_exception(result)
        else:
            self.set_result(result)
        if self.errand is not None:
            self.errand.go_on(self)
