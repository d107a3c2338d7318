"""What is found about tokens: whether there is an issuer, and what its key set holds."""

from __future__ import annotations

import pytest

from responder.checks import tokens
from responder.checks.report import BROKEN, NOTE, WARNING, Report
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
    assert {
        "key set": f"for EdDSA, keys: 1; issuer {issuer}",
        "tokens": f"accepts: EdDSA tokens of {issuer}",
    } == report.servers
    assert [] == report.findings


SECRET = "the secret of an application; not short"
OF_SECRET = "accepts: HS256 tokens of the shared secret"
NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("variables", "accepts", "severities"),
    [
        ({}, OF_SECRET, []),
        ({"BETTER_AUTH_URL": NOWHERE, "RESPONDER_JWKS_URL": "off"}, OF_SECRET, []),
        ({"BETTER_AUTH_URL": NOWHERE}, OF_SECRET, [NOTE]),
        ({"BETTER_AUTH_URL": NOWHERE, "RESPONDER_JWKS_URL": "/nowhere"}, OF_SECRET, [BROKEN]),
        ({"RESPONDER_JWKS_URL": "/nowhere"}, OF_SECRET, [WARNING]),
        (
            {"RESPONDER_JWT_SECRET": f"{SECRET}, {SECRET}"},
            "accepts: HS256 tokens of 2 shared secrets",
            [WARNING],
        ),
    ],
)
async def test_a_secret_is_enough(variables, accepts, severities):
    """With a secret tokens are accepted; a key set that is only presumed is no more than a note."""
    report = await check(**{"RESPONDER_JWT_SECRET": SECRET, **variables})

    assert {"tokens": accepts} == report.servers
    assert severities == [each.severity for each in report.findings]
    assert SECRET not in report.as_text()


async def test_both_ways_are_said(tmp_path):
    """What is accepted of keys and of a secret is said in one sentence."""
    variables = Mint().publish(tmp_path / "jwks.json")
    report = await check(**variables, RESPONDER_JWT_SECRET=SECRET)

    of_keys = f"EdDSA tokens of {variables['RESPONDER_JWT_ISSUER']}"
    assert f"accepts: {of_keys}, HS256 tokens of the shared secret" == report.servers["tokens"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "http://u:hunter2@127.0.0.1:1/jwks?key=hunter2",
            "http://127.0.0.1:1/jwks: Connection refused",
        ),
        ("https://nowhere.invalid/jwks", "https://nowhere.invalid/jwks: "),
        ("/nowhere.json", "/nowhere.json: No such file"),
    ],
)
async def test_a_key_set_out_of_reach_is_broken(source, why):
    """It is said which, and why it cannot be fetched, without the password of its address."""
    report = await check(BETTER_AUTH_URL="https://app.example.com", RESPONDER_JWKS_URL=source)

    (finding,) = report.findings
    assert BROKEN == finding.severity
    assert finding.message.startswith(f"the key set cannot be fetched from {why}")
    assert "hunter2" not in report.as_text()
