"""Connection strings, as applications have them, mean to us what they mean to the application."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import SettingsError
from responder.postgres.connection import connect
from responder.postgres.dsn import Dsn, parse
from responder.settings import Settings
from tests.certificates import certify

SECRET = "hunter2"
PREFER = "postgresql:///?sslmode=prefer"
REQUIRE = "postgresql:///?sslmode=require"
# Connection strings, each with what its meaning has that the first has not.
WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("postgres://app:pw@db/main", {}),
    "the other scheme": ("postgresql://app:pw@db/main", {}),
    "SQLAlchemy": ("postgresql+asyncpg://app:pw@db/main", {}),
    "a port": ("postgres://app:pw@db:6432/main", {"servers": (("db", 6432),)}),
    "several hosts": (
        "postgres://app:pw@a:1,b,[::1]:3/main?target_session_attrs=read-write",
        {"servers": (("a", 1), ("b", None), ("::1", 3)), "targets": ("primary",)},
    ),
    "a standby if there is one": (
        "postgres://app:pw@db/main?target_session_attrs=prefer-standby",
        {"targets": ("standby", "any")},
    ),
    "hosts and ports as parameters": (
        "postgres:///main?host=a,b&port=1,2&user=app&password=pw",
        {"servers": (("a", 1), ("b", 2))},
    ),
    "one port for several hosts": (
        "postgres:///main?host=a,b&port=7&user=app&password=pw",
        {"servers": (("a", 7), ("b", 7))},
    ),
    "a socket": ("postgres://app:pw@%2Ftmp/main", {"servers": (("/tmp", None),)}),
    "Cloud SQL": (
        "postgres://app:pw@/main?host=/cloudsql/project:region:name",
        {"servers": (("/cloudsql/project:region:name", None),)},
    ),
    "awkward characters, escaped": (
        "postgres://a%40pp:p%2Fw%3A%40%23%3F@db/m%2Fain",
        {"user": "a@pp", "password": "p/w:@#?", "database": "m/ain"},
    ),
    "awkward characters, as they are": (
        "postgres://app:p/w:@#%@db/main",
        {"password": "p/w:@#%"},
    ),
    "no user": ("postgres://db/main", {"user": None, "password": None}),
    "nothing": (
        "postgres://",
        {"servers": ((None, None),), "user": None, "password": None, "database": None},
    ),
    "Heroku": ("postgres://app:pw@db/main?sslmode=require", {"tls": REQUIRE}),
    "node-postgres": ("postgres://app:pw@db/main?sslmode=no-verify", {"tls": REQUIRE}),
    "node-postgres' flag": ("postgres://app:pw@db/main?ssl=true", {"tls": REQUIRE}),
    "verified": (
        "postgres://app:pw@db/main?sslmode=verify-full&sslrootcert=/ca.pem",
        {
            "tls": "postgresql:///?sslmode=verify-full&sslrootcert=%2Fca.pem",
            "files": ("/ca.pem",),
        },
    ),
    "verified with the certificates of the system": (
        "postgres://app:pw@db/main?sslmode=verify-full&sslrootcert=system",
        {"tls": "postgresql:///?sslmode=verify-full", "system_roots": True},
    ),
    "verified, node-postgres and Neon": (
        "postgres://app:pw@db/main?sslmode=verify-full",
        {"tls": "postgresql:///?sslmode=verify-full", "system_roots": True},
    ),
    "Prisma": (
        "postgresql://app:pw@db/main?schema=auth&connection_limit=5&pool_timeout=0&sslcert=ca.pem",
        {
            "search_path": ("auth",),
            "ignored": ("connection_limit", "pool_timeout"),
            "tls": "postgresql:///?sslmode=prefer&sslrootcert=ca.pem",
            "files": ("ca.pem",),
        },
    ),
    "Neon": (
        (
            "postgresql://app:pw@db/main?sslmode=require&channel_binding=require"
            "&options=endpoint%3Dep-a-1"
        ),
        {"tls": REQUIRE, "ignored": ("channel_binding",), "options": "endpoint=ep-a-1"},
    ),
    "Supabase's pooler, by its option": (
        "postgres://app:pw@db/main?options=reference%3Dabcdef",
        {"options": "reference=abcdef"},
    ),
    "Prisma, from a file with spaces around": (" postgres://app:pw@db/main\n", {}),
    "Supabase's pooler": (
        "postgres://postgres.ref:pw@db:6543/main?pgbouncer=true&connection_limit=1",
        {
            "servers": (("db", 6543),),
            "user": "postgres.ref",
            "pooled": True,
            "ignored": ("connection_limit",),
        },
    ),
    "a search path": (
        (
            "postgres://app:pw@db/main"
            "?options=-c%20search_path%3Dauth,public%20-c%20statement_timeout%3D1"
        ),
        {"search_path": ("auth", "public")},
    ),
    "a search path that begins with the role's own schema": (
        'postgres://app:pw@db/main?options=-c search_path="$user",auth',
        {"search_path": ("app", "auth")},
    ),
    "a search path with spaces and quotes": (
        'postgres://app:pw@db/main?options=--search_path=Auth,\\ "My\\ ""Auth"""+-c+jit=off',
        {"search_path": ("auth", 'My "Auth"')},
    ),
    "a search path set twice": (
        "postgres://app:pw@db/main?options=-c search_path=a -csearch_path=b",
        {"search_path": ("b",)},
    ),
    "a search path as a parameter, as in postgres.js": (
        "postgres://app:pw@db/main?search_path=auth%2Cpublic",
        {"search_path": ("auth", "public")},
    ),
    "a search path as in JDBC": (
        "postgres://app:pw@db/main?currentSchema=auth",
        {"search_path": ("auth",)},
    ),
    "a search path that is none": ("postgres://app:pw@db/main?search_path=a b,", {}),
    "no schema in particular": (
        'postgres://app:pw@db/main?options=-c+search_path="$user",public',
        {},
    ),
    "postgres.js": (
        "postgres://app:pw@db/main?max=5&idle_timeout=3",
        {"ignored": ("idle_timeout", "max")},
    ),
    "parameters that nothing knows": (
        "postgres://app:pw@db/main?a=1&a=2&&b&application_name=x&statement_timeout=1&%0A=1",
        {"ignored": ("a", "application_name", "b", "statement_timeout", "…")},
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_connection_string_is_taken_as_it_is_written(name):
    """A string from an application, an ORM or a host means what it means there."""
    text, special = WRITTEN[name]
    plain = Dsn(servers=(("db", None),), user="app", password="pw", database="main", tls=PREFER)
    expected = {field: getattr(plain, field) for field in Dsn.__slots__} | special

    assert Dsn(**expected) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"host=db password={SECRET}", "not libpq's form with key=value"),
        (f"prisma://accelerate?api_key={SECRET}", "not of Prisma's proxy"),
        (f"prisma+postgres://x?api_key={SECRET}", "not of Prisma's proxy"),
        (f"mysql://app:{SECRET}@db/main", "expected a postgres:// or postgresql:// URI"),
        (f"jdbc:postgresql://db/main?password={SECRET}", "expected a postgres://"),
        (
            f"postgres://app:{SECRET}?@db/main",
            "special characters of a password are written as %xx",
        ),
        (f"postgres://app:{SECRET}@db:99999/main", "a port is a number up to 65535"),
        (f"postgres://app:{SECRET}@db:0/main", "a port is a number"),
        (f"postgres://app:{SECRET}@::1/main", "an IPv6 address is in [brackets]"),
        (f"postgres://app:{SECRET}@db/main?sslmode={SECRET}", "sslmode is one of disable, allow"),
        (
            f"postgres://app:{SECRET}@db/main?target_session_attrs=x",
            "target_session_attrs is one of",
        ),
        (f"postgres://app:{SECRET}@db/main?port=x{SECRET}", "a port is a number"),
        (f"postgres://app:{SECRET}@db/main?sslnegotiation=x", "sslnegotiation is one of postgres"),
    ],
)
def test_a_connection_string_that_cannot_work_is_refused_at_start(text, message):
    """The error names the setting and what is wrong, and repeats nothing of the string."""
    with pytest.raises(SettingsError) as refused:
        Settings.read({"DATABASE_URL": text})

    assert str(refused.value).startswith("DATABASE_URL: ")
    assert message in str(refused.value)
    assert SECRET not in str(refused.value)


