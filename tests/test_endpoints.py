"""The table of endpoints holds together, and everything that is made from it has every row."""

from __future__ import annotations

import re

import msgspec
import pytest

from responder.directory import Directory
from responder.endpoints import ENDPOINTS, WRITES
from responder.http.openapi import document


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


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.needs_token])
def test_an_endpoint_of_callers_can_be_asked_without_a_payload(endpoint):
    """Where a token is needed, it says enough."""
    assert endpoint.request()


def test_routes_are_described():
    """OpenAPI has every route, and every write that is answered 410, and nothing else."""
    reads = {(each.route, method) for each in ENDPOINTS if each.route for method in ("get", "head")}
    writes = {
        (f"{prefix}{write.path}", write.method.lower())
        for write in WRITES
        for prefix in ("", "/api/v1")
    }
    paths = document(successors="/api/auth")["paths"]

    assert reads | writes == {(path, method) for path, its in paths.items() for method in its}
