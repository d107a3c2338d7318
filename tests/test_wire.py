"""Both ends of every message agree, for whatever may be sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder import cursors, wire
from responder.endpoints import (
    BY_EMAIL,
    ENDPOINTS,
    GET,
    GET_MANY,
    MEMBERSHIPS,
    ORG_LIST,
    WHOAMI,
    Endpoint,
)
from responder.errors import (
    BY_CODE,
    InvalidRequestError,
    PayloadTooLargeError,
    ResponderError,
)
from responder.models import (
    MAX_PAGE,
    ByEmail,
    ById,
    ByIds,
    MembershipsOf,
    Myself,
    OrgList,
    Request,
    User,
    UserBatch,
    UserPage,
)

EVERY_ENDPOINT = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)

# Strings of JSON: any, lone surrogates included.
STRINGS = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["\ud800", "\0", ""])
KEYS = st.sampled_from(
    [
        *("id", "email", "ids", "limit", "cursor", "roles"),
        *("organizationId", "organization_id", "organizationID", "Id", ""),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 502)
    | st.integers()
    | st.floats()
    | STRINGS
    | st.lists(STRINGS, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=2),
    max_leaves=5,
)
GOOD: dict[Endpoint[Any, Any], dict[str, st.SearchStrategy[Any]]] = {
    GET: {"id": STRINGS},
    BY_EMAIL: {"email": STRINGS},
    ORG_LIST: {"organizationId": STRINGS},
    GET_MANY: {"ids": st.lists(STRINGS, min_size=1, max_size=4)},
    MEMBERSHIPS: {"id": STRINGS},
    WHOAMI: {},
}
BLANKS = st.sampled_from([b"", b" ", b"\r\n", b"\t \n", b"\x0b"])


def outcome(decode, *arguments):
    """Return the request that was read, or the words for what is wrong."""
    try:
        return decode(*arguments)
    except InvalidRequestError as error:
        return error.message


@EVERY_ENDPOINT
@given(data=st.data())
def test_the_quick_and_the_long_way_agree(endpoint, data):
    """A request around a valid one is read the same, or refused in the same words, by both ways."""
    value = data.draw(st.fixed_dictionaries(GOOD[endpoint], optional={}))
    value |= data.draw(st.dictionaries(KEYS, VALUES, max_size=3))
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    payload = text.encode(errors="surrogatepass")
    payload = data.draw(BLANKS) + payload + data.draw(BLANKS)

    assert outcome(wire.decode_any_form, payload, endpoint) == outcome(
        wire.decoder(endpoint), payload
    )


@EVERY_ENDPOINT
@given(data=st.data())
def test_the_quick_and_the_long_way_agree_on_broken_json(endpoint, data):
    """The same holds where a byte of the JSON has been lost, changed or added."""
    value = data.draw(st.fixed_dictionaries(GOOD[endpoint]))
    payload = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    at = data.draw(st.integers(0, len(payload)))
    payload = payload[:at] + data.draw(st.binary(max_size=2)) + payload[at + 1 :]

    assert outcome(wire.decode_any_form, payload, endpoint) == outcome(
        wire.decoder(endpoint), payload
    )


@EVERY_ENDPOINT
@given(payload=st.binary(max_size=60) | st.binary(max_size=60).map(b"{%b".__mod__))
def test_no_payload_is_a_bug(endpoint, payload):
    """Any bytes are a request or an InvalidRequestError."""
    result = outcome(wire.decoder(endpoint), payload)

    assert isinstance(result, (Request, str))


@EVERY_ENDPOINT
@pytest.mark.parametrize(
    "opening", [b"[", b'{"id":', b'{"ids":[', b'{"x":{"y":', b'{"id":"x","x":[[']
)
def test_no_depth_is_a_bug(endpoint, opening):
    """A payload nested without end is an InvalidRequestError."""
    result = outcome(wire.decoder(endpoint), b'{"id":' + opening * 100_000)

    assert isinstance(result, str)


ORGANIZATIONS = st.none() | STRINGS
REQUESTS = {
    GET: st.builds(ById, STRINGS, ORGANIZATIONS),
    BY_EMAIL: st.builds(ByEmail, STRINGS, ORGANIZATIONS),
    ORG_LIST: st.builds(
        OrgList,
        STRINGS,
        st.integers(1, MAX_PAGE),
        ORGANIZATIONS,
        st.none() | st.lists(STRINGS, min_size=1, max_size=20),
    ),
    MEMBERSHIPS: st.builds(MembershipsOf, ORGANIZATIONS, st.integers(1, MAX_PAGE), ORGANIZATIONS),
    GET_MANY: st.builds(ByIds, st.lists(STRINGS, min_size=1, max_size=20), ORGANIZATIONS),
    WHOAMI: st.builds(Myself, ORGANIZATIONS),
}


@EVERY_ENDPOINT
@given(data=st.data())
def test_requests_round_trip(endpoint, data):
    """What a client writes a worker reads, lone surrogates included."""
    request = data.draw(REQUESTS[endpoint])

    assert request == wire.decoder(endpoint)(wire.encode_request(request))


# Users.

MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
TEXTS = st.none() | st.text()


def javascript(moment):
    """Write a time as JavaScript does."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


