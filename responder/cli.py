"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import json
import logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from socket import socket
from typing import Any, NoReturn

import uvloop

from responder import bearer, checks, logs
from responder.app import Running, serving, wanted_tracing
from responder.asking import reply_on
from responder.causes import words
from responder.checks import display
from responder.endpoints import ENDPOINTS
from responder.errors import ResponderError, SettingsError
from responder.heartbeat import beat
from responder.http import openapi
from responder.http.acceptor import raise_file_limit
from responder.nats import asyncapi
from responder.nats.connection import connected
from responder.postgres.grants import grants_for
from responder.settings import Settings
from responder.supervisor import supervise
from responder.terminal import visible
from responder.wire import encode_error

GOOD, FAILED, WRONG_USE = 0, 1, 2
READER_GONE = 128 + signal.SIGPIPE  # as a shell reports it of other programs
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # on the disk
GC_THRESHOLDS = (10_000, 20, 20)  # new objects, and collections of younger ones, until the next
MAX_WORKERS = 256
MAX_SECONDS = 3600
PARENT_POLL = 0.3  # seconds
HEADER = re.compile(r"[A-Za-z0-9-]+")
SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 good, 1 failed, 2 wrong use."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], Coroutine[None, None, int]] = arguments.run
    try:
        return _flushed(uvloop.run(run(arguments)))
    except BrokenPipeError:  # what read our output, `head` for one, has had enough
        _forget_output()
        return READER_GONE
    except asyncio.CancelledError:  # by `end_on_signals`
        return GOOD
    except SettingsError as error:
        _complain(str(error))
        return WRONG_USE
    except ResponderError as error:
        _complain(f"{error.code}: {visible(error.message)}")
        return FAILED
    except Exception as error:  # noqa: BLE001 - a bug; its message may hold values
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            _forget_output()
            _complain(words(error))
        else:
            _complain(f"internal error\n{logs.traceback_without_messages(error)}")
        return FAILED


def _forget_output() -> None:
    """Let what has not left go nowhere, so that Python does not try again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed(status: int) -> int:
    """Return a status once all output has left."""
    sys.stdout.flush()
    return status


def _complain(problem: str) -> None:
    """Say on standard error what is wrong; it may repeat what others have said."""
    print(visible(f"responder: {problem}", keep="\n"), file=sys.stderr)


def _count(value: str) -> int:
    count = int(value)
    if not 1 <= count <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_WORKERS}")
    return count


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected 0 to {MAX_SECONDS}, without 0")
    return seconds


def _socket(descriptor: str) -> socket:
    return socket(fileno=int(descriptor))


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints repeat arguments escaped."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and exit (called by `argparse`)."""
        super().error(visible(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="responder", description="Answers who a Better Auth user is, over NATS and HTTP."
    )
    parser.add_argument("--version", action="version", version=version("better-auth-responder"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dev = commands.add_parser("dev", help="everything, with real servers and demo people")
    dev.set_defaults(run=_dev)
    about: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "epilog": _settings(),
    }
    serve = commands.add_parser("serve", help="worker, HTTP bridge and admin listener", **about)
    _add_serve(serve)
    bridge = commands.add_parser("bridge", help="the HTTP bridge alone", **about)
    bridge.set_defaults(run=_bridge)
    check = commands.add_parser(
        "check", help="what responder finds, and what is to be mended", **about
    )
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_check)
    grants = commands.add_parser("grants", help="SQL for a role that may do no more than it needs")
    grants.add_argument("role", nargs="?", default="responder", metavar="ROLE")
    grants.set_defaults(run=_grants)
    _add_request(commands.add_parser("request", help="one request over NATS, and its reply"))
    over_nats = commands.add_parser("asyncapi", help="what a worker answers, as AsyncAPI")
    over_nats.set_defaults(run=_asyncapi)
    over_http = commands.add_parser("openapi", help="what the HTTP bridge answers, as OpenAPI")
    over_http.set_defaults(run=_openapi)
    return parser


def _settings() -> str:
    """Return the end of a command's help: what it reads besides its arguments."""
    names = " ".join(str(field.alias) for field in Settings.model_fields.values())
    listed = textwrap.fill(names, 76, initial_indent="  ", subsequent_indent="  ")
    return f"settings, read from the environment and from .env in the working directory:\n{listed}"


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--no-http", action="store_true", help="without the bridge")
    serve.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes that share the work"
    )
    # A supervisor passes on to its children what they listen on (see `supervisor`).
    serve.add_argument("--admin-socket", type=_socket, help=argparse.SUPPRESS)
    serve.add_argument("--http-socket", type=_socket, help=argparse.SUPPRESS)
    serve.add_argument("--heartbeat-socket", type=_socket, help=argparse.SUPPRESS)
    serve.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)


def _add_request(request: argparse.ArgumentParser) -> None:
    request.add_argument("subject", help="such as users.get")
    request.add_argument("payload", nargs="?", default="", help="JSON, or a bare id or email")
    request.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="such as 'Authorization: Bearer …'; may be repeated",
    )
    request.add_argument("-s", "--server", metavar="URLS", help="instead of NATS_URL")
    request.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="instead of RESPONDER_TIMEOUT"
    )
    request.add_argument("--token", metavar="JWT", help="of the user on whose behalf it asks")
    request.add_argument("--json", action="store_true", help="a line for programs, errors too")
    request.set_defaults(run=_request)


async def _serve(arguments: argparse.Namespace) -> int:
    end_on_signals(supervised=arguments.admin_socket is not None)
    if arguments.heartbeat_socket is not None:
        beat(arguments.heartbeat_socket)
    settings = Settings.read(worker=True, http=not arguments.no_http)
    logs.configure(settings.log_level, settings.log_format, worker=arguments.worker)
    raise_file_limit()
    if arguments.workers > 1:
        return await supervise(settings, count=arguments.workers)
    return await _run(
        serving(
            settings,
            http_socket=arguments.http_socket,
            admin_socket=arguments.admin_socket,
            tracing=wanted_tracing(),
        )
    )


