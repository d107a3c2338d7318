"""PgBouncer, for tests that go through it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from responder.dev import process as child
from responder.dev.postgres import _account
from tests.ports import listening

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")


@pytest.fixture(scope="session")
def bouncer_program() -> Iterator[Path]:
    """PgBouncer, as it is installed or as Debian has it."""
    if program := shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"):
        yield Path(program)
        return
    if not (sys.platform == "linux" and shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("no pgbouncer, and no Debian to take it from")
    # Each session of pytest closes the folder of all its sessions to other accounts, and PgBouncer
    # does not run as root: so it is not in that folder.
    with child.temporary_directory("pgbouncer-program") as folder:
        folder.chmod(0o755)  # programs of Debian, for whichever account runs them
        fetched = subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, check=False
        )
        if fetched.returncode:
            pytest.skip(f"no pgbouncer: {fetched.stderr.decode()[-200:]}")
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, folder / "package"], check=True)
        yield folder / "package" / "usr" / "sbin" / "pgbouncer"


@asynccontextmanager
async def bouncing(
    program: Path, port: int, config: str, *, logins: str = ""
) -> AsyncIterator[None]:
    """Run PgBouncer on a port, in a directory with its configuration and userlist.txt."""
    account = _account()
    with child.temporary_directory("pgbouncer", owner=account) as folder:
        (folder / "pgbouncer.ini").write_text(config)
        (folder / "userlist.txt").write_text(logins)
        for each in folder.iterdir():
            each.chmod(0o644)
        libraries = program.parent.parent / "lib" / "x86_64-linux-gnu"
        log = folder / "pgbouncer.log"
        async with child.running(
            Path("/usr/bin/env"),
            *(f"LD_LIBRARY_PATH={libraries}", str(program), "pgbouncer.ini"),
            directory=folder,
            log=log,
            account=account,
        ) as process:
            await child.ready(process, partial(listening, port), log=log)
            yield
