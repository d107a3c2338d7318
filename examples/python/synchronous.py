"""Ask for users where nothing awaits, as in a Django view: an event loop in a thread of its own.

pip install better-auth-responder
python synchronous.py
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import cache
from threading import Lock, Thread
from typing import Any, TypeVar

import nats

from responder import UsersClient

T = TypeVar("T")
opening = Lock()  # the first calls may come from several threads at once


@cache  # at the first call, because neither a thread nor a connection outlives a fork
def opened() -> tuple[asyncio.AbstractEventLoop, UsersClient]:
    loop = asyncio.new_event_loop()
    users = UsersClient(loop.run_until_complete(nats.connect(os.environ["NATS_URL"])))
    Thread(target=loop.run_forever, daemon=True).start()
    return loop, users


def ask(question: Callable[[UsersClient], Coroutine[Any, Any, T]]) -> T:
    with opening:
        loop, users = opened()
    return asyncio.run_coroutine_threadsafe(question(users), loop).result()


if __name__ == "__main__":
    zoe = ask(lambda users: users.get("KbO8WbOTItGbdi0KY5YfJyfimmurNJra"))  # of the demo
    print(zoe.name, zoe.email, zoe.org_role)
