"""Where TLS is asked for there is TLS, or no connection (docs/settings.md)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import responder
from responder import checks
from responder.app import serving
from responder.client import UsersClient
from responder.dev import nats
from responder.errors import SettingsError, UnavailableError
from responder.nats.connection import Connection, connected
from responder.settings import Settings
from tests import certificates
from tests.certificates import Certificates
from tests.waiting import until

USER, PASSWORD = "someone", "swordfish-in-the-clear"
CONFIG = f"authorization {{ user: {USER}, password: {PASSWORD} }}\n"
HANDSHAKE = b"\x16\x03"  # how TLS begins (RFC 8446, 5.1)
OPTIONS = {"user": USER, "password": PASSWORD}


@pytest.fixture(scope="session")
def tls(tmp_path_factory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("tls"))


class Plain:
    """A hostile server: it speaks NATS without TLS, and keeps what it is told.

    Args:
        info: what it says of itself.
    """

    def __init__(self, **info: object) -> None:
        self.connections = 0
        self.told = b""
        self.port = 0
        self._info = {"server_id": "x", "version": "2.10.0", "max_payload": 2**20, "headers": True}
        self._info |= {"auth_required": True, **info}
        self._left = 0
        self._met = asyncio.Condition()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Plain]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", port) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"INFO " + json.dumps(self._info).encode() + b"\r\n")
            self.connections += 1
            while data := await reader.read(2**16):
                self.told += data
                if data.startswith(HANDSHAKE):
                    writer.write(b"-ERR 'Unknown Protocol Operation'\r\n")
                    break
                if b"PING\r\n" in data:
                    writer.write(b"PONG\r\n")
        writer.close()
        async with self._met:
            self._left += 1
            self._met.notify_all()

    async def met(self, count: int) -> None:
        """Wait until so many clients have come and gone."""
        async with asyncio.timeout(60), self._met:
            await self._met.wait_for(lambda: self._left >= count)


@pytest.fixture
async def plain() -> AsyncIterator[Plain]:
    async with Plain().running() as server:
        yield server


@pytest.fixture
async def secure(tls) -> AsyncIterator[nats.NatsServer]:
    async with nats.running(config=CONFIG + tls.config()) as server:
        yield server


def port_of(server: nats.NatsServer) -> int:
    return int(server.url.rpartition(":")[2])


def encrypted(connection: Connection) -> bool:
    transport: Any = connection._client._transport
    writer = transport._io_writer
    return writer.get_extra_info("ssl_object") is not None


# Ways in which TLS is asked for: URLs with a place for a port, and variables.
WAYS = {
    "tls://": ("tls://127.0.0.1:{port}", ()),
    "with a password": (f"tls://{USER}:{PASSWORD}@127.0.0.1:{{port}}", ()),
    "in capitals": ("TLS://127.0.0.1:{port}", ()),
    "for another server": ("nats://127.0.0.1:{port},tls://127.0.0.1:1", ()),
    "for another server first": ("tls://127.0.0.1:1, nats://127.0.0.1:{port}", ()),
    "without a scheme": ("127.0.0.1:{port},tls://127.0.0.1:1", ()),
    "NATS_CA": ("nats://127.0.0.1:{port}", ("NATS_CA",)),
    "NATS_CERT": ("nats://127.0.0.1:{port}", ("NATS_CERT", "NATS_KEY")),
}


EACH_WAY = pytest.mark.parametrize("way", WAYS)
SOME_WAYS = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way, marks=() if way in ("for another server", "NATS_CA") else pytest.mark.heavy
        )
        for way in WAYS
    ],
)


@pytest.fixture
def variables(way, tls) -> Callable[[int], dict[str, str]]:
    """Settings that ask for TLS, and that lead to a port."""
    url, names = WAYS[way]

    def given(port: int) -> dict[str, str]:
        return {
            "NATS_URL": url.format(port=port),
            "NATS_USER": USER,
            "NATS_PASSWORD": PASSWORD,
            "DATABASE_URL": "postgres://u@127.0.0.1:1/x",
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            "RESPONDER_ADMIN_LISTEN": "off",
            **{name: tls.variables[name] for name in names},
        }

    return given


@EACH_WAY
async def test_a_server_without_tls_is_told_nothing(variables, plain):
    """A connection that asks for TLS says what is wrong, and sends not a byte."""
    settings = Settings.read(variables(plain.port))
    with pytest.raises(UnavailableError) as refused:
        async with connected(
            settings.nats_url, name="test", options=settings.nats_options(), patience=2
        ):
            pass

    assert plain.connections
    assert b"" == plain.told
    assert "TLS is asked for" in refused.value.message
    assert f"the server at 127.0.0.1:{plain.port} offers none" in refused.value.message


@pytest.mark.parametrize("promise", ["tls_required", "tls_available"])
async def test_a_server_that_breaks_its_promise_is_told_nothing(tls, promise):
    """Where a server says that it has TLS and has none, it is told no more than a handshake."""
    async with Plain(**{promise: True}).running() as plain:
        settings = Settings.read({"NATS_URL": f"tls://{USER}:{PASSWORD}@127.0.0.1:{plain.port}"})
        with pytest.raises(UnavailableError):
            async with connected(settings.nats_url, name="test", patience=1):
                pass

    assert plain.told.startswith(HANDSHAKE)
    assert not any(word in plain.told for word in (b"CONNECT", PASSWORD.encode()))


@SOME_WAYS
@pytest.mark.parametrize("worker", [True, False], ids=["worker", "bridge"])
async def test_neither_worker_nor_bridge_tells_it(variables, plain, worker, caplog):
    """A service goes on looking for a server with TLS, and the log says what is wrong."""
    settings = Settings.read(variables(plain.port))

    async def serve() -> None:
        async with serving(settings, worker=worker):
            pass

    running = asyncio.create_task(serve())
    await plain.met(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert b"" == plain.told
    said = f"the server at 127.0.0.1:{plain.port} offers none"
    assert 1 == len([each for each in caplog.messages if said in each])


@SOME_WAYS
async def test_check_finds_it_and_tells_it_nothing(variables, plain):
    """`check` says that the server offers no TLS, and how to mend it."""
    report = await checks.check(Settings.read(variables(plain.port)))

    (finding,) = [each for each in report.findings if each.check == "nats"]
    assert b"" == plain.told
    assert "broken" == finding.severity
    assert f"127.0.0.1:{plain.port} offers none" in finding.message
    assert {"NATS_URL", "NATS_CA"} <= set(finding.remedy.replace(",", "").split())


@SOME_WAYS
async def test_request_tells_it_nothing(variables, plain, tmp_path):
    """`responder request` fails with what is wrong."""
    given = variables(plain.port) | {"RESPONDER_TIMEOUT": "0.8"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "responder", "request", "users.get", "x"),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(responder.__file__).parent.parent),
            **given,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate()

    assert (1, b"") == (process.returncode, out)
    assert f"127.0.0.1:{plain.port} offers none" in errors.decode().splitlines()[-1]
    assert b"" == plain.told


@pytest.mark.parametrize("option", ["tls", "tls_hostname", "tls_handshake_first", "URL"])
async def test_a_client_tells_it_nothing(tls, plain, option):
    """UsersClient asks for TLS by a URL, or by any of nats-py's options for TLS."""
    options: dict[str, dict[str, Any]] = {
        "tls": {"tls": tls.client_context()},
        "tls_hostname": {"tls_hostname": "localhost"},
        "tls_handshake_first": {"tls_handshake_first": True, "tls": tls.client_context()},
        "URL": {},
    }
    scheme = "tls" if option == "URL" else "nats"

    with pytest.raises(UnavailableError):
        async with UsersClient.connect(
            f"{scheme}://127.0.0.1:{plain.port}", timeout=1, **OPTIONS, **options[option]
        ):
            pass

    assert plain.connections
    assert not any(word in plain.told for word in (b"CONNECT", PASSWORD.encode()))


