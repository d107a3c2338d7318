"""Worker processes: what they run, and when they are not started again."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import nats as nats_py
import psutil
import pytest
from nats.errors import Error as NatsError

import responder
from responder import heartbeat, supervisor
from responder.dev import nats
from responder.settings import Settings
from tests import programs
from tests.pausing import paused
from tests.programs import PATIENCE, until_ready

PACKAGE = Path(responder.__file__).parent
BUSY = 4  # what takes a second may take as many where the machine does much else
# What a worker imports, sooner or later, of the standard library, of others, and of ours.
IMPORTED = [
    *("asyncio", "json", "logging", "os", "signal", "socket", "ssl", "typing", "argparse", "http"),
    *("sitecustomize", "usercustomize", "uvloop", "httptools", "uvicorn", "nats", "asyncpg"),
    *("starlette", "msgspec", "pydantic", "jwt", "cryptography", "nkeys", "responder", "dotenv"),
]


@asynccontextmanager
async def served(
    *command: object, cwd: Path, url: str, path: str | None = None, nats_url: str | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run two workers by a command, once they are ready; yields the supervisor and its /ready."""
    async with AsyncExitStack() as stack:
        if nats_url is None:
            nats_url = (await stack.enter_async_context(nats.running())).url
        environment = {
            "DATABASE_URL": url,
            "NATS_URL": nats_url,
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
            **({"PYTHONPATH": path} if path else {}),
        }
        serve = (*command, "serve", "--workers", "2")
        yield await stack.enter_async_context(
            programs.running(*serve, directory=cwd, **environment)
        )


@pytest.fixture
async def url(create_database, template) -> str:
    return await create_database(template=template[0])


@pytest.fixture
def tree() -> str:
    """Where the responder is that the tests have imported."""
    return str(PACKAGE.parent)


async def test_workers_run_no_code_of_the_working_directory(url, tree, tmp_path):
    """A file there with the name of a module that a worker imports is never run."""
    hostile = tmp_path / "cwd"
    hostile.mkdir()
    trace = f"open({str(tmp_path / 'trace')!r}, 'a').write(__name__ + '\\n')"
    for name in IMPORTED:
        (hostile / f"{name}.py").write_text(trace)
    script = Path(sys.executable).with_name("responder")

    async with served(script, cwd=hostile, url=url, path=tree) as (process, _):
        workers = psutil.Process(process.pid).children()

    assert 2 == len(workers)
    assert not (tmp_path / "trace").exists()


@pytest.mark.heavy
async def test_workers_run_the_responder_of_their_supervisor(url, tmp_path):
    """However the supervisor found its modules, the workers import the very same."""
    copy = tmp_path / "copy" / "responder"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    trace = tmp_path / "trace"
    with (copy / "terminal.py").open("a") as file:
        file.write(f"\nimport os; open({str(trace)!r}, 'a').write(f'{{os.getpid()}}\\n')\n")
    start = (
        f"import sys; sys.path.insert(0, {str(copy.parent)!r}); "
        "from responder.cli import main; sys.exit(main())"
    )

    async with served(sys.executable, "-c", start, cwd=tmp_path, url=url) as (process, _):
        workers = psutil.Process(process.pid).children()

    assert sorted([process.pid, *(each.pid for each in workers)]) == sorted(
        map(int, trace.read_text().split())
    )


