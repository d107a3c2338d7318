"""`responder serve` as a program of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.ports import at, free_port

PATIENCE = 60.0  # seconds for it to be ready
SERVE = (sys.executable, "-m", "responder", "serve", "--no-http")


@asynccontextmanager
async def running(
    *command: object, directory: Path, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a command that serves, once it is ready; yields the process and the URL of its /ready.

    Args:
        command: program and arguments.
        directory: where it runs: it reads `.env` there.
        variables: of its environment.
    """
    admin = at(free_port())
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "RESPONDER_ADMIN_LISTEN": admin,
            "RESPONDER_LOG_LEVEL": "error",
            **variables,
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until_ready(process, f"http://{admin}/ready")
        yield process, f"http://{admin}/ready"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_ready(process: asyncio.subprocess.Process, url: str) -> None:
    """Wait until a program that runs says that it is ready."""
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert process.returncode is None
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.02)
