"""The worker's subjects as AsyncAPI 3.0, made from the table of endpoints and the models."""

# https://www.asyncapi.com/docs/reference/specification/v3.0.0
#
# What AsyncAPI calls a channel with an address is a subject here. A reply has a channel without
# one, because each requester names the subject of its own inbox.

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from responder.endpoints import DESCRIPTION, ENDPOINTS, SERVICE, Endpoint
from responder.errors import BY_CODE
from responder.json_schema import replies, requests

_SCHEMAS: Final = "#/components/schemas/{}"
_HEADERS: Final = {
    "type": "object",
    "description": "The headers of a request; names are compared without case.",
    "properties": {
        "Authorization": {
            "type": "string",
            "pattern": "^Bearer .+$",
            "description": "the token of the user on whose behalf the request is made",
        },
        "Responder-Timeout-Ms": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "how long the requester waits; what comes later is not worked on",
        },
        "traceparent": {"type": "string", "description": "W3C Trace Context; passed on"},
        "tracestate": {"type": "string", "description": "likewise"},
    },
}
_ERROR: Final = {
    "title": "an error",
    "headers": {
        "type": "object",
        "required": ["Nats-Service-Error", "Nats-Service-Error-Code"],
        "properties": {
            "Nats-Service-Error": {"type": "string", "description": "what is wrong"},
            "Nats-Service-Error-Code": {
                "type": "string",
                "enum": [str(each.number) for each in BY_CODE.values()],
            },
        },
    },
    "payload": {
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "string", "enum": list(BY_CODE)},
            "message": {"type": "string", "description": "what is wrong, for a person"},
        },
    },
}


def document(
    *, prefix: str, queue_group: str, token_required: bool, additional: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the AsyncAPI document of workers.

    Args:
        prefix: what the subjects begin with.
        queue_group: the group whose workers share the requests.
        token_required: whether a request without a token is refused on every subject.
        additional: the keys of additional fields that a User has.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        name = endpoint.name
        channels[name] = _requests(endpoint, prefix, token_required=token_required)
        channels[f"{name}_reply"] = _replies(endpoint, prefix)
        operations[name] = {
            "action": "receive",
            "summary": endpoint.summary,
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"nats": {"queue": queue_group}},
            "reply": {"channel": {"$ref": f"#/channels/{name}_reply"}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": SERVICE,
            "description": DESCRIPTION,
            "version": version("better-auth-responder"),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {"error": _ERROR},
            "schemas": {
                "RequestHeaders": _HEADERS,
                **requests(_SCHEMAS),
                **replies(_SCHEMAS, additional=additional),
            },
        },
    }


def _requests(endpoint: Endpoint[Any, Any], prefix: str, *, token_required: bool) -> dict[str, Any]:
    headers: dict[str, Any] = {"$ref": _SCHEMAS.format("RequestHeaders")}
    if token_required or endpoint.needs_token:
        headers = {"allOf": [headers], "required": ["Authorization"]}
    payloads: dict[str, Any] = {
        "request": {"payload": {"$ref": _SCHEMAS.format(endpoint.request.__name__)}}
    }
    if endpoint.bare:
        payloads["text"] = _text(f"the {endpoint.bare} alone", minLength=1)
    if endpoint.may_be_empty:
        payloads["empty"] = _text("nothing", maxLength=0)
    messages = {name: {"headers": headers, **payload} for name, payload in payloads.items()}
    return {"address": endpoint.subject(prefix), "messages": messages}


def _replies(endpoint: Endpoint[Any, Any], prefix: str) -> dict[str, Any]:
    reply = {
        "title": f"what {endpoint.subject(prefix)} answers",
        "payload": {"$ref": _SCHEMAS.format(endpoint.reply.__name__)},
    }
    return {
        "address": None,
        "description": "The reply subject of the request.",
        "messages": {"reply": reply, "error": {"$ref": "#/components/messages/error"}},
    }


def _text(title: str, **limits: int) -> dict[str, Any]:
    payload = {"type": "string", **limits}
    return {"title": title, "contentType": "text/plain", "payload": payload}
