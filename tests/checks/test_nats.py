"""What is found about NATS: what it does not permit, and who answers."""

from __future__ import annotations

import pytest

from responder import checks
from responder.checks.report import Report
from responder.dev import nats
from responder.endpoints import ENDPOINTS, SERVICE
from responder.nats.service import VERBS, subjects
from responder.settings import Settings

pytestmark = pytest.mark.heavy


def found(report: Report, name: str) -> list[tuple[str, str]]:
    return [(each.severity, each.message) for each in report.findings if each.check == name]


async def test_permissions_of_nats(create_database, template):
    """Subjects that NATS does not permit are named, those that it does are not."""
    config = """
        authorization { users = [{ user: w, password: w, permissions: {
          subscribe: ["users.get", "_INBOX.>"], publish: ["_INBOX.>", "$SRV.>"] } }] }"""
    async with nats.running(config=config) as server:
        url = await create_database(template=template[0])
        report = await checks.check(
            Settings.read(
                {
                    "DATABASE_URL": url,
                    "NATS_URL": server.url,
                    "NATS_USER": "w",
                    "NATS_PASSWORD": "w",
                }
            )
        )

    messages = [message for _, message in found(report, "nats")]
    assert any(message.endswith(" users.by_email") for message in messages)
    assert not any(message.endswith(" users.get") for message in messages)
    assert not report.good


SUBJECTS = [
    *(endpoint.subject("users") for endpoint in ENDPOINTS),
    *(each for verb in VERBS for each in subjects(verb, name=SERVICE, id="*")),
]


async def test_each_subject_that_nats_does_not_permit_is_named():
    """Denied one subject that a worker listens on, check names that one and no other."""
    users = [
        f'{{ user: u{n}, password: w, permissions: {{ subscribe: {{ deny: "{subject}" }} }} }}'
        for n, subject in enumerate(SUBJECTS)
    ]
    named = {}
    async with nats.running(config=f"authorization {{ users = [{', '.join(users)}] }}") as server:
        for n, subject in enumerate(SUBJECTS):
            report = await checks.check(
                Settings.read({"NATS_URL": server.url, "NATS_USER": f"u{n}", "NATS_PASSWORD": "w"})
            )
            named[subject] = [
                (severity, message.rpartition(" ")[2])
                for severity, message in found(report, "nats")
            ]

    severities = ["broken"] * len(ENDPOINTS) + ["warning"] * (len(SUBJECTS) - len(ENDPOINTS))
    assert {
        subject: [(severity, subject)]
        for subject, severity in zip(SUBJECTS, severities, strict=True)
    } == named


async def test_a_worker_has_to_be_permitted_to_reply():
    """Where NATS does not permit to publish to inboxes, that is a warning."""
    denied = '{ user: w, password: w, permissions: { publish: { deny: "_INBOX.>" } } }'
    async with nats.running(config=f"authorization {{ users = [{denied}] }}") as server:
        report = await checks.check(
            Settings.read({"NATS_URL": server.url, "NATS_USER": "w", "NATS_PASSWORD": "w"})
        )

    assert [("warning", "NATS does not permit to publish to inboxes at any time")] == found(
        report, "nats"
    )


async def test_the_workers_are_counted_and_lose_no_request(service):
    """It looks beside the queue group: requests that come meanwhile are answered by the worker."""
    report = await checks.check(
        Settings.read({"DATABASE_URL": service.url, "NATS_URL": service.nats.url})
    )

    assert "1 answer on users.>" == report.servers["workers"]
    assert "nats" not in {each.check for each in report.findings}


async def test_workers_of_another_prefix_are_not_counted(people_service):
    """Where none answers under the prefix that is set, another is named with the line to paste."""
    variables = {"DATABASE_URL": people_service.url, "NATS_URL": people_service.nats.url}
    report = await checks.check(Settings.read({**variables, "RESPONDER_SUBJECT_PREFIX": "nobody"}))

    (finding,) = [each for each in report.findings if each.check == "nats"]
    assert "0 answer on nobody.>" == report.servers["workers"]
    assert ("note", "no worker answers on nobody.>, but on users.>") == (
        finding.severity,
        finding.message,
    )
    assert "RESPONDER_SUBJECT_PREFIX=users" in finding.remedy
