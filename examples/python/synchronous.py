"""Ask for users where nothing awaits, as in a Django view: an event loop in a thread of its own.

pip install better-auth-responder
python synchronous.py
"""

import asyncio
import os
from collections.abc import Coroutine
from functools import cache
from threading import Thread
from typing import Any, TypeVar

import nats

from responder import UsersClient

T = TypeVar("T")


@cache  # at the first call, because neither loop nor connection outlives a fork
def loop() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    Thread(target=made.run_forever, daemon=True).start()
    return made


def wait(answer: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(answer, loop()).result()


@cache
def users() -> UsersClient:
    return UsersClient(wait(nats.connect(os.environ["NATS_URL"])))


if __name__ == "__main__":
    zoe = wait(users().get("KbO8WbOTItGbdi0KY5YfJyfimmurNJra"))  # of the demo
    print(zoe.name, zoe.email, zoe.org_role)
