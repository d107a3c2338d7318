"""Who sends more than a share of what comes, as far as reply subjects tell."""

# NATS does not say who sends a message. But a client that makes requests listens on one subject for
# all of its replies, such as `_INBOX.n7Qx.*`, and each request names one below it. So what the
# reply subjects of a connection have in common tells it from others.
#
# When too much comes, those who send the most are refused first. An example: of 2,000 requests that
# were read at once one connection has sent 1,980, and ten others two each. An equal share would be
# 2,000 / 11 = 181, and half of that 90: the requests of the one are refused, those of the ten are
# not. Of 64 connections that send about as much as each other, none has sent less than half of a
# share, and all are refused alike.
#
# A client that takes a new subject for each request looks like as many clients. Then each of them,
# and each other client, sends one request, which is a share: nothing is known, and all are refused
# alike again.

from __future__ import annotations

from collections.abc import Iterable


def sender(reply: bytes) -> bytes:
    """Return what the reply subjects of one connection have in common."""
    return reply.rpartition(b".")[0]


def half_a_share(sent: Iterable[int]) -> float:
    """Return half of an equal share, of so many requests from each sender."""
    counts = list(sent)
    return sum(counts) / (2 * len(counts)) if counts else 0.0
