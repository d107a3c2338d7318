"""A token is read from an Authorization header, or it is an error: it is never overlooked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder import bearer, wire
from responder.errors import UnauthenticatedError

TOKEN = "a.b-c_d"
OTHER_BLANKS = [chr(each) for each in range(0x3001) if chr(each).isspace() and each != 0x20]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("blanks", [" ", "   "])
def test_a_token_is_what_follows_its_scheme(scheme, blanks):
    """Exactly one token, behind spaces and the scheme in any case, is read (RFC 6750, 2.1)."""
    headers = wire.decode_headers(f"NATS/1.0\r\nAuthorization:{scheme}{blanks}{TOKEN}\r\n".encode())

    assert TOKEN == bearer.read(headers["authorization"])


@pytest.mark.parametrize("blank", OTHER_BLANKS, ids=lambda blank: f"U+{ord(blank):04X}")
@pytest.mark.parametrize(
    "form", ["Bearer{}{}", "Bearer {1}{0}", "{0}Bearer {1}", "Bearer {0}{1}", "Bearer {1} {1}"]
)
def test_no_other_blank_is_taken_for_a_space(blank, form):
    """What Python takes for a blank is a character like any other: such a token is refused."""
    headers = {"authorization": [form.format(blank, TOKEN)]}

    with pytest.raises(UnauthenticatedError):
        bearer.read(headers["authorization"])


@pytest.mark.parametrize("blank", [each for each in OTHER_BLANKS if each not in "\t\r\n"])
def test_no_blank_becomes_a_space_on_its_way(blank):
    """A value of a header is passed on as it was given."""
    headers = {bearer.HEADER: f"Bearer{blank}{TOKEN}{blank}"}
    decoded = wire.decode_headers(wire.encode_headers(headers))

    assert {"authorization": [f"Bearer{blank}{TOKEN}{blank}"]} == decoded


VALUES_OF_AUTHORIZATION = st.text(max_size=8).map(lambda text: f"Bearer {text}") | st.text(
    max_size=9
)


@pytest.mark.heavy
@given(values=st.lists(VALUES_OF_AUTHORIZATION, min_size=1, max_size=2))
def test_no_authorization_is_taken_for_none(values):
    """Whatever the values are, they are a token or an UnauthenticatedError, and never no token."""
    try:
        token = bearer.read(values)
    except UnauthenticatedError:
        token = "refused"

    assert token
