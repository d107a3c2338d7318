"""The bridge's routes as OpenAPI 3.1, made from the table of endpoints and the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

from responder import json_schema
from responder.endpoints import ENDPOINTS, IN_PATH, WRITES, Endpoint
from responder.errors import BY_CODE
from responder.http import examples
from responder.http.parameters import Query

DEFAULT_SUCCESSORS: Final = "/api/auth"  # where Better Auth's HTTP API is, unless it is said

_SCHEMAS: Final = "#/components/schemas/{}"
_OPERATIONS: Final = {
    "get": "user",
    "by_email": "userByEmail",
    "org_list": "organizationUsers",
    "get_many": "users",
    "memberships": "memberships",
    "whoami": "me",
}
_TAGS: Final = {  # the others are what follows /api/v1/ in a route
    "users": "people, as stored now",
    "organizations": "who is in them",
    "me": "the caller",
    "gone": "writes, which only Better Auth does",
}
_ERRORS: Final = {
    "400": "a parameter is malformed, missing, unknown or repeated",
    "401": "no token where one is required, or one that does not verify",
    "403": "the caller is banned, or exists no more",
    "404": "no such user or organization, or none that the caller may see",
    "414": "the target is longer than 8 kB",
    "503": "no worker can answer now: try again later",
    "504": "not done in time",
    "default": "another error; its code says which",
}
_HEADERS: Final = {
    "401": {"WWW-Authenticate": "as RFC 6750 says"},
    "403": {"WWW-Authenticate": "as RFC 6750 says"},
    "410": {"Link": "the successor, where its address is known"},
    "503": {"Retry-After": "seconds"},
}
_IN_QUERY: Final = {
    "id": "of a user; each is answered, or named as missing",
    "organizationId": "the organization whose membership the answer reports",
    "role": "only who holds one of these in the organization",
    "limit": "how many a page may have",
    "cursor": "the nextCursor of the page before",
}
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
    "examples": [examples.PROBLEM],
}
_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "issued by Better Auth's jwt plugin, or signed by the application with a secret "
    "that it shares with responder (HS256)",
}


def document(
    *,
    successors: str | None,
    token_required: bool,
    additional: Sequence[str] = (),
    demo_tokens: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        successors: the base of Better Auth's HTTP API, if it is known.
        token_required: whether a request without a token is refused on every route that reads.
        additional: the keys of additional fields that a User has.
        demo_tokens: what the page at /docs offers to ask with, by name.
    """
    paths: dict[str, dict[str, Any]] = {
        endpoint.route: _reads(endpoint, endpoint.route) for endpoint in ENDPOINTS if endpoint.route
    }
    for path, method, operation in _writes(urlsplit(successors or DEFAULT_SUCCESSORS).path):
        paths.setdefault(path, {})[method] = operation
    schemas = json_schema.replies(_SCHEMAS, additional=additional)
    for name, example in examples.replies(additional).items():
        schemas[name] = {**schemas[name], "examples": [example]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Better Auth users",
            "description": "Reads Better Auth's users, live from their tables.",
            "version": version("better-auth-responder"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": ".", "description": "where this document is"}],
        "security": [{"token": []}] if token_required else [{"token": []}, {}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "token": {**_TOKEN, **({"x-demo-tokens": demo_tokens} if demo_tokens else {})}
            },
        },
    }


def _writes(successors: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the operation of each route that is no more."""
    for prefix in ("/api/v1", ""):
        for method, path, verb, successor in WRITES:
            operation = {
                "operationId": f"{verb}User{'' if prefix else 'Unversioned'}",
                "summary": f"{verb} a user: Better Auth does, at POST {successors}/{successor}",
                "tags": ["gone"],
                "deprecated": True,
                "security": [],
                "parameters": _in_path(path),
                "responses": {
                    "410": _error("410", "written by Better Auth only"),
                    **{each: _error(each, _ERRORS[each]) for each in ("414", "default")},
                },
            }
            yield f"{prefix}{path}", method.lower(), operation


def _reads(endpoint: Endpoint[Any, Any], route: str) -> dict[str, Any]:
    operation_id, summary = _OPERATIONS[endpoint.name], endpoint.summary
    errors = {status: _error(status, description) for status, description in _ERRORS.items()}
    reply = {"schema": {"$ref": _SCHEMAS.format(endpoint.reply.__name__)}}
    get: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "tags": [route.split("/")[3]],
        **({"security": [{"token": []}]} if endpoint.needs_token else {}),
        "parameters": [*_in_path(route), *_in_query(endpoint, route)],
        "responses": {
            "200": {"description": summary, "content": {"application/json": reply}},
            **errors,
        },
    }
    head: dict[str, Any] = {
        **get,
        "operationId": f"{operation_id}Exists",
        "summary": f"{summary}: the status alone",
        "responses": {
            "200": {"description": "GET has an answer"},
            **{
                status: {key: value for key, value in error.items() if key != "content"}
                for status, error in errors.items()
            },
        },
    }
    return {"get": get, "head": head}


def _in_path(route: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "example": examples.PARAMETERS[name],
        }
        for name in IN_PATH.findall(route)
    ]


def _in_query(endpoint: Endpoint[Any, Any], route: str) -> Iterator[dict[str, Any]]:
    for each in Query(endpoint.request, in_path="".join(IN_PATH.findall(route))).parameters:
        parameter = {
            "name": each.name,
            "in": "query",
            "required": each.required,
            "description": _IN_QUERY[each.name],
            "schema": each.schema,
        }
        if each.name in examples.PARAMETERS:
            example = examples.PARAMETERS[each.name]
            parameter["example"] = [example] if each.repeated else example
        yield parameter


def _error(status: str, description: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": _SCHEMAS.format("Problem")}}},
    }
    if status in _HEADERS:
        error["headers"] = {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in _HEADERS[status].items()
        }
    return error
