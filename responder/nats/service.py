"""The NATS services convention (ADR-32): what $SRV answers, and the figures behind it."""

# https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md
#
# nats-py has a service of its own. It sends the text of exceptions to callers, drops requests when
# it stops, and is passed over by `nats micro ls` if it has no description.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from responder.histogram import SECONDS, Histogram
from responder.models import as_javascript

VERBS: Final = ("PING", "INFO", "STATS")


class Statistics:
    """What has happened on the subject of an endpoint so far."""

    def __init__(self, name: str, subject: str, metadata: Mapping[str, str]) -> None:
        self.name = name
        self.subject = subject
        self.metadata = metadata
        self.seconds: Histogram = Histogram(SECONDS)  # of each request
        self.last_error: str = ""
        self.errors: Counter[str] = Counter()

    def count_error(self, error: str, requests: int = 1) -> None:
        """Count requests that were answered with an error, by its code."""
        self.errors[error] += requests
        self.last_error = error

    def count_refused(self, requests: int, error: str) -> None:
        """Count requests that were refused unread, in no time."""
        self.seconds.add(0.0, requests)
        self.count_error(error, requests)


def subjects(verb: str, *, name: str, id: str) -> list[str]:  # noqa: A002 - ADR-32's word
    """Return the three subjects on which an instance of a service answers a verb."""
    return [f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{id}"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """An instance of a service, as $SRV describes it."""

    name: str
    id: str
    version: str
    description: str
    queue_group: str
    started: datetime
    statistics: list[Statistics]  # of each endpoint
    metadata: Mapping[str, str]

    def ping(self) -> bytes:
        """The answer to $SRV.PING."""
        return self._reply("ping")

    def info(self) -> bytes:
        """The answer to $SRV.INFO."""
        endpoints = [
            {
                "name": its.name,
                "subject": its.subject,
                "queue_group": self.queue_group,
                "metadata": its.metadata,
            }
            for its in self.statistics
        ]
        return self._reply("info", description=self.description, endpoints=endpoints)

    def stats(self) -> bytes:
        """The answer to $SRV.STATS; times are in nanoseconds."""
        endpoints = [
            {
                "name": its.name,
                "subject": its.subject,
                "queue_group": self.queue_group,
                "num_requests": its.seconds.count,
                "num_errors": its.errors.total(),
                "last_error": its.last_error,
                "processing_time": round(its.seconds.sum * 1e9),
                "average_processing_time": round(its.seconds.sum * 1e9 / max(its.seconds.count, 1)),
            }
            for its in self.statistics
        ]
        return self._reply("stats", started=as_javascript(self.started), endpoints=endpoints)

    def _reply(self, verb: str, **more: object) -> bytes:
        return msgspec.json.encode(
            {
                "type": f"io.nats.micro.v1.{verb}_response",
                "name": self.name,
                "id": self.id,
                "version": self.version,
                "metadata": self.metadata,
                **more,
            }
        )
