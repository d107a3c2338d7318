"""The table of endpoints holds together, and everything that is made from it has every row."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from responder import endpoints, wire
from responder.directory import Directory
from responder.endpoints import ENDPOINTS, WRITES
from responder.http.openapi import document
from responder.models import Identity


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)
def test_an_endpoint_is_answered_by_the_directory(endpoint):
    """For each endpoint the directory has the method that the worker calls."""
    assert callable(getattr(Directory, endpoint.name))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)
def test_what_an_endpoint_names_are_keys_of_its_request(endpoint):
    """Bare text, and a name in a route, stand for keys that the request has."""
    keys = {field.encode_name for field in msgspec.structs.fields(endpoint.request)}
    named = {endpoint.bare} - {None} | set(re.findall(r"\{(\w+)\}", endpoint.route or ""))

    assert named <= keys


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.may_be_empty])
def test_an_endpoint_of_callers_can_be_asked_without_a_payload(endpoint):
    """Where a token says enough, no key is required."""
    assert endpoint.request()


IDENTITY = Identity(
    user_id="x",
    email=None,
    name=None,
    role=None,
    organization_id=None,
    org_role=None,
    issuer="x",
    audience=[],
    issued_at=None,
    expires_at=datetime.now(UTC),
)
FIRST_KEYS = {
    "get": b'{"id":',
    "by_email": b'{"id":',
    "org_list": b'{"users":',
    "get_many": b'{"users":',
    "memberships": b'{"memberships":',
    "whoami": b'{"identity":',
}


def test_what_replies_begin_with_never_changes():
    """Each reply begins with the key that subjects.md names: clients of any age tell it by that."""
    text = (Path(__file__).parents[1] / "subjects.md").read_text()
    begins = {each.name: each.begins for each in ENDPOINTS}

    assert begins | FIRST_KEYS == begins
    assert all(f"`{each.decode()}`" in text for each in begins.values())


def test_replies_are_written_so():
    """What is written begins with what is looked for."""
    user = wire.encode_user(["x"] * 14)
    written: list[tuple[endpoints.Endpoint[Any, Any], bytes]] = [
        (endpoints.GET, user),
        (endpoints.ORG_LIST, wire.encode_page(b"[]", None)),
        (endpoints.GET_MANY, wire.encode_batch(b"[]", [], limit=99)),
        (endpoints.MEMBERSHIPS, wire.encode_membership_page([], None)),
        (endpoints.WHOAMI, wire.encode_whoami(IDENTITY, None)),
    ]

    assert all(wire.is_ours(b"", body, endpoint.begins) for endpoint, body in written)


def test_routes_are_described():
    """OpenAPI has every route, and every write that is answered 410, and nothing else."""
    reads = {(each.route, method) for each in ENDPOINTS if each.route for method in ("get", "head")}
    writes = {
        (f"{prefix}{write.path}", write.method.lower())
        for write in WRITES
        for prefix in ("", "/api/v1")
    }
    paths = document(successors=None, token_required=True)["paths"]

    assert reads | writes == {(path, method) for path, its in paths.items() for method in its}
