"""A report as text and as JSON."""

from __future__ import annotations

import json

from responder.checks.report import BROKEN, NOTE, WARNING, Finding, Mapped, Report


def test_the_text_has_all_there_is_and_the_worst_first():
    """A person reads the findings, the worst first, the servers, the fields, and how bad it is."""
    report = Report(
        servers={"nats": "NATS 2.10"},
        mapping=[
            Mapped("public.user", "id", "id", "text", by_hand=False),
            Mapped("public.user", "name", "firstName", "text", by_hand=True),
            Mapped("public.member", "managerId", None, None, by_hand=False),
        ],
        findings=[
            Finding("fields", NOTE, "a field is missing"),
            Finding("emails", WARNING, "an email is in upper case", "update …;"),
            Finding("nats", BROKEN, "NATS is out of reach", "Check NATS_URL."),
        ],
    )

    assert """\
broken    NATS is out of reach
          Check NATS_URL.
warning   an email is in upper case
          update …;
note      a field is missing

nats      NATS 2.10

public.user
  id              id                      text
  name            firstName               text          set by hand

public.member
  managerId       -

broken: 1, warning: 1, note: 1 (see above)""" == report.as_text()


def test_without_findings_there_is_nothing_to_mend():
    """A report says so when it has found nothing."""
    assert "\nnothing to mend" == Report().as_text()


def test_only_what_is_broken_is_not_good():
    """Warnings and notes leave a report good, for a person and for a program."""
    goods = {
        severity: Report(findings=[Finding("nats", severity, "")]).as_json()["good"]
        for severity in (BROKEN, WARNING, NOTE)
    }

    assert {BROKEN: False, WARNING: True, NOTE: True} == goods


def test_what_is_reported_begins_no_line_and_commands_no_terminal():
    """Whatever a server, a name or a remedy holds, the text has as many lines as it has things."""
    hostile = "x\n\x1b[2J\u202ealter role evil superuser; --"
    report = Report(
        servers={"nats": hostile},
        mapping=[Mapped(hostile, "id", hostile, hostile, by_hand=False)],
        findings=[Finding("tables", BROKEN, hostile, hostile)],
    )

    lines = report.as_text().split("\n")
    assert 9 == len(lines)
    assert all(line.isprintable() for line in lines)
    assert hostile == json.loads(json.dumps(report.as_json()))["mapping"][0]["column"]
