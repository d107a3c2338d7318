"""Who answers on the subjects: workers, and nothing else."""

# Each subject is asked once, without a payload and without a token, which a worker refuses at once
# and without a query. Then all that answers is listened to for a second, because what else answers
# may be faster than a worker, or slower: a JetStream stream over `users.>` stores each request and
# acknowledges it to the caller. A stream that is told not to acknowledge stores it all the same and
# cannot be found in this way.

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from responder import wire
from responder.checks.report import BROKEN, NOTE, Finding, Report
from responder.endpoints import ENDPOINTS, SERVICE

LISTEN: Final = 1.0  # seconds
ASK: Final = f"$SRV.INFO.{SERVICE}"
INFO: Final = "info"  # among the names of endpoints, none of which it is
_DESCRIPTION: Final = "io.nats.micro.v1.info_response"
_PREFIX: Final = re.compile(r"[\w-]+([.][\w-]+)*", re.ASCII)  # others are no setting of ours
_SEE: Final = "subjects.md, Who may answer, has permissions that keep others out."


async def check(client: Client, violations: list[str], prefix: str, report: Report) -> None:
    """Report how many workers answer, and what else does.

    Args:
        client: connected as a worker is.
        violations: what NATS has not permitted to it so far, in lower case; more are added.
        prefix: of the subjects.
        report: to add to.
    """
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    inbox = client.new_inbox()
    known = len(violations)
    await client.subscribe(f"{inbox}.*", cb=hear)
    await client.publish(ASK, b"", reply=f"{inbox}.{INFO}")
    for endpoint in ENDPOINTS:
        await client.publish(endpoint.subject(prefix), b"", reply=f"{inbox}.{endpoint.name}")
    # The server answers in order, so a violation arrives before the second PONG.
    await client.flush()
    await client.flush()
    await asyncio.sleep(LISTEN)
    answers = [(message.subject.rpartition(".")[2], message) for message in heard]
    found = [_prefix(message) for name, message in answers if name == INFO]
    prefixes = Counter(each for each in found if each is not None)
    report.servers["workers"] = f"{prefixes[prefix]} answer on {prefix}.>"
    if any(f'"{ASK.lower()}"' in violation for violation in violations[known:]):
        report.servers["workers"] = f"not counted: NATS does not permit to publish to {ASK}"
    report.findings += _elsewhere(prefixes, prefix)
    report.findings += _denied(violations[known:], inbox, prefix)
    by_whom: dict[str | None, list[str]] = {}
    for endpoint in ENDPOINTS:
        for name, message in answers:
            if name == endpoint.name and not _is_expected(message, endpoint.begins):
                by_whom.setdefault(_stream(message), []).append(endpoint.subject(prefix))
    report.findings += [_other(stream, subjects) for stream, subjects in by_whom.items()]


def _prefix(message: Msg) -> str | None:
    """Return under which prefix the worker answers whose description this is, else None."""
    described = _object(message)
    if (described.get("type"), described.get("name")) != (_DESCRIPTION, SERVICE):
        return None
    known = {each.name for each in ENDPOINTS}
    for each in _list(described.get("endpoints")):
        prefix, _, name = str(each.get("subject")).rpartition(".")
        if name in known and _PREFIX.fullmatch(prefix):
            return prefix
    return None


def _elsewhere(prefixes: Counter[str], prefix: str) -> list[Finding]:
    """Find that workers answer under other prefixes alone, one of which may be what is meant."""
    others = sorted(prefixes)
    if prefix in others or not others:
        return []
    named = ", ".join(f"{each}.>" for each in others)
    return [
        Finding(
            "nats",
            NOTE,
            f"no worker answers on {prefix}.>, but on {named}",
            f"RESPONDER_SUBJECT_PREFIX={others[0]}, if that is meant.",
        )
    ]


def _is_expected(message: Msg, begins: bytes) -> bool:
    """Tell whether this is a worker's answer, or the server's own that no worker listens."""
    headers = message.headers or {}
    return headers.get("Status") == "503" or wire.is_ours(
        wire.encode_headers(headers), message.data, begins
    )


def _stream(message: Msg) -> str | None:
    """Return the name of the stream that acknowledges a request, None of any other answer."""
    name = _object(message).get("stream")
    return wire.excerpt(name) if isinstance(name, str) else None


def _object(message: Msg) -> dict[str, Any]:
    try:
        answer = json.loads(message.data)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _other(stream: str | None, subjects: list[str]) -> Finding:
    where = ", ".join(dict.fromkeys(subjects))
    if stream is None:
        message = (
            f"something else answers on {where}: "
            "requests reach it, and with them their Authorization headers"
        )
        remedy = f"Find the program that subscribes to it. {_SEE}"
    else:
        message = (
            f'the JetStream stream "{stream}" answers on {where}: '
            "requests are stored there, and with them their Authorization headers"
        )
        remedy = f"Take these subjects from the stream, and delete what it has stored. {_SEE}"
    return Finding("nats", BROKEN, message, remedy)


def _denied(violations: list[str], inbox: str, prefix: str) -> list[Finding]:
    """Find the subjects that could not be asked; that leaves open who answers on them."""
    subjects = [endpoint.subject(prefix) for endpoint in ENDPOINTS]
    if not any(inbox.lower() in violation for violation in violations):
        subjects = [
            each for each in subjects if any(f'"{each.lower()}"' in told for told in violations)
        ]
    if not subjects:
        return []
    return [
        Finding(
            "nats",
            BROKEN,
            f"who answers on {', '.join(subjects)} is not known: NATS does not permit to ask there",
            f"Permit to publish to {prefix}.* (which the bridge has to) and to subscribe to "
            "_INBOX.>, or run this check with the credentials of a service that may.",
        )
    ]
