"""What keeps a connection from being made is told in words, whichever error says so."""

from __future__ import annotations

import ssl
from socket import gaierror

import pytest

from responder.causes import words
from responder.nats import login
from responder.postgres import refusals
from responder.tokens import key_source


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 1)"), "Connection refused"),
        (OSError("Multiple exceptions: [Errno 111] …"), "none of its addresses takes a connection"),
        (gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ConnectionError("it rejected SSL upgrade"), "it rejected SSL upgrade"),
        (ConnectionResetError(), "the connection has ended"),
        (TimeoutError(), "no answer"),
        (ssl.SSLError(), "TLS: it fails"),
        (ssl.SSLEOFError(8, "EOF occurred"), "TLS: it fails"),
        (ssl.SSLCertVerificationError(), "TLS: no valid certificate"),
    ],
)
def test_an_error_without_words_has_some(error, said):
    """No address, no number, no `None`, and never nothing, wherever it is told."""
    assert said == words(error) == refusals.why(error)
    assert login.why(error, address="a:1", login="") == f"NATS is out of reach: a:1: {said}"
    assert key_source.describe(error) in (said, "no answer in time")


def test_a_server_without_tls_is_told():
    """Not "Operation not permitted", which is the system's error of OpenSSL's number."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    received.write(b"INFO {}\r\n")
    client = ssl.create_default_context().wrap_bio(received, sent, server_hostname="a")

    with pytest.raises(ssl.SSLError) as refused:
        client.do_handshake()

    assert words(refused.value) == "TLS: wrong version number"
