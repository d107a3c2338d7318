"""Requests and replies as JSON Schema, for the documents that describe the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from responder.endpoints import ENDPOINTS
from responder.models import ADDITIONAL


class _Schema(GenerateJsonSchema):
    """Fields are named by their keys alone: "Emailverified" is a word that no user knows."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - pydantic's
        """Return whether a field has a title beside its key (called by pydantic)."""
        return False


def requests(place: str) -> dict[str, Any]:
    """Return the schema of each request by its name; `place` is a reference to `{}`, a name."""
    types = [endpoint.request for endpoint in ENDPOINTS]
    _, schemas = msgspec.json.schema_components(types, ref_template=place.format("{name}"))
    return schemas


def replies(place: str, *, additional: Sequence[str]) -> dict[str, Any]:
    """Return the schema of each model of a reply by its name.

    Args:
        place: as for `requests`.
        additional: the keys of additional fields that a User has.
    """
    _, schemas = models_json_schema(
        [(endpoint.reply, "serialization") for endpoint in ENDPOINTS],
        ref_template=place.format("{model}"),
        schema_generator=_Schema,
    )
    schemas["$defs"]["User"] = user(schemas["$defs"]["User"], additional=additional)
    return dict(schemas["$defs"])


def user(schema: Mapping[str, Any], *, additional: Sequence[str]) -> dict[str, Any]:
    """Return the schema of a User that has additional fields with these keys, or none."""
    properties = dict(schema["properties"])
    described = properties.pop(ADDITIONAL)
    required = [key for key in schema["required"] if key != ADDITIONAL]
    if additional:
        fields = {"type": "object", "properties": {key: {} for key in additional}}
        fields["required"] = list(additional)
        properties[ADDITIONAL] = {
            "anyOf": [fields, {"type": "null"}],
            "description": described["description"],
        }
        required.append(ADDITIONAL)
    return {**schema, "properties": properties, "required": required}