@pytest.mark.parametrize("isolation", [[], ["-I"], ["-E", "-s"]])
async def test_workers_are_as_isolated_as_their_supervisor(tmp_path, isolation):
    """What a supervisor does not take from its environment is kept from its workers, too."""
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); "
        "import responder.supervisor as s; print(*s.command(), sep='\\0')"
    )
    told = await asyncio.create_subprocess_exec(
        *(sys.executable, *isolation, "-c", code), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    command = (await told.communicate())[0].decode().strip().split("\0")

    assert sys.executable == command[0]
    assert {*isolation, "-P"} <= set(command)
    assert str(tmp_path) not in command[-1]


@pytest.fixture
def settings(url) -> Settings:
    return Settings.read(
        {
            "DATABASE_URL": url,
            "RESPONDER_HTTP_AUTH": "disabled",
            "RESPONDER_HTTP_LISTEN": "off",
            "RESPONDER_ADMIN_LISTEN": "off",
        }
    )


async def test_a_worker_that_ends_at_once_with_0_cannot_work(settings, monkeypatch, caplog):
    """What ends well before it has served does something else: it is not tried for ever."""
    monkeypatch.setattr(sys, "executable", shutil.which("true"))

    async with asyncio.timeout(PATIENCE):
        status = await supervisor.supervise(settings, count=2)

    assert supervisor.CANNOT_WORK == status
    assert re.search(r"worker \d has ended with status 0 before it has served", caplog.text)


async def test_a_worker_that_fails_at_once_is_tried_again(settings, monkeypatch, caplog):
    """What fails may have failed because of a server that is not there yet."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    running = asyncio.create_task(supervisor.supervise(settings, count=1))
    async with asyncio.timeout(PATIENCE):
        while caplog.text.count("has ended with status 1") < 3:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.heavy
async def test_a_worker_that_was_told_to_end_is_started_again(url, tree, tmp_path):
    """A worker that has served and then ends well, by a signal of its own, is there again."""
    script = Path(sys.executable).with_name("responder")
    async with served(script, cwd=tmp_path, url=url, path=tree) as (process, ready):
        first = {each.pid for each in psutil.Process(process.pid).children()}
        os.kill(min(first), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while {each.pid for each in psutil.Process(process.pid).children()} == first:
                await asyncio.sleep(0.02)
        await until_ready(process, ready)
        second = {each.pid for each in psutil.Process(process.pid).children()}

    assert 2 == len(second)
    assert max(first) in second


async def test_no_connection_to_a_worker_is_kept(tmp_path):
    """A worker that ends waits for what may come on a connection: there is none after a page."""
    closed = asyncio.Event()

    async def answer(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "1.sock"):
        child = supervisor.Child(1, tmp_path / "1.sock", None, drain_timeout=1)
        child.running = True
        assert (200, "ok") == await child.get("/live")
        async with asyncio.timeout(PATIENCE):
            await closed.wait()


@asynccontextmanager
async def load(client, user_id: str) -> AsyncIterator[list[float]]:
    """Ask for a user 100 times a second; yields the times at which a lost request was sent."""
    lost: list[float] = []
    over = asyncio.Event()

    async def ask(sent: float) -> None:
        try:
            reply = await client.request("users.get", user_id.encode(), timeout=10)
            assert user_id.encode() in reply.data
        except NatsError:
            lost.append(sent)

    async def send() -> None:
        async with asyncio.TaskGroup() as asked:
            while not over.is_set():
                asked.create_task(ask(monotonic()))
                await asyncio.sleep(0.01)

    sending = asyncio.create_task(send())
    try:
        yield lost
    finally:
        over.set()
        await sending


@pytest.mark.load
async def test_a_worker_that_hangs_is_replaced(url, tree, cast, tmp_path):
    """For less than three seconds requests are lost to it, and /ready tells all the while."""
    script = Path(sys.executable).with_name("responder")
    slowest = 0.0
    states: list[int] = []
    async with nats.running() as server, AsyncExitStack() as stack:
        process, ready = await stack.enter_async_context(
            served(script, cwd=tmp_path, url=url, path=tree, nats_url=server.url)
        )
        client = await nats_py.connect(server.url)
        stack.push_async_callback(client.close)
        admin = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        first = {each.pid for each in psutil.Process(process.pid).children()}
        async with load(client, cast.owner.id) as lost:
            os.kill(min(first), signal.SIGSTOP)
            stopped = monotonic()
            async with asyncio.timeout(PATIENCE):
                while states[-1:] != [200] or 503 not in states:
                    asked = monotonic()
                    states.append((await admin.get(ready)).status_code)
                    slowest = max(slowest, monotonic() - asked)
                    await asyncio.sleep(0.02)
            back = monotonic()
            await asyncio.sleep(0.5)  # some 50 requests more
        second = {each.pid for each in psutil.Process(process.pid).children()}

    assert lost, "a hung worker loses what it is sent"
    assert {max(first)} == first & second
    assert max(lost) < min(back, stopped + 3 * BUSY)
    assert slowest < BUSY


@pytest.mark.load
async def test_after_a_pause_of_the_machine_no_worker_is_replaced(url, tree, tmp_path):
    """All processes are stopped for longer than a worker may be silent, and go on as they were."""
    script = Path(sys.executable).with_name("responder")
    async with served(script, cwd=tmp_path, url=url, path=tree) as (process, ready):
        first = {each.pid for each in psutil.Process(process.pid).children()}
        everyone = (process.pid, *first)
        with paused(*everyone):
            await asyncio.sleep(heartbeat.SILENCE + 1)  # the pause itself
        await asyncio.sleep(heartbeat.SILENCE)  # a worker would be replaced by now
        await until_ready(process, ready)
        second = {each.pid for each in psutil.Process(process.pid).children()}

    assert first == second


@pytest.mark.heavy
async def test_workers_that_hang_together_are_replaced_in_turn():
    """The second is killed only once the first is back, and has been silent all the while."""
    killed: list[int] = []
    hearts = [heartbeat.Heart(partial(killed.append, n)) for n in range(2)]
    for each in hearts:
        each.theirs.send(b".")
    watching = asyncio.create_task(heartbeat.watch(lambda: hearts))
    try:
        async with asyncio.timeout(PATIENCE):
            while not killed:
                await asyncio.sleep(0.01)
        hearts[killed[0]].close()
        hearts[killed[0]] = heartbeat.Heart(lambda: killed.append(2))  # has not beaten yet
        await asyncio.sleep(heartbeat.SILENCE + 0.5)
        assert 1 == len(killed)
        async with asyncio.timeout(PATIENCE):
            while len(killed) < 2:
                hearts[killed[0]].theirs.send(b".")
                await asyncio.sleep(0.1)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for each in hearts:
            each.close()

    assert {0, 1} == set(killed)
