"""The OpenAPI document is valid, and says what the process that has these settings requires."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from responder.http.openapi import document


def values(found: Any, key: str) -> Iterator[Any]:
    """Everything that a document has under a key, at any depth."""
    if isinstance(found, dict):
        yield from (value for name, value in found.items() if name == key)
        for each in found.values():
            yield from values(each, key)
    elif isinstance(found, list):
        for each in found:
            yield from values(each, key)


@pytest.mark.parametrize("token_required", [False, True])
@pytest.mark.parametrize("additional", [[], ["phoneNumber", "user"]])
def test_it_is_openapi_3_1(token_required, additional):
    """The document is valid, its examples too, whatever is set."""
    written = document(successors=None, token_required=token_required, additional=additional)

    OpenAPIV31SpecValidator(written).validate()
    for name, schema in written["components"]["schemas"].items():
        validator = Draft202012Validator(
            {"$ref": f"#/components/schemas/{name}", "components": written["components"]},
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        for example in schema["examples"]:
            validator.validate(example)


def test_it_says_who_needs_a_token():
    """A token alone where one is required, else a token or none; for the caller always one."""
    cases: list[tuple[bool, list[Any]]] = [(True, [{"token": []}]), (False, [{"token": []}, {}])]
    for token_required, expected in cases:
        written = document(successors=None, token_required=token_required)

        assert expected == written["security"]
        assert [{"token": []}] == written["paths"]["/api/v1/me"]["get"]["security"]
        assert [] == written["paths"]["/users"]["post"]["security"]
        assert "security" not in written["paths"]["/api/v1/users"]["get"]


def test_it_is_good_behind_a_path_prefix():
    """Routes are below the place of the document, wherever a proxy shows that."""
    assert "." == document(successors=None, token_required=True)["servers"][0]["url"]


def test_operations_are_found_by_their_tags():
    """Each operation has one tag, which is described."""
    written = document(successors=None, token_required=True)
    described = [[each["name"]] for each in written["tags"]]
    used = [each["tags"] for path in written["paths"].values() for each in path.values()]

    assert all(each in described for each in used)
    assert all(each in used for each in described)


def test_times_are_times():
    """Code made from the document has times where there are times, and no text."""
    schemas = document(successors=None, token_required=True)["components"]["schemas"]
    times = {
        (name, key)
        for name, schema in schemas.items()
        for key, value in schema.get("properties", {}).items()
        if "date-time" in values(value, "format")
    }

    assert {
        ("User", "banExpires"),
        ("Membership", "createdAt"),
        ("Identity", "issuedAt"),
        ("Identity", "expiresAt"),
    } == times


def test_titles_are_names_of_schemas():
    """A field is named by its key; `Emailverified` is a word that no user knows."""
    schemas = document(successors=None, token_required=True)["components"]["schemas"]

    for schema in schemas.values():
        assert not [each for each in values(schema["properties"], "title") if type(each) is str]


def test_the_command_prints_it_for_the_settings_that_are_there():
    """`responder openapi` needs no server, and says what a process with these settings does."""
    settings = {
        "BETTER_AUTH_URL": "https://auth.example.com/login",
        "RESPONDER_ADDITIONAL_FIELDS": "locale=user.preferredLocale",
    }
    printed = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "responder", "openapi"],
                env={**settings, **more},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for more in ({}, {"RESPONDER_HTTP_AUTH": "disabled"})
    ]

    expected = [
        document(
            successors="https://auth.example.com/login", token_required=each, additional=["locale"]
        )
        for each in (True, False)
    ]
    assert json.loads(json.dumps(expected)) == printed
    assert "/login/admin/create-user" in printed[0]["paths"]["/users"]["post"]["summary"]


async def test_what_is_served_is_what_the_command_prints(people_service):
    """The document of a running process is that of its settings."""
    served = (await people_service.http.get("/openapi.json")).json()
    written = document(successors=None, token_required=False)

    assert json.loads(json.dumps(written)) == served


async def test_a_target_that_is_too_long_is_described(people_service):
    """Each operation, the writes too, may be answered 414, and the document says so."""
    written = document(successors=None, token_required=False)
    for path, item in written["paths"].items():
        for method, operation in item.items():
            answer = await people_service.http.request(method, f"{path}?x={'x' * 9_000}")

            assert 414 == answer.status_code
            assert str(answer.status_code) in operation["responses"]
