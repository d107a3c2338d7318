"""Paths and queries are decoded as the standard library would, in a fraction of its time."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import InvalidRequestError
from responder.http.target import decode_segment, parse_query

MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# What a target may hold, the characters that have a meaning to some decoder more often.
TARGETS = st.lists(
    st.sampled_from(
        [*"%%%%==++09afAFgz.,_~!'()*;:@/?", "%41", "%C3%B6", "%00", "%FF", "%3D", "=0A"]
    )
).map(lambda parts: "".join(parts).encode())


@given(segment=TARGETS)
def test_a_segment_is_decoded_or_refused(segment):
    """A segment of a path is decoded once, or refused for what is malformed or not UTF-8."""
    try:
        expected = None if MALFORMED.search(segment) else unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        expected = None
    try:
        decoded = decode_segment(segment)
    except InvalidRequestError:
        decoded = None

    assert expected == decoded


@given(value=TARGETS.map(lambda target: target.replace(b"&", b"")))
def test_a_query_is_read_as_forms_are(value):
    """A value of a query is what the standard library reads in a form."""
    query = b"x=" + value
    try:
        expected = parse_qs(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        expected = None
    try:
        found = parse_query(query, {"x": False})
    except InvalidRequestError:
        found = None

    assert expected == found


@given(values=st.lists(TARGETS.map(lambda target: target.replace(b"&", b"")), max_size=9))
def test_a_parameter_may_be_repeated_where_it_is_said(values):
    """Every value of a repeated parameter is read, in order; elsewhere the second is refused."""
    query = b"&".join(b"x=" + value for value in values)
    try:
        expected = parse_qs(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        expected = None
    try:
        found = parse_query(query, {"x": True})
    except InvalidRequestError:
        found = None

    assert expected == found
    if len(values) > 1:
        with pytest.raises(InvalidRequestError):
            parse_query(query, {"x": False})


def test_parameters_are_bounded():
    """128 parameters are read, and one more is refused before any of them is."""
    many = {f"x{number}": False for number in range(129)}
    queries = {count: "&".join(f"x{n}=" for n in range(count)).encode() for count in (128, 129)}

    assert 128 == len(parse_query(queries[128], many))
    with pytest.raises(InvalidRequestError, match="more than 128 parameters"):
        parse_query(queries[129], many)
