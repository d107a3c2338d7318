"""A NATS server that asks for a certificate or a key gets what the settings name."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import AsyncExitStack, suppress

import nkeys  # type: ignore[import-untyped]  # it has no types
import pytest

from responder.checks import nats as checks
from responder.checks.report import Report
from responder.client import UsersClient
from responder.dev import nats
from responder.errors import SettingsError, UnavailableError
from responder.nats.connection import connected
from responder.settings import Settings
from tests.certificates import certify
from tests.nats.operator import Operator
from tests.ports import free_port


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
                await connection.check(20)

        await check(20, NATS_CA=certificate, **ours)
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
            await connection.check(20)
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


AUTHORIZED = 'authorization { user: ann, password: "p@ss:w/rd" }'
IN_URL = "ann:p%40ss%3Aw%2Frd@"


async def test_a_login_in_a_url_is_decoded_and_serves_the_whole_cluster():
    """A server that only the cluster has told of is given the login of NATS_URL, too."""
    cluster = "cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
    async with AsyncExitStack() as stack:
        port = free_port()
        first = nats.running(config=cluster.format(port=port, routes="") + AUTHORIZED)
        first_server = await stack.enter_async_context(first)
        second = await stack.enter_async_context(
            nats.running(
                config=cluster.format(port=-1, routes=f"nats://127.0.0.1:{port}") + AUTHORIZED
            )
        )
        url = first_server.url.replace("//", f"//{IN_URL}")
        connection = await stack.enter_async_context(connected([url], name="test"))
        client = connection._client
        async with asyncio.timeout(60):
            while not any(each.uri.netloc in second.url for each in client._server_pool):
                await asyncio.sleep(0.01)
            first_server.process.kill()
            while not (client.is_connected and f"//{client.address}" in second.url):
                await asyncio.sleep(0.01)
        await connection.check(5)


@pytest.mark.parametrize(
    ("variables", "login"),
    [
        ({"NATS_USER": "ann", "NATS_PASSWORD": "hunter2"}, "the login of NATS_USER and NATS_PASSW"),
        *(
            pytest.param(*each, marks=pytest.mark.heavy)  # 3 s each
            for each in (
                ({"NATS_TOKEN": "hunter2"}, "the login of NATS_TOKEN"),
                ({"NATS_URL": "nats://ann:hunter2@"}, "the login of NATS_URL"),
                ({}, "us, who have no login"),
            )
        ),
    ],
)
async def test_a_login_that_is_refused_is_told_in_the_words_of_the_server(variables, login, caplog):
    """The log, the error and `check` name the server, the variables, and what the server says."""
    async with nats.running(config=AUTHORIZED) as server:
        at = server.url.removeprefix("nats://")
        variables = {**variables, "NATS_URL": variables.get("NATS_URL", "nats://") + at}
        settings = Settings.read(variables)
        with pytest.raises(UnavailableError) as refused:
            async with connected(
                settings.nats_url, name="test", options=settings.nats_options(), patience=2
            ):
                pass
        report = Report()
        await checks.check(settings, report)

    said = [caplog.text, refused.value.message, report.as_text()]
    for each in said:
        assert f"NATS at {at} refuses {login}" in each
        assert "Authorization Violation" in each
        assert "hunter2" not in each


@pytest.mark.parametrize("missing", ["NATS_USER", "NATS_PASSWORD"])
def test_half_a_login_is_refused(missing):
    """nats-py would leave it out, and the server refuse us for having none."""
    given = {"NATS_USER": "ann", "NATS_PASSWORD": "hunter2"}
    del given[missing]
    with pytest.raises(SettingsError, match=f"^{missing}: required"):
        Settings.read(given).nats_options()


@pytest.mark.parametrize("scheme", ["ws", "wss", "http"])
def test_a_scheme_that_cannot_work_is_refused(scheme):
    """A websocket carries no NATS of ours."""
    with pytest.raises(SettingsError, match="NATS_URL"):
        Settings.read({"NATS_URL": f"{scheme}://127.0.0.1:4222"})


async def test_a_server_that_begins_with_tls(tmp_path):
    """NATS_TLS_FIRST is for such a server; without it an attempt ends in time."""
    certificate, key = map(str, certify(tmp_path))
    tls = f'cert_file: "{certificate}", key_file: "{key}", handshake_first: true'
    async with nats.running(config=f"tls {{ {tls} }}") as server:
        url = server.url.replace("127.0.0.1", "localhost")
        options = Settings.read({"NATS_CA": certificate, "NATS_TLS_FIRST": "true"}).nats_options()
        async with connected([url], name="test", options=options, patience=20) as connection:
            await connection.check(20)
        async with asyncio.timeout(60):
            with pytest.raises(UnavailableError):
                async with UsersClient.connect(url, timeout=0.5):
                    pass


RESTRICTED = """
authorization {
  users = [ { user: a, password: a, permissions: { subscribe: ["users.>", "$SRV.>", "my.>"] } } ]
}
"""


async def test_replies_that_may_not_be_heard_are_told_at_once():
    """A bridge does not wait for what NATS will not deliver; /ready says so, too, for ever."""
    options = {"user": "a", "password": "a"}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats.running(config=RESTRICTED))
        opening = connected([server.url], name="test", options=options)
        connection = await stack.enter_async_context(opening)
        await connection.flush()
        for _ in range(2):
            with pytest.raises(UnavailableError, match="subscribe to its inbox"):
                await connection.check(20)
            async with asyncio.timeout(60):
                with pytest.raises(UnavailableError, match="hear replies"):
                    await connection.ask("users.get", b"x", timeout=60)
            await connection._client.force_reconnect()
            async with asyncio.timeout(60):
                while not connection._client.is_connected:
                    await asyncio.sleep(0.01)
            await connection.flush()


async def test_a_prefix_of_the_inbox():
    """NATS_INBOX_PREFIX is where replies are heard; without a bridge there is no inbox at all."""
    options = {"user": "a", "password": "a"}
    prefix = Settings.read({"NATS_INBOX_PREFIX": "my.inbox"}).nats_options()
    async with nats.running(config=RESTRICTED) as server:
        for more, asks in ((prefix, True), ({}, False)):
            async with connected(
                [server.url], name="test", options={**options, **more}, asks=asks
            ) as connection:
                await connection.flush()
                await connection.check(20)


@pytest.mark.heavy
async def test_credentials_that_expire_are_told_until_there_are_others(tmp_path, caplog):
    """A worker whose login expires says so, and comes back with the file that replaces it."""
    file, operator = tmp_path / "worker.creds", Operator()
    operator.write_credentials(file, seconds=3)
    options = Settings.read({"NATS_CREDS": str(file)}).nats_options()
    async with nats.running(config=operator.config) as server:
        opening = connected([server.url], name="test", options=options, asks=False, patience=20)
        async with opening as connection:
            await connection.listen("users.get", lambda *_: None)
            at = server.url.removeprefix("nats://")
            said = f"NATS at {at} refuses the login of NATS_CREDS: "
            async with asyncio.timeout(60):
                while not connection.trouble.startswith(said):
                    await asyncio.sleep(0.02)
            with pytest.raises(UnavailableError, match=re.escape(said)):
                await connection.check(1)

            operator.write_credentials(file, seconds=3600)
            async with asyncio.timeout(60):
                while True:
                    with suppress(UnavailableError):
                        await connection.check(20)
                        break
                    await asyncio.sleep(0.02)

    assert connection.reconnects > 0
    assert "lost the connection to NATS: User Authentication Expired" in caplog.text
