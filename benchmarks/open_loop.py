"""Send requests at a rate, whatever is answered: callers in a process of their own."""

# In a closed loop nothing is asked while the answers are late, so that no overload shows. Here what
# is due is sent every TICK. What leaves late because this process has too much to do still counts
# from when it was sent, and the rate that was reached is told.
#
# To read each answer would take as long as a worker needs for it. So in what is read at once they
# are counted, by what each holds once, and the first value and the first error are looked at: their
# latencies stand for all that came with them.

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import re
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import uvloop
from figures import quantile

TICK = 0.005  # seconds
AT_ONCE = 16  # connections that send in a tick: more writes would take more of the NATS server
IN_TIME = 2.0  # seconds
LAST = 4.0  # seconds for the last answers
SLOW = 0.1  # seconds: slower than this is not normal
KEPT = 128  # bytes: no mark is longer
VALUE = re.compile(rb"(?:^|\r\n)MSG _INBOX\.\w+\.\w+\.(\d+) 1 \d+\r\n")
ERROR = re.compile(rb"\r\nHMSG _INBOX\.\w+\.\w+\.(\d+) 1 ")
CODE = b"Nats-Service-Error-Code: "
CODES = (503, 400, 401, 504, 403, 404, 413, 500)  # those of floods first
MARKS = {number: CODE + b"%d" % number for number in CODES}


class Streams:
    """The requests of all connections of this process, and what became of them."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.sent = array("d")  # by the number of the request
        self.good, self.refused = array("d"), array("d")  # latencies
        self.errors: Counter[int] = Counter()
        self.late = 0
        self.last_slow = 0.0  # when a request was last sent whose answer was not normal
        self.mark = request["mark"].encode()  # which each value holds once
        self.requests = [
            self.request_of(*(each.encode() for each in both))
            for both in zip(request["headers"], request["payloads"], strict=True)
        ]

    @staticmethod
    def request_of(headers: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Return the verb of a request, and what comes after its reply subject."""
        size = len(headers) + len(payload)
        if not headers:
            return b"PUB", b"%d\r\n%b\r\n" % (size, payload)
        return b"HPUB", b"%d %d\r\n%b%b\r\n" % (len(headers), size, headers, payload)

    def answers(self, number: int, count: int, now: float) -> None:
        """Take values, one of which is the answer to that request."""
        latency = now - self.sent[number]
        if latency > IN_TIME:
            self.late += count
        else:
            self.good.extend(itertools.repeat(latency, count))
        if latency > SLOW:
            self.last_slow = max(self.last_slow, self.sent[number])

    def refusals(self, number: int, counts: dict[int, int], now: float) -> None:
        """Take errors by their numbers, likewise."""
        self.errors.update(counts)
        self.refused.extend(itertools.repeat(now - self.sent[number], sum(counts.values())))
        self.last_slow = max(self.last_slow, self.sent[number])

    def messages(self, count: int, inbox: bytes) -> Iterator[bytes]:
        """Write requests; each has the next number."""
        subject, requests = self.request["subject"].encode(), self.requests
        first = len(self.sent)
        for number in range(first, first + count):
            verb, rest = requests[number % len(requests)]
            yield b"%b %b %b.%d %b" % (verb, subject, inbox, number, rest)

    def report(self, seconds: float) -> dict[str, Any]:
        """Return what became of them."""
        answered = len(self.good) + len(self.refused) + self.late
        return {
            "offered": len(self.sent) / seconds,
            "good": len(self.good) / seconds,
            "sent": len(self.sent),
            "answered_good": len(self.good),
            "errors": dict(self.errors),
            "late": self.late,
            "lost": len(self.sent) - answered,
            "good_p99": quantile(sorted(self.good), 0.99) if self.good else None,
            "good_max": max(self.good, default=0) * 1e3,
            "refused_p99": quantile(sorted(self.refused), 0.99) if self.refused else None,
            "last_slow": self.last_slow,
        }


class Stream(asyncio.Protocol):
    """A connection to the NATS server."""

    _transport: Any = None

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._inbox = b"_INBOX.load.%x" % random.getrandbits(64)
        self._rest = b""  # too little to hold a mark
        self._value = self._error = 0  # the requests last seen answered so
        self._errors = 0  # of which the number has not been seen yet

    def connection_made(self, transport: Any) -> None:
        """Subscribe to the answers."""
        self._transport = transport
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        transport.write(b"CONNECT %b\r\nSUB %b.* 1\r\n" % (options.encode(), self._inbox))

    def send(self, count: int) -> None:
        """Send so many requests."""
        streams = self._streams
        data = b"".join(streams.messages(count, self._inbox))
        streams.sent.extend(itertools.repeat(time.time(), count))
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Take the answers."""
        now, streams = time.time(), self._streams
        if data.startswith(b"PING") or b"PING\r\n" in data[-8:]:
            self._transport.write(b"PONG\r\n")
        counted, both = self._rest, self._rest + data
        self._rest = both[-KEPT:]

        def new(mark: bytes) -> int:
            return both.count(mark) - counted.count(mark)

        if values := new(streams.mark):
            if found := VALUE.search(both):
                self._value = int(found[1])
            streams.answers(self._value, values, now)
        self._errors += new(CODE)
        counts: dict[int, int] = {}
        for number, mark in MARKS.items():
            if not self._errors:  # to look for the others would take time
                break
            if count := new(mark):
                counts[number] = count
                self._errors -= count
        if counts:
            if found := ERROR.search(both):
                self._error = int(found[1])
            streams.refusals(self._error, counts, now)


async def main(request: dict[str, Any]) -> None:
    """Send for some seconds, at a rate, over some connections; print what became of it."""
    url = urlsplit(request["url"])
    loop = asyncio.get_running_loop()
    streams = Streams(request)
    made = [
        await loop.create_connection(lambda: Stream(streams), url.hostname or "", url.port or 0)
        for _ in range(request["connections"])
    ]
    await asyncio.sleep(0.2)
    gc.disable()
    turns = itertools.cycle(stream for _, stream in made)
    await asyncio.sleep(max(request["begin"] - time.time(), 0))
    began, sent = time.time(), 0
    while (passed := time.time() - began) < request["seconds"]:
        due = int(passed * request["rate"]) - sent
        shares = min(len(made), due, AT_ONCE)
        for part in range(shares):
            next(turns).send(due // shares + (part < due % shares))
        sent += max(due, 0)
        await asyncio.sleep(TICK)
    seconds = time.time() - began
    await asyncio.sleep(LAST)
    print(json.dumps(streams.report(seconds)))


if __name__ == "__main__":
    uvloop.run(main(json.load(sys.stdin)))
