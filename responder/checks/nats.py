"""What NATS permits a worker to do."""

# The check connects with a worker's credentials and subscribes to each subject that a worker
# subscribes to, in no queue group: workers that run meanwhile still get each request.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import nats.errors
from nats.aio.client import Client

from responder.checks import answering
from responder.checks.report import BROKEN, WARNING, Finding, Report
from responder.endpoints import ENDPOINTS, SERVICE
from responder.nats.login import variables_of, why
from responder.nats.service import VERBS, subjects
from responder.nats.tls import NoTlsError, TlsClient
from responder.settings import Settings

TIMEOUT: Final = 10.0  # seconds for all of this
CONNECT_TIMEOUT: Final = 2.0  # seconds
_OFFER_TLS: Final = (
    "Let it offer TLS, or take tls:// out of NATS_URL, and NATS_CA and NATS_CERT away."
)


class _NotConnectedError(Exception):
    """NATS was not reached, or refuses us; the message says why."""


async def check(settings: Settings, report: Report) -> None:
    """Report the server, what it does not permit, and who answers."""
    violations: list[str] = []  # in NATS's words, in lower case
    try:
        async with asyncio.timeout(TIMEOUT), _connected(settings, violations) as client:
            version = client.connected_server_version
            number = f"{version.major}.{version.minor}.{version.patch}"
            report.servers["nats"] = f"NATS {number}, messages up to {client.max_payload} bytes"
            report.findings += await _permissions(client, violations, settings.subject_prefix)
            await answering.check(client, violations, settings.subject_prefix, report)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = _why(error)
        remedy = _OFFER_TLS if isinstance(error, NoTlsError) else "Check NATS_URL and credentials."
        report.findings.append(Finding("nats", BROKEN, message, remedy))


@asynccontextmanager
async def _connected(settings: Settings, violations: list[str]) -> AsyncIterator[Client]:
    """Connect as a worker does, and add what NATS does not permit to the violations."""
    refusals: list[Exception] = []  # of servers that have answered
    unreached: list[Exception] = []

    async def note(error: Exception) -> None:
        violations.append(str(error).lower())
        if isinstance(error, nats.errors.Error | ssl.SSLError):
            refusals.append(error)
        elif not isinstance(error, TimeoutError):
            unreached.append(error)

    client = TlsClient()
    options = settings.nats_options()
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):  # it tries each server, again and again
                await client.connect(
                    settings.nats_url, name="responder-check", error_cb=note, **options
                )
        except (OSError, nats.errors.Error) as error:  # a timeout is an OSError
            last = (
                (refusals or unreached or [error])[-1] if isinstance(error, TimeoutError) else error
            )
            if isinstance(last, NoTlsError):
                raise last from None
            login = variables_of(options, settings.nats_url)
            raise _NotConnectedError(why(last, address=client.address, login=login)) from None
        client.options["allow_reconnect"] = False
        yield client
    finally:
        await client.close()


async def _permissions(client: Client, violations: list[str], prefix: str) -> list[Finding]:
    """Do what a worker must be permitted to do, and find what NATS has said about it."""
    requests = [endpoint.subject(prefix) for endpoint in ENDPOINTS]
    service = [each for verb in VERBS for each in subjects(verb, name=SERVICE, id="*")]
    for subject in (*requests, *service):
        await client.subscribe(subject)
    await client.publish(client.new_inbox(), b"")
    # The server answers in order, so a violation arrives before the second PONG.
    await client.flush()
    await client.flush()
    findings = [
        Finding(
            "nats",
            BROKEN if subject in requests else WARNING,
            f"NATS does not permit to subscribe to {subject}",
            f"Permit the account of responder to subscribe to {prefix}.> and $SRV.>.",
        )
        for subject in (*requests, *service)
        if any(f'"{subject.lower()}"' in violation for violation in violations)
    ]
    if any("publish" in violation for violation in violations):
        findings.append(
            Finding(
                "nats",
                WARNING,
                "NATS does not permit to publish to inboxes at any time",
                "Permit to publish to _INBOX.>, "
                "or allow_responses, which is enough and not seen here.",
            )
        )
    return findings


def _why(error: Exception) -> str:
    """Say why there is no connection; other words than these may be secret."""
    known = isinstance(error, NoTlsError | _NotConnectedError)
    return (
        str(error) if known else f"NATS is out of reach: {type(error.__cause__ or error).__name__}"
    )
