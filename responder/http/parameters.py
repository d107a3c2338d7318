"""The parameters of a route's query, as the request that the route makes says them."""

# What a request has beside the key in the path is a parameter. For example, users.org_list has a
# `limit`, a number from 1 to 500, and so has its route, with the same bounds. A list is a parameter
# that may be repeated, and is named in the singular there: each `id` is one of the `ids`.

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from msgspec import inspect

from responder.errors import InvalidRequestError
from responder.http.target import parse_query
from responder.models import Request

MAX_REPEATED: Final = 100  # times that a parameter may be given: a target has 8 kB

_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query.

    Attributes:
        name: in the query.
        field: of the request.
        repeated: whether it may be given more than once.
        required: whether it must be given.
        schema: what it may be, as JSON Schema.
    """

    name: str
    field: str
    repeated: bool
    required: bool
    schema: Mapping[str, Any]

    def read(self, values: Sequence[str]) -> object:
        """Return the value of the field; raises InvalidRequestError for what it cannot be."""
        if self.repeated:
            if len(values) > self.schema["maxItems"]:
                raise InvalidRequestError(
                    f"{self.name}: given more than {self.schema['maxItems']} times"
                )
            return values
        if self.schema["type"] == "string":
            return values[0]
        least, most = self.schema["minimum"], self.schema["maximum"]
        if not _NUMBER.fullmatch(values[0]) or not least <= int(values[0]) <= most:
            raise InvalidRequestError(f"{self.name}: expected a number from {least} to {most}")
        return int(values[0])


class Query:
    """What a route's query may have.

    Args:
        request: what is made of it.
        in_path: the key of the request that the path says, if there is one.
    """

    def __init__(self, request: type[Request], *, in_path: str | None) -> None:
        self.parameters: list[Parameter] = [
            _parameter(field)
            for field in cast(inspect.StructType, inspect.type_info(request)).fields
            if field.encode_name != in_path
        ]
        self._by_name = {each.name: each for each in self.parameters}
        self._repeated = {each.name: each.repeated for each in self.parameters}
        self._required = [each.name for each in self.parameters if each.required]

    def read(self, query: bytes) -> dict[str, Any]:
        """Return the fields of the request that a query says; raises InvalidRequestError."""
        found = parse_query(query, self._repeated)
        for name in self._required:
            if name not in found:
                raise InvalidRequestError(f"{name}: required")
        known = self._by_name
        return {known[name].field: known[name].read(values) for name, values in found.items()}


def _parameter(field: inspect.Field) -> Parameter:
    schema = _schema(field)
    repeated = schema["type"] == "array"
    name = field.encode_name.removesuffix("s") if repeated else field.encode_name
    return Parameter(name, field.name, repeated, field.required, schema)


def _schema(field: inspect.Field) -> dict[str, Any]:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    (kind,) = (each for each in kinds if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.ListType):
        most = min(kind.max_length or MAX_REPEATED, MAX_REPEATED)
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": most}
    if isinstance(kind, inspect.IntType):
        bounds = {"minimum": kind.ge, "maximum": kind.le}
        return {"type": "integer", **bounds, "default": field.default}
    return {"type": "string"}