ROWS = st.tuples(
    *(st.text(), TEXTS, st.booleans(), TEXTS, TEXTS, st.booleans(), st.text()),
    *(st.booleans(), TEXTS, st.none() | MOMENTS, TEXTS, TEXTS, TEXTS, TEXTS),
)
ADDITIONAL = st.none() | st.dictionaries(st.text(), VALUES, max_size=3)
BAN_EXPIRES = list(User.model_fields).index("ban_expires")


def written(row):
    """Return a row as the database gives it: the end of a ban is text already."""
    end = row[BAN_EXPIRES]
    return (*row[:BAN_EXPIRES], end and javascript(end), *row[BAN_EXPIRES + 1 :])


def plain(user):
    """Return a user as parsed JSON, the end of its ban as a time: JSON writes one in two ways."""
    end = user["banExpires"]
    return {**user, "banExpires": end and datetime.fromisoformat(end)}


@given(row=ROWS)
def test_a_user_is_read_as_it_was_written(row):
    """The model reads back from a written user the row that it was made from."""
    user = User.model_validate_json(wire.encode_user(written(row)))

    assert (*row, None) == tuple(getattr(user, name) for name in User.model_fields)


@given(row=ROWS)
def test_a_user_is_written_as_the_model_writes_it(row):
    """The encoder writes the keys and values of the model, in its order."""
    body = wire.encode_user(written(row))
    model = User(**dict(zip(User.model_fields, row, strict=False)))

    keys = [field.alias for field in User.model_fields.values()]
    assert plain(json.loads(model.model_dump_json(by_alias=True))) == plain(json.loads(body))
    assert keys[:-1] == list(json.loads(body))


@given(row=ROWS, fields=ADDITIONAL)
def test_additional_fields_are_read_as_they_were_written(row, fields):
    """Additional fields come last, with the values that they had, null and surrogates included."""
    text = None if fields is None else json.dumps(fields)
    body = wire.encode_user((*written(row), wire.additional(text)))

    user = User.model_validate(json.loads(body))

    assert body.startswith(wire.encode_user(written(row))[:-1] + b',"additionalFields":')
    assert repr(fields) == repr(user.additional_fields)
    assert repr(fields) == repr(user.model_dump(by_alias=True)["additionalFields"])
    assert user == User.model_validate(user.model_dump())


@given(row=ROWS, fields=ADDITIONAL)
def test_what_a_whoami_has_no_room_for_changes_nothing_else(row, fields):
    """An image, and then additional fields, are left out of a written user; all else stays."""
    text = None if fields is None else json.dumps(fields)
    body = wire.encode_user((*written(row), wire.additional(text)))

    bare = wire.without_image(body)

    user, less = json.loads(body), json.loads(bare)
    assert repr({**user, "image": None}) == repr(less)
    assert repr({**less, "additionalFields": None}) == repr(
        json.loads(wire.without_additional(bare))
    )


@given(row=ROWS)
def test_the_end_of_a_ban_is_written_as_it_came(row):
    """The end of a ban is text in the row, and stays as it is."""
    body = json.loads(wire.encode_user(written(row)))

    assert written(row)[BAN_EXPIRES] == body["banExpires"]


@given(row=ROWS)
def test_a_user_without_image_is_the_same_otherwise(row):
    """Leaving the image out changes nothing else."""
    body = wire.encode_user_without(written(row), "image")

    assert {**json.loads(wire.encode_user(written(row))), "image": None} == json.loads(body)


@given(rows=st.lists(ROWS, max_size=4), cursor=TEXTS)
def test_pages_round_trip(rows, cursor):
    """A page is read with the users it was written from, and its cursor."""
    users = [wire.encode_user(written(row)) for row in rows]
    page = UserPage.model_validate_json(wire.encode_page(wire.join_users(users), cursor))

    assert wire.join_users(users) == wire.encode_users(map(written, rows))
    assert UserPage(users=[User.model_validate_json(u) for u in users], next_cursor=cursor) == page


@given(rows=st.lists(ROWS, max_size=4), missing=st.lists(st.text(), max_size=4))
def test_batches_round_trip(rows, missing):
    """A batch is read with the users it was written from, and the missing ids."""
    users = [wire.encode_user(written(row)) for row in rows]
    batch = UserBatch.model_validate_json(
        wire.encode_batch(wire.join_users(users), missing, limit=10**6)
    )

    assert UserBatch(users=[User.model_validate_json(u) for u in users], missing=missing) == batch


@given(missing=st.lists(STRINGS, max_size=4))
def test_missing_ids_round_trip_as_json(missing):
    """Missing ids are what any reader of JSON gets, lone surrogates included."""
    body = wire.encode_batch(b"[]", missing, limit=10**6)

    assert {"users": [], "missing": missing} == json.loads(body)