@pytest.mark.parametrize(
    "more", ["", ", verify: true", ", handshake_first: auto"], ids=["", "verify", "first"]
)
@pytest.mark.parametrize("url", ["tls://", "nats://", "TLS://", ""])
async def test_a_server_with_tls_is_connected_to(tls, more, url):
    """With the authority and a certificate a connection is encrypted, whatever the scheme."""
    async with nats.running(config=CONFIG + tls.config(more)) as server:
        settings = Settings.read(
            {
                "NATS_URL": f"{url}127.0.0.1:{port_of(server)}",
                "NATS_USER": USER,
                "NATS_PASSWORD": PASSWORD,
                **tls.variables,
            }
        )
        async with connected(
            settings.nats_url, name="test", options=settings.nats_options(), patience=20
        ) as connection:
            await connection.check(2)
            assert encrypted(connection)
        report = await checks.check(settings)

    assert {"nats", "workers"} <= report.servers.keys()


@pytest.mark.parametrize("url", ["tls://{user}@127.0.0.1:{port}", "nats://{user}@127.0.0.1:{port}"])
async def test_tls_that_is_only_offered_is_taken(tls, url):
    """A server that lets clients choose is spoken to with TLS, which nats-py would not do."""
    async with nats.running(config=CONFIG + tls.config() + "allow_non_tls: true\n") as server:
        urls = [url.format(user=f"{USER}:{PASSWORD}", port=port_of(server))]
        options = {"tls": tls.client_context()}
        async with connected(urls, name="test", options=options, patience=20) as connection:
            assert encrypted(connection)


async def test_without_tls_asked_for_there_need_be_none():
    """`nats://` alone connects to a server without TLS."""
    async with (
        nats.running(config=CONFIG) as server,
        connected([server.url], name="test", options=OPTIONS, patience=20) as connection,
    ):
        await connection.check(2)
        assert not encrypted(connection)


