"""Whether tokens can be verified: by a key set that can be fetched, or by a shared secret."""

from __future__ import annotations

from responder.checks.report import BROKEN, NOTE, WARNING, Finding, Report, Severity
from responder.settings import OFF, Settings
from responder.tokens import key_source
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet
from responder.tokens.shared_secret import HS256


async def check(settings: Settings, report: Report) -> None:
    """Download the key set, in the time that `key_source` gives it, and report what is accepted."""
    issuer = settings.issuer
    if issuer is None:
        report.findings.append(_no_issuer(settings))
        return
    accepted = []
    if issuer.key_set_url is not None:
        accepted += await _of_keys(issuer, issuer.key_set_url, report)
    if issuer.secrets:
        number = len(issuer.secrets)
        which = "the shared secret" if number == 1 else f"{number} shared secrets"
        accepted.append(f"{HS256} tokens of {which}")
        if issuer.secrets.has_blank_ends:
            report.findings.append(_BLANK_ENDS)
    if settings.unused_key_set:
        message = f"the key set is not used: {settings.missing_issuer}"
        report.findings.append(Finding("key set", WARNING, message))
    if accepted:
        report.servers["tokens"] = f"accepts: {', '.join(accepted)}"


async def _of_keys(issuer: TrustedIssuer, location: str, report: Report) -> list[str]:
    """Return the tokens that the keys verify; report the keys, or why there are none."""
    try:
        keys = KeySet(await key_source.download(location)).keys
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        severity: Severity = NOTE if issuer.key_set_is_presumed else BROKEN
        where, why = key_source.address(location), key_source.describe(error)
        message = f"the key set cannot be fetched from {where}: {why}"
        remedy = (
            "Check BETTER_AUTH_URL, or RESPONDER_JWKS_URL; the jwt plugin publishes it at …/jwks."
        )
        if issuer.key_set_is_presumed:
            remedy = "Where Better Auth's jwt plugin is not used: RESPONDER_JWKS_URL=off."
        report.findings.append(Finding("key set", severity, message, remedy))
        return []
    algorithms = ", ".join(sorted({name for key in keys for name in key.by_algorithm}))
    names = ", ".join(issuer.issuers)
    report.servers["key set"] = f"for {algorithms}, keys: {len(keys)}; issuer {names}"
    return [f"{algorithms} tokens of {names}"]


_BLANK_ENDS = Finding(
    "tokens",
    WARNING,
    "a secret of RESPONDER_JWT_SECRET begins or ends with a space or a line break, "
    "which belongs to it",
    "Write none at the ends, and none beside a comma.",
)


def _no_issuer(settings: Settings) -> Finding:
    """Without an issuer no token is accepted, which is broken only where a token is required."""
    over_http = settings.http_auth == "required" and settings.http_listen
    required = settings.nats_auth == "required" or over_http
    severity: Severity = BROKEN if required else NOTE
    if settings.jwks_url == OFF:
        message = (
            "RESPONDER_JWKS_URL is off, and RESPONDER_JWT_SECRET not set: no token is accepted"
        )
        remedy = "Unset it where BETTER_AUTH_URL is set, or name the URL or file of the key set."
        return Finding("key set", severity, message, remedy)
    return Finding(
        "key set",
        severity,
        "no issuer of tokens is known",
        "Set BETTER_AUTH_URL, or RESPONDER_JWKS_URL, _JWT_ISSUER and _JWT_AUDIENCE; or, where "
        "Better Auth's own secret signs the application's tokens, RESPONDER_JWT_SECRET.",
    )
