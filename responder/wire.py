"""Requests and replies as bytes, headers; both ends; no I/O."""

# Each message has its two ends side by side here, so that worker and client cannot drift.
#
# A request in its common form (camelCase JSON) is decoded in one step by a typed decoder. What that
# decoder refuses goes the long way, which knows every other form that subjects.md allows and finds
# the words for what is wrong. A property test holds the two ways equal.
#
# A user is written by an encoder made from the fields of `models.User`, straight from the database
# row: building and dumping the model itself costs ten times as much.

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from http import HTTPStatus
from itertools import starmap
from typing import Any, Final

import msgspec

from responder.endpoints import Asked, Endpoint
from responder.errors import (
    BY_CODE,
    InternalError,
    InvalidRequestError,
    NewerError,
    PayloadTooLargeError,
    ResponderError,
)
from responder.models import ADDITIONAL, Identity, Membership, Request, User

MAX_MESSAGE: Final = 512  # characters
TOO_MANY_IDS: Final = "the users do not fit into one message: ask for fewer ids"

TIMEOUT: Final = "Responder-Timeout-Ms"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
ERROR: Final = "Nats-Service-Error"
ERROR_CODE: Final = "Nats-Service-Error-Code"


# Requests


def decoder(endpoint: Endpoint[Asked, Any]) -> Callable[[bytes], Asked]:
    """Return what reads the requests of an endpoint; it raises InvalidRequestError."""
    read = msgspec.json.Decoder(endpoint.request).decode

    def decode(payload: bytes) -> Asked:
        try:
            return read(payload)
        except _REFUSED:
            return decode_any_form(payload, endpoint)

    return decode


def encode_request(request: Request) -> bytes:
    """Write a request."""
    return _json(request)


# msgspec lets bytes that are not UTF-8 and bottomless nesting through as Python's own errors.
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode_any_form(payload: bytes, endpoint: Endpoint[Asked, Any]) -> Asked:
    """Read a request in any form: snake_case, lone surrogates, bare text, or nothing at all."""
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        raise InvalidRequestError("the payload is not UTF-8") from None
    if text.startswith("{"):
        return _convert(_parse(text), endpoint.request)
    if not text and endpoint.may_be_empty:
        return endpoint.request()
    if not text:
        raise InvalidRequestError("the payload is empty")
    if endpoint.bare is None:
        raise InvalidRequestError("the payload is not a JSON object")
    return _convert({endpoint.bare: text}, endpoint.request)


def _parse(text: str) -> dict[str, Any]:
    # The standard library reads lone surrogates, which msgspec does not: an id may hold one.
    try:
        value: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the payload is not valid JSON") from None
    return value


def _convert(value: Mapping[str, Any], form: type[Asked]) -> Asked:
    known = _known_keys(form)
    if unknown := [key for key in value if key not in known]:
        raise InvalidRequestError(f"unknown key: {excerpt(', '.join(unknown))}")
    fields = {known[key]: item for key, item in value.items()}
    if len(fields) < len(value):
        raise InvalidRequestError("a key is given twice, in camelCase and in snake_case")
    try:
        return msgspec.convert(fields, form)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at $.")
        raise InvalidRequestError(f"{where}: {what}" if where else what) from None


