"""Requests and replies as JSON Schema, for the documents that describe the service."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from responder.endpoints import ENDPOINTS


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


def replies(place: str) -> dict[str, Any]:
    """Return the schema of each model of a reply by its name; `place` is as for `requests`."""
    _, schemas = models_json_schema(
        [(endpoint.reply, "serialization") for endpoint in ENDPOINTS],
        ref_template=place.format("{model}"),
        schema_generator=_Schema,
    )
    return dict(schemas["$defs"])