async def test_a_certificate_that_is_not_there_ends_the_start(people_service, start):
    """A file that cannot be read is an error at the start, and is not tried for ever."""
    with pytest.raises(SettingsError, match="DATABASE_URL: a certificate or key"):
        await start(f"{people_service.url}?sslmode=verify-full&sslrootcert=/nowhere.pem")


any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(user=any_text, password=any_text, database=any_text)
def test_any_character_may_be_escaped(user, password, database):
    """A user, a password and a database with any characters may be written with %xx."""
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    text = f"postgres://{credentials}@db/{quote(database, safe='')}"

    dsn = parse(text)

    assert (user, password, database) == (dsn.user, dsn.password, dsn.database)
    assert (("db", None),) == dsn.servers
    assert "password" not in repr(dsn)


@given(st.text())
def test_any_text_is_read_or_refused_and_not_repeated(text):
    """Any text is a connection string, or a ValueError that shows nothing of it."""
    for written in (text, f"postgres://{text}", f"postgres://u:{SECRET}{text}@h/db?{text}"):
        shown = ""
        try:
            shown = repr(parse(written).ignored)
        except ValueError as error:
            shown = str(error)
        assert SECRET not in shown


async def test_a_host_that_does_not_answer_leaves_time_for_the_next(people_service):
    """Each host has a timeout of its own."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        who, _, there = people_service.url.rpartition("@")
        text = f"{who}@127.0.0.1:{silent.getsockname()[1]},{there}"
        async with asyncio.timeout(60):
            session = await connect(parse(text), timeout=0.3)
        answer = await session.fetch("select 1")
        session.terminate()

    assert 1 == answer[0][0]


@asynccontextmanager
async def with_tls(
    url: str, folder: Path, *, mutual: bool = False
) -> AsyncIterator[tuple[str, Path]]:
    """PostgreSQL behind a certificate for localhost: the URL through it, and the file to trust.

    With `mutual`, it asks for that certificate of a client.
    """
    certificate, key = certify(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if mutual:
        context.load_verify_locations(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    target = urlsplit(url)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(2**16):
            sink.write(data)
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"S")
        with suppress(OSError):
            await writer.start_tls(context)
            postgres = await asyncio.open_connection(target.hostname, target.port)
            await asyncio.gather(copy(reader, postgres[1]), copy(postgres[0], writer))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        who = target.netloc.rpartition("@")[0]
        yield f"postgresql://{who}@localhost:{port}{target.path}", certificate


@pytest.mark.parametrize(
    "parameters",
    ["sslmode=verify-full", "sslmode=verify-ca", "sslmode=verify-full&sslrootcert=system"],
)
async def test_a_server_is_verified_with_the_certificates_of_the_system(
    people_service, tmp_path, monkeypatch, parameters
):
    """Where no file says which certificates to trust, the system does, as in node-postgres."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with with_tls(people_service.url, tmp_path) as (url, certificate):
        dsn = parse(f"{url}?{parameters}")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(dsn, timeout=30)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        session = await connect(dsn, timeout=30)
        answer = await session.fetch("select 1")
        session.terminate()

    assert 1 == answer[0][0]


