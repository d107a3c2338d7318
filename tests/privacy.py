"""A plugin for pytest: what responder tells of itself holds nothing personal or secret."""

# What the suite uses: emails, tokens and passwords, noted where they are made or sent, and every
# email in the tables of a service. What is heard: log lines at every level as operators have them,
# what programs write to standard error, error texts, and for every service its metrics, readiness
# and statistics.
#
# The session fails if anything used is in anything heard, or if something heard looks like an email
# or a JWT, used or not. An unknown key that a request names is repeated in the error (64 characters
# of it), and is left out here. What is shorter than eight characters cannot be told from words.

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from responder import errors, logs
from responder.dev.tokens import Mint
from responder.settings import Settings

SHORTEST: Final = 8
LOGGERS: Final = ("responder", "asyncio", "uvicorn", "nats")
_ECHO = re.compile(r"unknown (key|query parameter): [^\n]{0,64}")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(\.[\w-]+)*\.[a-zA-Z]{2,}")
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}")
_SECRET_NAMES = ("NATS_PASSWORD", "NATS_TOKEN", "RESPONDER_JWT_SECRET")


class Ledger(logging.Handler):
    """What has been used, and what has been heard."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logs.TextFormatter("%(name)s %(levelname)s %(message)s"))
        self.used: set[str] = set()
        self.heard: dict[str, str] = {}  # where, by what
        self.sum: tuple[int, int, list[str]] = 0, 0, []  # at the end: used, heard, found

    def use(self, *secrets: str | None) -> None:
        """Note what must not be heard; of a JWT, no part of it."""
        for secret in filter(None, secrets):
            parts = secret.split(".") if secret.startswith("eyJ") else []
            self.used.update(each for each in (secret, *parts) if len(each) >= SHORTEST)

    def hear(self, where: str, text: str) -> None:
        """Note what responder has said."""
        self.heard.setdefault(_ECHO.sub("", text), where)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a log line."""
        self.hear("a log", self.format(record))

    def add(self, used: int, heard: int, found: list[str]) -> None:
        """Add to the sum."""
        self.sum = self.sum[0] + used, self.sum[1] + heard, [*self.sum[2], *found]

    def leaks(self) -> Iterator[str]:
        """Each thing used that was heard."""
        everything = "\n".join(self.heard)
        found = {each for each in self.used if each in everything}
        found |= {each[0] for form in (_EMAIL, _JWT) for each in form.finditer(everything)}
        for secret in sorted(found):
            for text, where in self.heard.items():
                if secret in text:
                    yield f"{secret!r} in {where}: {text}"


LEDGER = Ledger()


def note_settings(variables: Mapping[str, str]) -> None:
    """Note the passwords among variables."""
    for name, value in variables.items():
        LEDGER.use(*(value.split(",") if name in _SECRET_NAMES else ()))
        for each in value.split(",") if "://" in value else ():
            try:
                password = urlsplit(each.strip()).password
            except ValueError:
                continue
            LEDGER.use(password, password and unquote(password))


def note_headers(headers: Mapping[str, str]) -> None:
    """Note the token of a request."""
    for name, value in headers.items():
        if name.lower() == "authorization":
            LEDGER.use(value.partition(" ")[2].strip())


async def note_request(request: Any) -> None:
    """Note what an HTTP request shows (a hook of httpx)."""
    note_headers(request.headers)
    path, _, email = request.url.path.rpartition("/email/")
    LEDGER.use(email if path and "@" in email else None)


async def hear_response(response: Any) -> None:
    """Note what an HTTP response says, unless it is what was asked for (a hook of httpx)."""
    if response.status_code >= 400:
        await response.aread()
        LEDGER.hear("an HTTP error", f"{response.headers}\n{response.text}")


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    for name in LOGGERS:
        logging.getLogger(name).addHandler(LEDGER)
    logging.getLogger("responder").setLevel(logging.DEBUG)
    _listen(errors.ResponderError, "__init__", lambda *said: LEDGER.hear("an error", f"{said}"))
    _listen(errors.SettingsError, "__init__", lambda *said: LEDGER.hear("an error", f"{said}"))
    token, read = Mint.token, Settings.read

    def noting_token(self: Mint, *arguments: Any, **claims: Any) -> str:
        made = token(self, *arguments, **claims)
        LEDGER.use(made)
        return made

    def noting_read(
        environ: Mapping[str, str] | None = None,
        *,
        instead: Mapping[str, str] | None = None,
        **use: bool | None,
    ) -> Settings:
        note_settings({**(environ or {}), **(instead or {})})
        return read(environ, instead=instead, **use)  # type: ignore[arg-type]  # as it is called

    Mint.token = noting_token  # type: ignore[method-assign]  # listens, and does the same
    Settings.read = noting_read  # type: ignore[method-assign]  # likewise


def _listen(kind: type, name: str, hear: Any) -> None:
    original = getattr(kind, name)

    def heard(self: Any, *arguments: Any) -> None:
        hear(*arguments)
        original(self, *arguments)

    setattr(kind, name, heard)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    LEDGER.hear("standard error", report.capstderr)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a process has found that ran some of the tests (pytest-xdist)."""
    LEDGER.add(*getattr(node, "workeroutput", {}).get("privacy", (0, 0, [])))


def pytest_sessionfinish(session: pytest.Session) -> None:
    LEDGER.add(len(LEDGER.used), len(LEDGER.heard), list(LEDGER.leaks()))
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["privacy"] = LEDGER.sum
    if LEDGER.sum[2] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    used, heard, leaks = LEDGER.sum
    terminalreporter.write_line(
        f"privacy: {used} secrets looked for in {heard} texts, {len(leaks)} found"
    )
    for leak in leaks:
        terminalreporter.write_line(f"LEAK: {leak[:500]}", red=True)
