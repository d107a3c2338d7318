"""What is found about tokens: whether there is an issuer, and what its key set holds."""

from __future__ import annotations

import pytest

from responder.checks import tokens
from responder.checks.report import BROKEN, NOTE, Report
from responder.dev.tokens import Mint
from responder.settings import Settings


async def check(**variables: str) -> Report:
    report = Report()
    await tokens.check(Settings.read(variables), report)
    return report


@pytest.mark.parametrize(
    ("variables", "severity"),
    [
        ({}, BROKEN),
        ({"RESPONDER_HTTP_AUTH": "disabled"}, NOTE),
        ({"RESPONDER_HTTP_LISTEN": "off"}, NOTE),
        ({"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_NATS_AUTH": "required"}, BROKEN),
        ({"BETTER_AUTH_URL": "https://a.example", "RESPONDER_JWKS_URL": "off"}, BROKEN),
    ],
)
async def test_no_issuer_is_broken_where_a_token_is_required(variables, severity):
    """Without an issuer no token is accepted, which is broken only where each caller needs one."""
    report = await check(**variables)

    assert [severity] == [each.severity for each in report.findings]


async def test_the_keys_are_counted(tmp_path):
    """A key set that can be fetched is good, and shown with its algorithms and its issuer."""
    variables = Mint().publish(tmp_path / "jwks.json")

    report = await check(**variables)

    issuer = variables["RESPONDER_JWT_ISSUER"]
    assert {"key set": f"1 keys for EdDSA; issuer {issuer}"} == report.servers
    assert [] == report.findings


@pytest.mark.parametrize(
    ("source", "why"),
    [("http://u:hunter2@127.0.0.1:1/jwks", "ConnectError"), ("/nowhere.json", "No such file")],
)
async def test_a_key_set_out_of_reach_is_broken(source, why):
    """Why it cannot be fetched is said without its address, which may hold a password."""
    report = await check(BETTER_AUTH_URL="https://app.example.com", RESPONDER_JWKS_URL=source)

    (finding,) = report.findings
    assert BROKEN == finding.severity
    assert finding.message.startswith(f"the key set cannot be fetched: {why}")
    assert "hunter2" not in report.as_text()