async def test_a_server_that_asks_for_a_certificate_gets_one(people_service, tmp_path, monkeypatch):
    """`sslcert` and `sslkey` are shown to a server that the system's certificates verify."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with with_tls(people_service.url, tmp_path, mutual=True) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await connect(parse(f"{url}?sslmode=verify-full"), timeout=30)
        ours = f"sslcert={certificate}&sslkey={tmp_path / 'key.pem'}"
        session = await connect(parse(f"{url}?sslmode=verify-full&{ours}"), timeout=30)
        answer = await session.fetch("select 1")
        session.terminate()

    assert 1 == answer[0][0]


@pytest.mark.parametrize("target", ["any", "primary", "read-write", "prefer-standby"])
async def test_a_primary_is_found_though_our_connections_are_read_only(people_service, target):
    """`read-write` is the server that takes writes, though responder never sends any."""
    session = await connect(
        parse(f"{people_service.url}?target_session_attrs={target}"), timeout=30
    )
    session.terminate()


@pytest.mark.parametrize("target", ["standby", "read-only"])
async def test_a_primary_is_not_taken_for_a_standby(people_service, target):
    """Where the string asks for a standby, a primary is not connected to."""
    with pytest.raises(Exception, match="None of the hosts"):
        await connect(parse(f"{people_service.url}?target_session_attrs={target}"), timeout=30)