@cache
def _known_keys(form: type[Request]) -> Mapping[str, str]:
    """Return the name of each key of a request, by each of its spellings."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(form)}
    return {**names, **{name: name for name in names.values()}}


def excerpt(text: str) -> str:
    """Return what an error may echo of a request: 64 characters, each of them printable."""
    return "".join(char if char.isprintable() else "?" for char in text[:64])


# Headers


def decode_headers(block: bytes) -> dict[str, list[str]]:
    """Read a header block: values by lower-cased name, in order.

    Raises InvalidRequestError for a block that is not what ADR-4 describes. nats-py's own reader
    keeps one value of a repeated name, tells `Authorization` from `authorization`, and raises into
    its read loop for some blocks that the server lets through.
    """
    try:
        version, *lines = block.decode().split("\r\n")
    except UnicodeDecodeError:
        raise InvalidRequestError("headers: not UTF-8") from None
    if not version.startswith("NATS/1.0") or _BARE_BREAK.search(version):
        raise InvalidRequestError("headers: not a NATS/1.0 block")
    headers: dict[str, list[str]] = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        # Some readers end a line at a bare line break: a header must not hide behind one.
        if not colon or not _TOKEN.fullmatch(name) or _BARE_BREAK.search(value):
            raise InvalidRequestError("headers: not a name, a colon and a value")
        headers.setdefault(name.lower(), []).append(value.strip(_BLANKS))
    return headers


def encode_headers(headers: Mapping[str, str], *, status: str = "") -> bytes:
    """Write a header block; line breaks in values become spaces.

    Args:
        headers: values by name.
        status: that of the server, such as 503.
    """
    lines = [f"{name}: {on_one_line(value)}\r\n" for name, value in headers.items()]
    first = f"NATS/1.0 {status}".rstrip()
    return f"{first}\r\n{''.join(lines)}\r\n".encode()


def on_one_line(value: str) -> str:
    """Return the value of a header, in which a line break would begin another."""
    if "\n" not in value and "\r" not in value:
        return value
    return value.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def requested_timeout(headers: Mapping[str, Sequence[str]]) -> float | None:
    """Return the caller's own timeout in seconds, None without one; raises InvalidRequestError."""
    values = headers.get(TIMEOUT.lower())
    if not values:
        return None
    if len(values) > 1 or not _MILLISECONDS.fullmatch(values[0]):
        raise InvalidRequestError(f"{TIMEOUT}: expected one whole number of milliseconds")
    return int(values[0]) / 1000


def is_no_responders(headers: bytes) -> bool:
    """Tell whether this is the server's own answer that no worker listens (ADR-4's status 503)."""
    return headers.startswith(b"NATS/1.0 503")


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BARE_BREAK = re.compile(r"[\r\n]")
_BLANKS = " \t"  # around a value; what else Python takes for a blank, U+00A0 for one, is part of it
_MILLISECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


# Replies


def encode_user(row: Iterable[object]) -> bytes:
    """Write one User from the values of its fields, in their order.

    The last, additional fields, may be left away; it is what `additional` returns.
    """
    return _encode(_Row(*row))


def encode_user_without(row: Iterable[object], *fields: str) -> bytes:
    """Write one User, with null for those fields that do not fit into a message."""
    return _encode(msgspec.structs.replace(_Row(*row), **dict.fromkeys(fields)))


def additional(written: str | None) -> object:
    """Return additional fields that are JSON already, or None, as a value of a row."""
    return written if written is None else msgspec.Raw(written)


def encode_users(rows: Iterable[Iterable[object]]) -> bytes:
    """Write a list of users from the values of their fields: half the cost of one at a time."""
    return _encode(list(starmap(_Row, rows)))


def join_users(users: Iterable[bytes]) -> bytes:
    """Write a list of written users."""
    return b"[%b]" % b",".join(users)


def encode_batch(users: bytes, missing: Sequence[str], *, limit: int) -> bytes:
    """Write a UserBatch from a written list; raises PayloadTooLargeError over `limit` bytes."""
    body = b'{"users":%b,"missing":%b}' % (users, _json(missing))
    if len(body) > limit:
        raise PayloadTooLargeError(TOO_MANY_IDS)
    return body


def encode_page(users: bytes, next_cursor: str | None) -> bytes:
    """Write a UserPage from a written list."""
    return b'{"users":%b,"nextCursor":%b}' % (users, _encode(next_cursor))


def encode_memberships(rows: Iterable[Iterable[object]]) -> list[bytes]:
    """Write each Membership from the values of its fields, in their order."""
    return [_encode(_Membership(*row)) for row in rows]


