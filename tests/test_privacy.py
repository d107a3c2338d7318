"""The plugin `privacy` finds what must not be told, wherever responder tells it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from responder import logs
from responder.dev.tokens import Mint
from responder.tokens import key_source
from tests import privacy

TESTS = Path(__file__).parent
ADDRESS = "planted" + "@somewhere.example"


@pytest.fixture
def ledger() -> Iterator[privacy.Ledger]:
    """One of its own, so that what is planted is not found at the end of the session."""
    own, theirs = privacy.Ledger(), privacy.LEDGER
    log = logging.getLogger("responder")
    log.removeHandler(theirs)
    log.addHandler(own)
    yield own
    log.removeHandler(own)
    log.addHandler(theirs)


def test_a_leak_is_found(ledger):
    """Passwords, tokens and their parts are found in what was said, emails even if not noted."""
    token = Mint().token("ann")
    ledger.use("a long password", token)
    log = logging.getLogger("responder.worker")
    for said in ("fine", "x a long password", ADDRESS, token, token.split(".")[1], "eyJ" + "x" * 9):
        log.debug("said %s", said)

    found = "\n".join(ledger.leaks())

    for leak in ("a long password", ADDRESS, token, token.split(".")[1]):
        assert repr(leak) in found
    assert "fine" not in found
    assert 5 >= len({line.partition(": ")[2] for line in ledger.leaks()})


def test_what_a_request_names_may_be_repeated(ledger):
    """An unknown key is named (subjects.md, Requests); what stands beside it is not."""
    ledger.use("a long password")
    ledger.hear("an error", f"unknown key: {ADDRESS}")
    assert [] == list(ledger.leaks())
    ledger.hear("an error", f"unknown key: x\n{ADDRESS}")
    assert 1 == len(list(ledger.leaks()))


PLANTED = {
    "log": "logging.getLogger('responder').debug('for %s', 'planted' + '@somewhere.example')",
    "error": "errors.NotFoundError('no password ' + password)",
    "standard error": "os.write(2, ('planted' + '@somewhere.example').encode())",
    "nothing": "logging.getLogger('responder').error('all is well')",
}


@pytest.mark.heavy
@pytest.mark.parametrize("planted", PLANTED)
async def test_a_session_with_a_leak_fails(tmp_path, planted):
    """A suite whose tests pass fails if one of them has made responder tell a secret."""
    (tmp_path / "conftest.py").write_text(
        "import privacy\ndef pytest_configure(config): config.pluginmanager.register(privacy)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import logging, os, privacy\nfrom responder import errors\npassword = 'swordfish' * 2\n"
        f"def test_it():\n    privacy.LEDGER.use(password)\n    {PLANTED[planted]}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", os.devnull),
        *("-p", "no:cacheprovider", str(tmp_path)),
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await process.communicate())[0].decode()

    assert "1 passed" in out
    assert (planted == "nothing") == (process.returncode == 0)
    assert (planted == "nothing") == ("LEAK" not in out)


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_the_address_of_the_key_set_is_not_logged(capsys, level):
    """The URL of a key set may hold a password; at no level is it in the log."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        logs.configure(level, "json")
        assert b"{}" == await key_source.download(
            f"http://someone:swordfish@127.0.0.1:{port}/jwks?key=pike"
        )
        logging.getLogger("responder").warning("said")
    finally:
        server.close()

    logged = capsys.readouterr().err
    assert "said" in logged
    assert not any(each in logged for each in ("swordfish", "pike", "127.0.0.1"))
