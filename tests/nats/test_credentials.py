"""A NATS server that asks for a certificate or a key gets what the settings name."""

from __future__ import annotations

import os

import nkeys  # type: ignore[import-untyped]  # it has no types
import pytest

from responder.dev import nats
from responder.errors import SettingsError, UnavailableError
from responder.nats.connection import connected
from responder.settings import Settings
from tests.certificates import certify


async def test_a_server_that_verifies_certificates(tmp_path):
    """NATS_CA verifies the server; NATS_CERT with NATS_KEY is what the server asks for."""
    certificate, key = map(str, certify(tmp_path))
    tls = f'cert_file: "{certificate}", key_file: "{key}", ca_file: "{certificate}", verify: true'
    ours = {"NATS_CERT": certificate, "NATS_KEY": key}
    async with nats.running(config=f"tls {{ {tls} }}") as server:
        url = server.url.replace("127.0.0.1", "localhost")  # as the certificate has it

        async def check(patience: float, **variables: str) -> None:
            options = Settings.read(variables).nats_options()
            opening = connected([url], name="test", options=options, patience=patience)
            async with opening as connection:
                await connection.check(2)

        await check(5, NATS_CA=certificate, **ours)
        for missing in ({"NATS_CA": certificate}, ours):
            with pytest.raises(UnavailableError):
                await check(0.5, **missing)


async def test_a_server_that_knows_a_key(tmp_path):
    """NATS_NKEY is a file with the seed of the key that the server knows."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "seed").write_bytes(seed)
    options = Settings.read({"NATS_NKEY": str(tmp_path / "seed")}).nats_options()
    async with nats.running(config=f"authorization {{ users = [{{ nkey: {public} }}] }}") as server:
        async with connected([server.url], name="test", options=options) as connection:
            await connection.check(2)
        with pytest.raises(UnavailableError):
            async with connected([server.url], name="test", patience=0.5):
                pass


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("NATS_CREDS", {"NATS_CREDS": "/hunter2"}),
        ("NATS_NKEY", {"NATS_NKEY": "/hunter2"}),
        ("NATS_CERT", {"NATS_CERT": "/hunter2", "NATS_KEY": "/hunter2"}),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, variables):
    """The error has the name of the setting, and not its value."""
    with pytest.raises(SettingsError, match=name) as refused:
        Settings.read(variables).nats_options()

    assert "hunter2" not in str(refused.value)