async def _bridge(_: argparse.Namespace) -> int:
    end_on_signals()
    settings = Settings.read(worker=False)
    logs.configure(settings.log_level, settings.log_format)
    raise_file_limit()
    return await _run(serving(settings, worker=False, tracing=wanted_tracing()))


async def _run(service: AbstractAsyncContextManager[Running]) -> int:
    log = logging.getLogger("responder")
    async with service as running:
        http, admin = running.http_url or "off", running.admin_url or "off"
        log.info("started: HTTP %s, admin %s", http, admin)
        try:
            await running.wait_ready()
            log.info("ready: HTTP %s, admin %s", http, admin)
            # What is there now stays, and what requests leave behind is hardly ever a cycle. By
            # default Python would look through all waiting requests again and again in an overload.
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            await running.ended.wait()
        except asyncio.CancelledError:
            log.info("stopping")
            raise
        log.error("NATS or HTTP has ended for good")
    return FAILED  # it has ended by itself, and is to be started again from outside


async def _check(arguments: argparse.Namespace) -> int:
    report = await checks.check(Settings.read())
    if arguments.json:
        print(json.dumps(report.as_json(), indent=2))
    elif sys.stdout.isatty():
        display.show(report)
    else:
        print(report.as_text())
    return GOOD if report.good else FAILED


async def _grants(arguments: argparse.Namespace) -> int:
    settings = Settings.read()
    if settings.dsn is None:
        raise SettingsError("DATABASE_URL: required, to find the tables")
    print(await grants_for(settings.dsn, settings.overrides, role=arguments.role), end="")
    return GOOD


async def _request(arguments: argparse.Namespace) -> int:
    if not SUBJECT.fullmatch(arguments.subject):
        raise SettingsError(f"not a subject: {arguments.subject!r}")
    headers = _headers(arguments.header)
    if arguments.token is not None:
        headers[bearer.HEADER] = f"Bearer {arguments.token}"
    settings = Settings.read(instead={"NATS_URL": arguments.server} if arguments.server else {})
    timeout = arguments.timeout or settings.timeout
    known = {each.subject(settings.subject_prefix): each.begins for each in ENDPOINTS}
    async with connected(
        settings.nats_url,
        name="responder-request",
        options=settings.nats_options(),
        patience=timeout,
    ) as connection:
        payload = os.fsencode(arguments.payload)
        try:
            reply = await reply_on(
                connection,
                arguments.subject,
                payload,
                headers=headers,
                timeout=timeout,
                # Of any other service, whatever answers is shown.
                begins=known.get(arguments.subject, b""),
            )
        except ResponderError as error:
            if not arguments.json:
                raise
            _, reply = encode_error(error)
            print(_on_a_line(reply))
            return FAILED
    print(_on_a_line(reply) if arguments.json else _readable(reply))
    return GOOD


def _on_a_line(reply: bytes) -> str:
    """Return a reply as one line for a program."""
    return visible(" ".join(reply.decode(errors="replace").splitlines()))


async def _asyncapi(_: argparse.Namespace) -> int:
    settings = Settings.read()
    document = asyncapi.document(
        prefix=settings.subject_prefix,
        queue_group=settings.queue_group,
        token_required=settings.nats_auth == "required",
        additional=settings.additional_keys,
    )
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return GOOD


async def _openapi(_: argparse.Namespace) -> int:
    settings = Settings.read()
    document = openapi.document(
        successors=settings.successors,
        token_required=settings.http_auth == "required",
        additional=settings.additional_keys,
    )
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return GOOD


def _readable(reply: bytes) -> str:
    """Return a reply of any program as a terminal may show it: JSON indented, else as it is."""
    try:
        text = json.dumps(json.loads(reply), indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # a number that is none, or bottomless nesting, too
        text = reply.decode(errors="replace")
    return visible(text, keep="\n\t")


def _headers(given: Sequence[str]) -> dict[str, str]:
    """Return the headers that are given as NAME:VALUE; raises SettingsError for any other form."""
    headers = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon or not HEADER.fullmatch(name):
            raise SettingsError("--header: expected NAME:VALUE")
        headers[name] = value.strip()
    return headers


async def _dev(_: argparse.Namespace) -> int:
    end_on_signals(with_parent=True)
    from responder.dev import process, service  # noqa: PLC0415 - no other command needs them

    logs.configure("warning", "text")
    try:
        async with service.running() as requests:
            print(requests, flush=True)
            await asyncio.Event().wait()  # until a signal cancels this
    except process.StartError as error:  # its servers are an extra, which may not be installed
        _complain(str(error))
    return FAILED


def end_on_signals(*, supervised: bool = False, with_parent: bool = False) -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP cancel this task, so that it closes what it opened.

    Args:
        supervised: whether the end of standard input, which shows the end of the supervisor, is
            such a signal too.
        with_parent: whether the end of the parent process, such as a shell, is one.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    signalled = False

    def end() -> None:
        nonlocal signalled
        if task and not signalled:
            signalled = True
            task.cancel()

    parent = os.getppid()

    def look_for_parent() -> None:
        if os.getppid() == parent:
            loop.call_later(PARENT_POLL, look_for_parent)
        else:
            end()

    # SIGHUP tells that the terminal is closed; `nohup` ignores it, to outlive terminal and shell.
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, *([] if outlives else [signal.SIGHUP])):
        loop.add_signal_handler(number, end)
    if supervised:
        loop.add_reader(sys.stdin.fileno(), end)
    if with_parent and not outlives:
        look_for_parent()