@given(missing=st.lists(STRINGS, max_size=9))
def test_a_batch_is_never_over_its_limit(missing):
    """A batch of exactly the limit is written, one byte more is not."""
    size = len(wire.encode_batch(b"[]", missing, limit=10**6))

    assert size == len(wire.encode_batch(b"[]", missing, limit=size))
    with pytest.raises(PayloadTooLargeError, match="ask for fewer ids"):
        wire.encode_batch(b"[]", missing, limit=size - 1)


# Errors and headers.

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=80)


@given(error=st.sampled_from(list(BY_CODE.values())), message=PRINTABLE)
def test_errors_round_trip(error, message):
    """An error is read as the class and the message that it was written from."""
    headers, body = wire.encode_error(error(message))
    read = wire.decode_error(headers, body)

    assert read
    assert (error, message) == (type(read), read.message)
    assert {
        "nats-service-error": [message],
        "nats-service-error-code": [str(error.number)],
    } == wire.decode_headers(headers)


@given(body=st.binary(max_size=40) | st.binary(max_size=40).map(b'{"code":"%b"}'.__mod__))
def test_no_error_is_a_bug(body):
    """Any bytes that claim to be an error are one."""
    headers = wire.encode_headers({wire.ERROR_CODE: "500"})
    error = wire.decode_error(headers, body)

    assert isinstance(error, ResponderError)


def test_an_error_nested_without_end_is_one():
    """The same holds for JSON that no decoder reads to its end."""
    headers = wire.encode_headers({wire.ERROR_CODE: "500"})
    error = wire.decode_error(headers, b'{"code":"internal","message":"","x":' + b"[" * 200_000)

    assert isinstance(error, ResponderError)


NAMES = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijABCDEFGHIJ", min_size=1, max_size=12)
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20).map(
    lambda text: " ".join(text.split())
)


@given(headers=st.dictionaries(NAMES, LINES, max_size=5))
def test_headers_round_trip(headers):
    """Headers are read as they were written, by their lower-cased names."""
    expected: dict[str, list[str]] = {}
    for name, value in headers.items():
        expected.setdefault(name.lower(), []).append(value)

    assert expected == wire.decode_headers(wire.encode_headers(headers))


@given(value=st.text(st.characters(codec="utf-8")))
def test_no_value_of_a_header_adds_another(value):
    """Whatever a value holds, it is written on one line."""
    headers = wire.decode_headers(wire.encode_headers({"X": value, "Y": "y"}))

    assert {"x", "y"} == set(headers)


@given(
    block=st.binary(max_size=60)
    | st.binary(max_size=60).map(b"NATS/1.0\r\n%b\r\n\r\n".__mod__)
    | st.text(max_size=60).map(lambda text: f"NATS/1.0\r\n{text}".encode())
)
def test_no_header_block_is_a_bug(block):
    """Any bytes are headers or an InvalidRequestError."""
    result = outcome(wire.decode_headers, block)

    assert isinstance(result, (dict, str))


@given(values=st.lists(st.text(max_size=15), max_size=2))
def test_no_timeout_is_a_bug(values):
    """Any values are a number of seconds, none, or an InvalidRequestError."""
    result = outcome(wire.requested_timeout, {"responder-timeout-ms": values})

    assert result is None or isinstance(result, (float, str))


@given(milliseconds=st.integers(0, 10**9))
def test_timeouts_are_milliseconds(milliseconds):
    """A timeout is read in seconds."""
    seconds = wire.requested_timeout({"responder-timeout-ms": [str(milliseconds)]})

    assert milliseconds / 1000 == seconds


# Cursors and excerpts.

POSITIONS = st.builds(cursors.Position, st.text(), TEXTS, st.text())


@given(position=POSITIONS)
def test_cursors_round_trip(position):
    """A cursor is read as the position that it was written from."""
    cursor = cursors.encode(position)

    assert position == cursors.decode(cursor, OrgList(position.organization_id))


@given(position=POSITIONS)
def test_cursors_pass_through_urls_and_shells(position):
    """A cursor is of letters, digits, - and _ alone."""
    cursor = cursors.encode(position)

    assert set() == set(cursor.replace("-", "a").replace("_", "a")) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    )


@given(position=POSITIONS, organization=st.text())
def test_cursors_are_bound_to_their_organization(position, organization):
    """A cursor is refused for any other organization."""
    cursor = cursors.encode(position)
    result = outcome(cursors.decode, cursor, OrgList(organization))

    assert isinstance(result, str) is (organization != position.organization_id)


@given(cursor=STRINGS | st.text("AQIDBGJbIl0s-_=w", max_size=40), organization=STRINGS)
def test_no_cursor_is_a_bug(cursor, organization):
    """Any string is a position or an InvalidRequestError."""
    result = outcome(cursors.decode, cursor, OrgList(organization))

    assert isinstance(result, (cursors.Position, str))


@given(text=st.text(st.characters(codec=None), max_size=200))
def test_excerpts_are_short_and_printable(text):
    """What an error echoes is at most 64 characters, each of them printable."""
    excerpt = wire.excerpt(text)

    assert len(excerpt) <= 64
    assert excerpt.isprintable()


@given(text=st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=64))
def test_excerpts_of_short_words_are_the_words(text):
    """What is short and printable is echoed as it is."""
    assert text == wire.excerpt(text)
