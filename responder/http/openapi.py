"""The bridge's routes as OpenAPI 3.1, made from the table of endpoints and the models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from responder import json_schema
from responder.endpoints import ENDPOINTS, WRITES, Endpoint
from responder.errors import BY_CODE
from responder.models import Identity, User, WhoAmI

_PARAMETERS: Final = re.compile(r"\{(\w+)\}")
_OPERATIONS: Final = {"get": "user", "by_email": "userByEmail", "whoami": "me"}
_ERRORS: Final = {
    "400": "a parameter is malformed, unknown or repeated",
    "401": "no token where one is required, or one that does not verify",
    "403": "the caller is banned, or exists no more",
    "404": "no such user, or none that the caller may see",
    "414": "the target is longer than 8 kB",
    "503": "nobody can answer now: try again later",
    "504": "not done in time",
    "default": "another error; its code says which",
}
_HEADERS: Final = {
    "401": {"WWW-Authenticate": "as RFC 6750 says"},
    "403": {"WWW-Authenticate": "as RFC 6750 says"},
    "410": {"Link": "the successor, where its address is known"},
    "503": {"Retry-After": "seconds"},
}
_EXAMPLES: Final = {  # these are demo people, so that `responder dev` answers each example
    "id": "KbO8WbOTItGbdi0KY5YfJyfimmurNJra",
    "email": "zoe.lindqvist@lumen.example.com",
    "organizationId": "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud",
}
_USER: Final = User(
    id=_EXAMPLES["id"],
    email=_EXAMPLES["email"],
    email_verified=True,
    name="Zoë Lindqvist",
    image=None,
    is_anonymous=False,
    role="user",
    banned=False,
    ban_reason=None,
    ban_expires=None,
    organization_id=_EXAMPLES["organizationId"],
    org_role="owner",
    manager_id=None,
    department_id="engineering",
)
_WHOAMI: Final = WhoAmI(
    identity=Identity(
        user_id=_USER.id,
        email=_USER.email,
        name=_USER.name,
        role=_USER.role,
        organization_id=_USER.organization_id,
        org_role=_USER.org_role,
        issuer="https://app.example.com",
        audience=["https://app.example.com"],
        issued_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        expires_at=datetime(2026, 1, 2, 3, 19, 5, tzinfo=UTC),
    ),
    user=_USER,
)
_PROBLEM: Final = {
    "type": "object",
    "description": "An error as RFC 9457 writes it.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "the number of the status line"},
        "detail": {"type": "string", "description": "what is wrong, for a person"},
        "code": {
            "type": "string",
            "description": "what is wrong, for a program",
            "enum": [*BY_CODE, "gone", "method_not_allowed", "uri_too_long"],
        },
        "successor": {"type": "string", "description": "of 410: what to call instead"},
    },
    "examples": [
        {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "no such user",
            "code": "not_found",
        }
    ],
}


def document(*, successors: str, additional: Sequence[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        successors: the path of Better Auth's HTTP API.
        additional: the keys of additional fields that a User has.
    """
    user = User.model_json_schema(by_alias=True, mode="serialization")
    user = json_schema.user(user, additional=additional)
    paths: dict[str, dict[str, Any]] = {
        endpoint.route: _reads(endpoint, endpoint.route) for endpoint in ENDPOINTS if endpoint.route
    }
    for path, method, operation in _writes(successors):
        paths.setdefault(path, {})[method] = operation
    whoami = WhoAmI.model_json_schema(
        by_alias=True, mode="serialization", ref_template="#/components/schemas/{model}"
    )
    del whoami["$defs"]
    identity = Identity.model_json_schema(by_alias=True, mode="serialization")
    example = _WHOAMI.model_dump(mode="json", by_alias=True)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Better Auth users",
            "description": "Reads Better Auth's users, live from their tables.",
            "version": version("better-auth-responder"),
        },
        "paths": paths,
        "components": {
            "schemas": {
                "User": {**user, "examples": [_USER.model_dump(mode="json", by_alias=True)]},
                "Identity": {**identity, "examples": [example["identity"]]},
                "WhoAmI": {**whoami, "examples": [example]},
                "Problem": _PROBLEM,
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "issued by Better Auth's jwt plugin, or signed by the "
                    "application with a secret that it shares with responder (HS256)",
                }
            },
        },
        "security": [{"token": []}, {}],
    }


def _writes(successors: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the operation of each route that is no more."""
    for prefix in ("/api/v1", ""):
        for method, path, verb, successor in WRITES:
            operation = {
                "operationId": f"{verb}User{'' if prefix else 'Unversioned'}",
                "summary": f"{verb} a user: Better Auth does, at POST {successors}/{successor}",
                "deprecated": True,
                "security": [],
                "parameters": [_parameter(name, "path") for name in _PARAMETERS.findall(path)],
                "responses": {"410": _error("410", "written by Better Auth only")},
            }
            yield f"{prefix}{path}", method.lower(), operation


def _reads(endpoint: Endpoint[Any, Any], route: str) -> dict[str, Any]:
    operation_id, summary = _OPERATIONS[endpoint.name], endpoint.summary
    organization = _parameter("organizationId", "query")
    organization["description"] = "the organization whose membership the answer reports"
    errors = {status: _error(status, description) for status, description in _ERRORS.items()}
    reply = {"schema": {"$ref": f"#/components/schemas/{endpoint.reply.__name__}"}}
    get = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [
            *(_parameter(name, "path") for name in _PARAMETERS.findall(route)),
            organization,
        ],
        "responses": {
            "200": {"description": summary, "content": {"application/json": reply}},
            **errors,
        },
    }
    head = {
        **get,
        "operationId": f"{operation_id}Exists",
        "summary": f"whether there is {summary}",
        "responses": {
            "200": {"description": "there is"},
            **{
                status: {key: value for key, value in error.items() if key != "content"}
                for status, error in errors.items()
            },
        },
    }
    return {"get": get, "head": head}


def _parameter(name: str, place: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": {"type": "string"},
        "example": _EXAMPLES[name],
    }


def _error(status: str, description: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "description": description,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    if status in _HEADERS:
        error["headers"] = {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in _HEADERS[status].items()
        }
    return error
