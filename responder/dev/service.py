"""The whole service on private servers with demo people, and requests to try it with."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from responder.app import serving
from responder.dev import nats, postgres
from responder.dev.people import Cast
from responder.dev.process import temporary_directory
from responder.dev.tables import create_tables, insert_people
from responder.dev.tokens import Mint
from responder.settings import Settings


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """Run everything while the context is open; yields requests to paste into a terminal."""
    mint = Mint()
    with temporary_directory("keys") as directory:
        async with _running(mint, directory) as lines:
            yield lines


@asynccontextmanager
async def _running(mint: Mint, directory: Path) -> AsyncIterator[str]:
    async with (
        postgres.running() as database,
        nats.running() as messages,
    ):
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
                "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
                "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
                "RESPONDER_DRAIN_TIMEOUT": "1",  # a browser keeps its connections
                **mint.publish(directory / "jwks.json"),
            }
        )
        async with serving(settings) as service:
            yield requests(
                cast,
                mint,
                database=database.url_with(directory / "pgpass"),
                nats_url=messages.url,
                http=str(service.http_url),
                admin=str(service.admin_url),
                program=_program(),
            )


def requests(
    cast: Cast,
    mint: Mint,
    *,
    database: str,
    nats_url: str,
    http: str,
    admin: str,
    program: str,
) -> str:
    """Return what to paste into another terminal.

    Args:
        cast: the demo people to ask for.
        mint: signs their tokens.
        database: the connection URI of the database, without a password in it.
        nats_url: the URL of the nats-server.
        http: the URL of the HTTP bridge.
        admin: the URL of the admin listener.
        program: how this program is called.
    """
    over_nats, tokens = _over_nats(cast), _tokens(cast, mint)
    lines = [
        "responder is running, with demo people. Paste any of these into another terminal.",
        "",
        *(f"NATS_URL={nats_url} {program} request {each}" for each in over_nats),
        "",
        *(f"nats -s {nats_url} req {each}" for each in over_nats),
        f"nats -s {nats_url} micro info users",
        "",
        *(f"curl {each}" for each in _over_http(cast, tokens["an owner"], http=http, admin=admin)),
        "",
        *(
            f"# On behalf of {name}: who they are, and whether they may see another's record\n"
            f"NATS_URL={nats_url} {program} request {token} users.whoami\n"
            f"nats -s {nats_url} req {token} users.whoami ''\n"
            f"curl {token} {http}/api/v1/me\n"
            f"curl {token} {http}/api/v1/users/{cast.second_owner.id}"
            for name, token in tokens.items()
        ),
        "",
        f"To read and try the HTTP API: {http}/docs",
        f"To change people: psql {shlex.quote(database)}",
        "Ctrl-C stops everything and leaves nothing behind.",
    ]
    return "\n".join(lines)


def _over_nats(cast: Cast) -> list[str]:
    """Return subjects with payloads, as a shell takes them."""
    both = f'"id":"{cast.two_organizations.id}","organizationId":"{cast.second_organization.id}"'
    return [
        f"users.get {cast.owner.id}",
        f"users.by_email {cast.viewer.email}",
        f"users.get '{{{both}}}'",
        f"users.get {cast.temporarily_banned.id}",
        f'users.org_list \'{{"organizationId":"{cast.organization.id}","limit":2}}\'',
        f'users.get_many \'{{"ids":["{cast.owner.id}","{cast.guest.id}","nobody"]}}\'',
        "users.get nobody",
    ]


def _tokens(cast: Cast, mint: Mint) -> dict[str, str]:
    """Return options with the token of some people, for curl as for nats."""
    people = {
        "an owner": cast.owner,
        "a viewer": cast.viewer,
        "a platform admin": cast.platform_admin,
        "a guest": cast.guest,
        "a banned user": cast.banned,
    }
    return {
        name: f"-H 'Authorization: Bearer {mint.token(person.id, name=person.name)}'"
        for name, person in people.items()
    }


def _over_http(cast: Cast, token: str, *, http: str, admin: str) -> list[str]:
    """Return arguments for curl; `token` is the option with the owner's token."""
    users = f"{http}/api/v1/users"
    return [
        f"{token} {users}/{cast.owner.id}",
        f"{token} {users}/email/{cast.viewer.email}",
        f"{token} '{users}/{cast.two_organizations.id}?organizationId={cast.organization.id}'",
        f"-i {users}/{cast.owner.id}",
        f"-i -X DELETE {users}/{cast.owner.id}",
        f"{admin}/ready",
        f"{admin}/metrics",
    ]


def _program() -> str:
    """Return how this program is called from the working directory."""
    program = Path(sys.argv[0]).absolute()
    found = shutil.which("responder")
    if found and Path(found).absolute() == program:
        return "responder"
    shown = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
    return shlex.quote(shown if "/" in shown else f"./{shown}")