def encode_membership_page(memberships: Iterable[bytes], next_cursor: str | None) -> bytes:
    """Write a MembershipPage from written memberships."""
    joined = b",".join(memberships)
    return b'{"memberships":[%b],"nextCursor":%b}' % (joined, _encode(next_cursor))


def encode_whoami(identity: Identity, user: bytes | None) -> bytes:
    """Write a WhoAmI from a written user."""
    said = identity.model_dump_json(by_alias=True).encode()
    return b'{"identity":%b,"user":%b}' % (said, user or b"null")


def without_image(user: bytes) -> bytes:
    """Write a user again, without the image: a WhoAmI that contains it would be too large."""
    others, key, additional = user.partition(_ADDITIONAL_KEY)
    written = _encode({**msgspec.json.decode(others + b"}" if key else others), "image": None})
    return b"%b%b%b" % (written[:-1], key, additional) if key else written


def without_additional(user: bytes) -> bytes:
    """Write a user again, without the additional fields, likewise."""
    others, key, _ = user.partition(_ADDITIONAL_KEY)
    return others + key + b"null}" if key else others


# It begins the last field: a quote in a string is escaped, and the fields before are no objects.
# What follows is passed on as it is, since reading it could lose digits of a number.
_ADDITIONAL_KEY: Final = b',"%b":' % ADDITIONAL.encode()


def encode_error(error: ResponderError) -> tuple[bytes, bytes]:
    """Write an error as the headers of ADR-32 and a body that says the same."""
    message = error.message[:MAX_MESSAGE]  # it may hold names of tables, which are not ours
    return _encode_error(error.code, error.number, message)


# A flood of invalid requests is one of few errors: to write one costs as much as to find it.
@lru_cache(maxsize=256)
def _encode_error(code: str, number: int, message: str) -> tuple[bytes, bytes]:
    headers = encode_headers({ERROR: message, ERROR_CODE: str(number)})
    return headers, _json({"code": code, "message": message})


def decode_error(headers: bytes, body: bytes) -> ResponderError | None:
    """Return the error that a reply is, None for a value."""
    try:
        if not headers or not (numbers := decode_headers(headers).get(ERROR_CODE.lower())):
            return None
        value = msgspec.json.decode(body, type=_Error)
        if known := BY_CODE.get(value.code):
            return known(value.message)
        if _CODE.fullmatch(value.code):
            return NewerError(value.message, code=value.code, number=HTTPStatus(int(numbers[0])))
    except (*_REFUSED, InvalidRequestError, ValueError):
        pass
    return InternalError("the worker answered with an error that is not of the contract")


def is_ours(headers: bytes, body: bytes, begins: bytes) -> bool:
    """Tell whether a reply is a worker's: an error, or a value that begins as its endpoint's do.

    A stream of JetStream over the subject, for example, acknowledges each request to the caller, as
    `{"stream":"AUDIT","seq":7}`. That must never be taken for a user.
    """
    return body.startswith(begins) or _HAS_ERROR.search(headers) is not None


_CODE = re.compile(r"[a-z_]{1,64}")
_HAS_ERROR = re.compile(rb"\r\n%b:" % re.escape(ERROR_CODE.encode()), re.IGNORECASE)


class _Error(msgspec.Struct):
    code: str
    message: str


# Without additional fields a row is written without their key.
_Row = msgspec.defstruct(
    "_Row",
    [
        (alias, Any, msgspec.UNSET) if alias == ADDITIONAL else (alias, Any)
        for alias in (str(field.alias) for field in User.model_fields.values())
    ],
    gc=False,
)
_Membership = msgspec.defstruct(
    "_Membership",
    [(str(field.alias), Any) for field in Membership.model_fields.values()],
    gc=False,
)
_encode = msgspec.json.Encoder().encode


def _json(value: object) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:  # a lone surrogate, which the standard library escapes
        return json.dumps(msgspec.to_builtins(value)).encode()
