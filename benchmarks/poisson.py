"""Send requests at random moments, so many a second, whatever is answered: a process of its own."""

# An event loop's timers count in milliseconds, and what came due together would leave together. So
# this is a plain loop that waits for the next moment or for answers, whichever comes first. A
# latency counts from the moment at which the request was due. The last answers are waited for.

from __future__ import annotations

import json
import random
import re
import select
import socket
import sys
import time
from collections import Counter, defaultdict
from typing import Any
from urllib.parse import urlsplit

from figures import quantile

WARM_UP = 0.5  # seconds
PATIENCE = 4.0  # seconds
READ = 2**18
CODE = re.compile(rb"Nats-Service-Error-Code: (\d+)")


class Stream:
    """The requests of a connection, and what became of them."""

    def __init__(self, request: dict[str, Any]) -> None:
        url = urlsplit(request["url"])
        self._socket = socket.create_connection((url.hostname, url.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = b"_INBOX.load%x." % random.getrandbits(64)
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        self._socket.sendall(b"CONNECT %b\r\nSUB %b* 1\r\n" % (options.encode(), self._inbox))
        self._head = b"PUB %b %b" % (request["subject"].encode(), self._inbox)
        self._payloads = [each.encode() for each in request["payloads"]]
        self._label = re.compile(request.get("label", r'^\{"id":').encode())
        self._tries = request.get("tries", 1)
        self._due: list[float] = []  # by number
        self._tried: Counter[int] = Counter()
        self._rest = b""
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.again = 0
        self.waiting = 0

    def send(self, due: list[float]) -> None:
        """Send requests that were due at these times."""
        first = len(self._due)
        self._due += due
        self.waiting += len(due)
        self._socket.sendall(b"".join(map(self._message, range(first, len(self._due)))))

    def _message(self, number: int) -> bytes:
        payload = self._payloads[number % len(self._payloads)]
        return b"%b%d %d\r\n%b\r\n" % (self._head, number, len(payload), payload)

    def wait(self, seconds: float) -> bool:
        """Wait for answers, and tell whether there are any."""
        return bool(select.select([self._socket], [], [], max(seconds, 0.0))[0])

    def take(self, counted: float) -> None:
        """Read answers; only those of requests that were due since then count."""
        data, now, at = self._rest + self._socket.recv(READ), time.perf_counter(), 0
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                stop = end + 2 + int(words[-1])
                if len(data) < stop + 2:
                    break
                number = int(words[1][len(self._inbox) :])
                self._answer(number, data[end + 2 : stop], now, counted)
                at = stop + 2
                continue
            if line == b"PING":
                self._socket.sendall(b"PONG\r\n")
            at = end + 2
        self._rest = data[at:]

    def _answer(self, number: int, answer: bytes, now: float, counted: float) -> None:
        if found := self._label.search(answer):
            label = found[1].decode() if found.groups() else "value"
            if self._due[number] >= counted:
                self.latencies[label].append(now - self._due[number])
        else:
            self._tried[number] += 1
            if self._tried[number] < self._tries:
                self.again += 1
                self._socket.sendall(self._message(number))
                return
            code = CODE.search(answer)
            self.errors[code[1].decode() if code else "no worker"] += 1
        self.waiting -= 1


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Send for some seconds at a rate; return what became of it."""
    stream, chance = Stream(request), random.Random()
    due = begin = time.perf_counter() + 0.1
    counted, over = begin + WARM_UP, begin + WARM_UP + request["seconds"]
    sent = 0
    while due < over or (stream.waiting and time.perf_counter() < over + PATIENCE):
        now, batch = time.perf_counter(), []
        while due <= min(now, over):
            batch.append(due)
            due += chance.expovariate(request["rate"])
        if batch:
            stream.send(batch)
            sent += sum(each >= counted for each in batch)
        if stream.wait((due if due < over else over + PATIENCE) - time.perf_counter()):
            stream.take(counted)
    every = sorted(each for values in stream.latencies.values() for each in values)
    return {
        "p50": quantile(every, 0.5),
        "p99": quantile(every, 0.99),
        "by": {label: _of(sorted(each)) for label, each in sorted(stream.latencies.items())},
        "sent": sent,
        "errors": dict(stream.errors),
        "again": stream.again,
        "lost": stream.waiting,
    }


def _of(ordered: list[float]) -> dict[str, float]:
    return {
        "count": len(ordered),
        "p50": quantile(ordered, 0.5),
        "p99": quantile(ordered, 0.99),
        "most": ordered[-1] * 1e3,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