async def test_a_certificate_of_another_authority_is_no_connection(secure, tmp_path):
    """A server that the given authority does not vouch for is told nothing, as before."""
    other = certificates.make(tmp_path)
    urls, options = [f"tls://127.0.0.1:{port_of(secure)}"], {"tls": other.client_context()}

    with pytest.raises(UnavailableError):
        async with connected(urls, name="test", options={**OPTIONS, **options}, patience=1):
            pass


@pytest.mark.parametrize("first", ["plain", "secure"])
async def test_of_several_servers_those_with_tls_are_used(tls, plain, secure, first):
    """A server without TLS among others is passed over, in whichever order they are tried."""
    urls = [f"nats://127.0.0.1:{plain.port}", f"tls://127.0.0.1:{port_of(secure)}"]
    options = {**OPTIONS, "tls": tls.client_context(), "dont_randomize": True}

    async with connected(
        urls if first == "plain" else urls[::-1], name="test", options=options, patience=20
    ) as connection:
        assert encrypted(connection)
        await connection.check(2)

    assert b"" == plain.told


async def test_a_server_that_comes_back_without_tls_is_told_nothing(tls, caplog):
    """After a restart without TLS there is no connection until there is TLS again."""
    async with AsyncExitStack() as stack:
        async with nats.running(config=CONFIG + tls.config()) as server:
            port = port_of(server)
            options = {**OPTIONS, "tls": tls.client_context()}
            connection = await stack.enter_async_context(
                connected([f"tls://127.0.0.1:{port}"], name="test", options=options, patience=20)
            )
            echoed = asyncio.Event()
            await connection.listen("echo", lambda *_: echoed.set())
        async with Plain().running(port) as plain:
            await until(lambda: not connection._client.is_connected)
            connection.send(b"secret", b"payload in the clear")
            await plain.met(2)
            with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} offers none"):
                await connection.check(0.2)
            with pytest.raises(UnavailableError, match="NATS is out of reach"):
                await connection.ask("users.get", b"x", timeout=0.2)
        assert b"" == plain.told

        async with nats.running(config=CONFIG + tls.config(), port=port):
            await until(lambda: connection._client.is_connected)
            await connection.check(2)
            connection.send(b"echo", b"")
            async with asyncio.timeout(60):
                await echoed.wait()
            assert encrypted(connection)

    assert 1 == caplog.text.count("offers none")


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_node_that_the_cluster_tells_of_is_told_nothing_without_tls(tls, plain, scheme):
    """A server with TLS names another that has none: losing the first, no byte goes there."""
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "a", "version": "2.10.0", "max_payload": 2**20, "tls_required": True}
        info["connect_urls"] = [f"127.0.0.1:{plain.port}"]
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        await writer.drain()
        with suppress(OSError):
            await writer.start_tls(tls.server_context())
            while b"PING" not in await reader.readline():
                pass
            writer.write(b"PONG\r\n")
            told.set()
            await plain_is_next.wait()
        writer.close()

    plain_is_next = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = {**OPTIONS, "tls": tls.client_context()}
        async with connected(
            [f"{scheme}://127.0.0.1:{port}"], name="test", options=options, patience=20
        ) as connection:
            await told.wait()
            server.close()
            plain_is_next.set()
            await plain.met(1)
            await until(lambda: "offers none" in connection.trouble)

    assert b"" == plain.told


async def test_ready_says_that_the_server_offers_no_tls(tls, template, create_database):
    """A service whose server comes back without TLS is not ready, and says why."""
    url = await create_database(template=template[0])
    async with AsyncExitStack() as stack:
        async with nats.running(config=CONFIG + tls.config()) as server:
            port = port_of(server)
            settings = Settings.read(
                {
                    "DATABASE_URL": url,
                    "NATS_URL": f"tls://{USER}:{PASSWORD}@127.0.0.1:{port}",
                    "NATS_CA": tls.ca,
                    "RESPONDER_HTTP_LISTEN": "off",
                    "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
                }
                | {"RESPONDER_TIMEOUT": "0.5"}
            )
            running = await stack.enter_async_context(serving(settings))
        async with Plain().running(port) as plain:
            await plain.met(2)
            said = await get(running.admin_url, "/ready")
        assert b"" == plain.told

    assert "not ready: TLS is asked for" in said
    assert f"127.0.0.1:{port} offers none" in said


async def get(url: str | None, path: str) -> str:
    async with httpx.AsyncClient(base_url=url or "", trust_env=False) as client:
        return (await client.get(path)).text


def test_a_key_without_its_certificate_is_refused(tls):
    """NATS_KEY alone would be left out silently, and the connection be that of no client."""
    with pytest.raises(SettingsError, match="NATS_CERT"):
        Settings.read({"NATS_KEY": tls.variables["NATS_KEY"]}).nats_options()


def test_what_is_no_authority_is_refused(tls, tmp_path):
    """A file for NATS_CA without a certificate in it does not trust the system's instead."""
    (tmp_path / "empty.pem").write_text("")

    with pytest.raises(SettingsError, match="NATS_CA"):
        Settings.read({"NATS_CA": str(tmp_path / "empty.pem")}).nats_options()
