"""Whether tokens can be verified: their issuer is known, and its key set can be fetched."""

from __future__ import annotations

from responder.checks.report import BROKEN, NOTE, Finding, Report, Severity
from responder.settings import OFF, Settings
from responder.tokens import key_source
from responder.tokens.key_set import KeySet


async def check(settings: Settings, report: Report) -> None:
    """Download the key set, in the time that `key_source` gives it, and report its keys."""
    issuer = settings.issuer
    if issuer is None:
        report.findings.append(_no_issuer(settings))
        return
    try:
        keys = KeySet(await key_source.download(issuer.key_set_url)).keys
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"the key set cannot be fetched: {key_source.describe(error)}"
        remedy = (
            "Check BETTER_AUTH_URL, or RESPONDER_JWKS_URL; the jwt plugin publishes it at …/jwks."
        )
        report.findings.append(Finding("key set", BROKEN, message, remedy))
        return
    algorithms = ", ".join(sorted({name for key in keys for name in key.by_algorithm}))
    names = ", ".join(issuer.issuers)
    report.servers["key set"] = f"{len(keys)} keys for {algorithms}; issuer {names}"


def _no_issuer(settings: Settings) -> Finding:
    """Without an issuer no token is accepted, which is broken only where a token is required."""
    over_http = settings.http_auth == "required" and settings.http_listen
    required = settings.nats_auth == "required" or over_http
    severity: Severity = BROKEN if required else NOTE
    if settings.jwks_url == OFF:
        message = "RESPONDER_JWKS_URL is off: no token is accepted"
        remedy = "Unset it where BETTER_AUTH_URL is set, or name the URL or file of the key set."
        return Finding("key set", severity, message, remedy)
    return Finding(
        "key set",
        severity,
        "no issuer of tokens is known",
        "Set BETTER_AUTH_URL, or RESPONDER_JWKS_URL, _JWT_ISSUER and _JWT_AUDIENCE.",
    )
