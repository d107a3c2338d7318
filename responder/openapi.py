"""The HTTP contract, machine-readable: OpenAPI 3.1, made from the models."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from responder.errors import BY_CODE
from responder.models import User

_GONE: Final = {
    ("/api/v1/users", "post"): ("create a user", "POST /api/auth/admin/create-user"),
    ("/api/v1/users/{id}", "patch"): ("change a user", "POST /api/auth/admin/set-role"),
    ("/api/v1/users/{id}", "delete"): ("remove a user", "POST /api/auth/admin/remove-user"),
}
_ORGANIZATION: Final = {
    "name": "organizationId",
    "in": "query",
    "required": False,
    "description": "the organization whose membership the answer reports",
    "schema": {"type": "string"},
}
_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": [*BY_CODE, "gone", "method_not_allowed"]},
        "successor": {"type": "string", "description": "of 410: what to call instead"},
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {
        "/api/v1/users/{id}": _reads("id", "a user by id"),
        "/api/v1/users/email/{email}": _reads("email", "a user by email, in any case"),
        "/api/v1/users": {},
    }
    for (path, method), (summary, successor) in _GONE.items():
        paths[path][method] = {
            "summary": f"{summary}: Better Auth does, at {successor}",
            "deprecated": True,
            "parameters": [_path("id")] if "{id}" in path else [],
            "responses": {"410": _error("written by Better Auth only")},
        }
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
                "User": User.model_json_schema(by_alias=True, mode="serialization"),
                "Problem": _PROBLEM,
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
        "security": [{"token": []}, {}],
    }


def _reads(name: str, summary: str) -> dict[str, Any]:
    operation = {
        "summary": summary,
        "parameters": [_path(name), _ORGANIZATION],
        "responses": {
            "200": {
                "description": "the user",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}},
            },
            "default": _error("an error; its code says which"),
        },
    }
    return {"get": operation, "head": {**operation, "summary": f"whether there is {summary}"}}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _error(description: str) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": description, "content": {"application/problem+json": problem}}
