"""The whole service on private servers with demo people, and requests to try it with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Final

import asyncpg

from responder.app import serving
from responder.dev import issuer, nats, postgres
from responder.dev.nats import NatsServer
from responder.dev.people import Cast
from responder.dev.process import StartError, temporary_directory
from responder.dev.tables import create_tables, insert_people
from responder.dev.tokens import Mint
from responder.errors import SettingsError
from responder.http.listener import bind
from responder.settings import Settings

LOOPBACK: Final = "127.0.0.1"
# The ports that every example in README and subjects.md has, each where no other program has it.
NATS, HTTP, ADMIN, ISSUER = 4222, 8080, 8081, 8082


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """Run everything while the context is open; yields what to read and to paste elsewhere."""
    with (
        _bound(HTTP) as http,
        _bound(ADMIN) as admin,
        _bound(ISSUER) as keys,
        temporary_directory("keys") as directory,
    ):
        async with issuer.running(keys) as mint, _running(mint, directory, http, admin) as lines:
            yield lines


@asynccontextmanager
async def _running(mint: Mint, directory: Path, http: socket, admin: socket) -> AsyncIterator[str]:
    async with postgres.running() as database, _nats() as messages:
        connection = await asyncpg.connect(database.url)
        try:
            await create_tables(connection)
            cast = await insert_people(connection)
        finally:
            await connection.close()
        settings = Settings.read(
            {
                "DATABASE_URL": database.url,
                "NATS_URL": messages.url,
                "RESPONDER_DRAIN_TIMEOUT": "1",  # a browser keeps its connections
                "BETTER_AUTH_URL": mint.issuer,
                **mint.publish(directory / "jwks.json"),
            }
        )
        tokens = _tokens(cast, mint)
        async with serving(
            settings, http_socket=http, admin_socket=admin, demo_tokens=tokens
        ) as service:
            file = directory / "env"
            variables = {
                "NATS_URL": messages.url,
                "HTTP_URL": str(service.http_url),
                "ADMIN_URL": str(service.admin_url),
                "BETTER_AUTH_URL": mint.issuer,
                "DATABASE": database.url_with(directory / "pgpass"),
                **tokens,
            }
            file.touch(mode=0o600)
            file.write_text(environment(variables, programs=_programs()))
            yield banner(cast, docs=f"{service.http_url}/docs", file=file)


def _programs() -> Path:
    """Return the directory of this program."""
    return Path(sys.argv[0]).absolute().parent


# A port is taken by listening there: one that was only found free may be another program's by then.


def _bound(port: int) -> socket:
    """Return a socket that listens on a port, or on any if another program has that one."""
    try:
        return bind((LOOPBACK, port), setting="")
    except SettingsError:
        return bind((LOOPBACK, 0), setting="")


@asynccontextmanager
async def _nats() -> AsyncIterator[NatsServer]:
    """Run a nats-server on its usual port, or on any if that cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(nats.running(port=NATS))
        except StartError:
            server = await stack.enter_async_context(nats.running())
        yield server


def environment(variables: Mapping[str, str], *, programs: Path) -> str:
    """Return lines that a shell reads, which set variables, and find programs in a directory."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(programs))}:"$PATH"', ""])


def _tokens(cast: Cast, mint: Mint) -> dict[str, str]:
    """Return a token of each kind of caller, by the name of its variable."""
    people = {
        "OWNER": cast.owner,
        "VIEWER": cast.viewer,
        "PLATFORM_ADMIN": cast.platform_admin,
        "GUEST": cast.guest,
        "BANNED": cast.banned,
    }
    return {name: mint.token_of(person) for name, person in people.items()}


def banner(cast: Cast, *, docs: str, file: Path) -> str:
    """Return what to read, and what to paste into another terminal.

    Args:
        cast: the demo people to ask for.
        docs: the URL of the page.
        file: what a shell reads first.
    """
    organization, bearer = cast.organization.id, '-H "Authorization: Bearer $OWNER"'
    return f"""\
responder is running, with demo people.

  {docs}  to read and try the HTTP API

In another terminal, from any directory:

  source {shlex.quote(str(file))}

That sets NATS_URL, HTTP_URL, ADMIN_URL, DATABASE, BETTER_AUTH_URL (where the
keys of tokens are), and a token of each of OWNER, VIEWER, PLATFORM_ADMIN,
GUEST and BANNED for what follows:

  responder request users.get {cast.owner.id}
  responder request users.by_email {cast.viewer.email}
  responder request users.memberships {cast.two_organizations.id}
  responder request users.org_list {organization}
  responder request users.get_many '{{"ids":["{cast.guest.id}","nobody"]}}'
  responder request --token $VIEWER users.whoami
  nats req users.get {cast.owner.id}
  nats req users.whoami '' {bearer}
  nats micro info users
  curl {bearer} $HTTP_URL/api/v1/me
  curl {bearer} $HTTP_URL/api/v1/users/{cast.viewer.id}
  curl {bearer} $HTTP_URL/api/v1/users/email/{cast.viewer.email}
  curl -i -X DELETE $HTTP_URL/api/v1/users/{cast.owner.id}
  curl $ADMIN_URL/ready
  psql "$DATABASE"

Ctrl-C stops everything and leaves nothing behind."""
