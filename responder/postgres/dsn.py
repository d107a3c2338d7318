"""A connection string, as applications have it, in terms of our driver."""

# Strategy: the application's own connection string is taken as it is. libpq, node-postgres, Prisma
# and the companies that host PostgreSQL each add parameters of their own. asyncpg would send a
# parameter that it does not know to the server, and the server would refuse the connection. So a
# parameter that says where or how to connect is kept or translated, and any other is left out: it
# is about the application's pool or timeouts (`connection_limit=5`) and not about ours.

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import unquote, urlencode

from responder.postgres.search_path import schemas

T = TypeVar("T")

# asyncpg takes these parameters as they are: how to encrypt, and which files to read.
_FILES: Final = {"sslcert", "sslcrl", "sslkey", "sslrootcert"}
_KEPT: Final = _FILES | {"krbsrvname", "passfile", "sslnegotiation", "sslpassword"}
# These parameters are read here and not passed on.
_UNDERSTOOD: Final = {"dbname", "host", "options", "password", "pgbouncer", "port"} | {
    *("currentSchema", "schema", "search_path", "ssl", "sslmode", "target_session_attrs", "user"),
}
_SSL_MODES: Final = {
    **{
        mode: mode for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    },
    # These are node-postgres's: `sslmode=no-verify` encrypts without verifying the server, and
    # `ssl` is a flag.
    **dict.fromkeys(("no-verify", "true", "1"), "require"),
    **dict.fromkeys(("false", "0"), "disable"),
}
# The kinds of server to try, in this order, by `target_session_attrs`. For `read-write`, libpq
# looks for a server on which sessions are not read-only. Ours always are, so we look for the
# primary.
_TARGETS: Final = {
    "any": ("any",),
    "primary": ("primary",),
    "read-write": ("primary",),
    "standby": ("standby",),
    "read-only": ("standby",),
    "prefer-standby": ("standby", "any"),
}
_SCHEME: Final = re.compile(r"postgres(ql)?(\+[a-z0-9]+)?://", re.ASCII | re.IGNORECASE)
_KEY_VALUE: Final = re.compile(r"\w+\s*=", re.ASCII)
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]]*)(?::([^:]*))?")
# A word of `options`, in which a backslash keeps a space (PostgreSQL's manual, 34.1.2, "Parameter
# Key Words"), and the word that sets the search path: `-c search_path=…` or `--search_path=…`.
_WORD: Final = re.compile(r"(?:[^\s\\]|\\.)+")
_SEARCH_PATH: Final = re.compile(r"(?:--|-c)?search[_-]path=(.*)", re.IGNORECASE | re.DOTALL)
# By these in `options`, Neon (`endpoint`, `project`) and Supabase (`reference`) know the database.
_ENDPOINT: Final = re.compile(r"\b(?:endpoint|project|reference)=[\w-]+", re.ASCII)
_NAME: Final = re.compile(r"[\w.-]{1,40}", re.ASCII)
_MAX_PORT: Final = 2**16 - 1

Server = tuple[str | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """Where PostgreSQL is, and how to connect to it.

    Args:
        servers: hosts and ports; the first that answers and is of the right kind is taken.
        user: the role to connect as.
        password: of that role.
        database: the name of the database.
        tls: how to encrypt, as a URI that asyncpg takes and that says nothing else.
        files: the certificates and keys that `tls` names.
        system_roots: whether a server's certificate is verified with those the system trusts,
            because no file says which to trust.
        targets: the kinds of server that will do (`any`, `primary`, `standby`), the best first.
        options: text for the server's `options`, sent when a connection starts.
        pooled: whether a pooler in transaction mode is known to be between.
        search_path: the schemas in which the application looks for its tables, the first one first;
            none if the string does not say.
        ignored: the names of the parameters that are left out.
    """

    servers: tuple[Server, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    tls: str = field(default="postgresql:///?sslmode=prefer", repr=False)
    files: tuple[str, ...] = ()
    system_roots: bool = False
    targets: tuple[str, ...] = ("any",)
    options: str | None = None
    pooled: bool = False
    search_path: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def parse(text: str) -> Dsn:
    """Return what a connection string says.

    Raises ValueError, whose message says what is wrong and repeats nothing of the string.
    """
    text = text.strip()
    scheme = _SCHEME.match(text)
    if not scheme:
        raise ValueError(_what_it_is(text))
    location, _, query = text[scheme.end() :].partition("?")
    credentials, _, place = location.rpartition("@")
    hosts, _, database = place.partition("/")
    user, _, password = credentials.partition(":")
    parameters = dict(_parameters(query))
    options = parameters.get("options", "").replace("+", " ")
    dropped = parameters.keys() - _KEPT - _UNDERSTOOD
    tls = _tls(parameters)
    role = parameters.get("user") or unquote(user) or None
    return Dsn(
        servers=tuple(_servers(parameters.get("host", hosts), parameters.get("port", ""))),
        user=role,
        password=parameters.get("password") or unquote(password) or None,
        database=parameters.get("dbname") or unquote(database) or None,
        tls=f"postgresql:///?{urlencode(tls)}",
        files=tuple(tls[name] for name in sorted(_FILES & tls.keys())),
        system_roots=tls["sslmode"].startswith("verify") and "sslrootcert" not in tls,
        targets=_choice(parameters, "target_session_attrs", _TARGETS) or ("any",),
        options=" ".join(_ENDPOINT.findall(options)) or None,
        pooled=parameters.get("pgbouncer") == "true",
        search_path=_search_path(parameters, options, role),
        ignored=tuple(sorted(name if _NAME.fullmatch(name) else "…" for name in dropped)),
    )


def _what_it_is(text: str) -> str:
    if _KEY_VALUE.match(text):
        return "expected postgres://user@host/database, not libpq's form with key=value"
    if text.startswith(("prisma://", "prisma+postgres://")):
        return "expected the postgres:// URI of the database itself, not of Prisma's proxy"
    return "expected a postgres:// or postgresql:// URI"


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for each in filter(None, query.split("&")):
        name, _, value = each.partition("=")
        yield unquote(name), unquote(value)


def _servers(hosts: str, ports: str) -> Iterator[Server]:
    """Yield each host with its port.

    As in libpq, ports may be in a list of their own, and the last goes for all further hosts: `a,b`
    with `1,2` is `a:1` and `b:2`, and with `7` it is `a:7` and `b:7`.
    """
    listed = ports.split(",")
    for at, address in enumerate(hosts.split(",")):
        host, port = address, ""
        if not address.startswith("/"):  # else it is the directory of a socket
            parts = _ADDRESS.fullmatch(address)
            if not parts:
                raise ValueError("a host is host or host:port; an IPv6 address is in [brackets]")
            host, port = parts[1].strip("[]"), parts[2] or ""
        yield unquote(host) or None, _port(port or listed[min(at, len(listed) - 1)])


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MAX_PORT):
        raise ValueError(
            f"a port is a number up to {_MAX_PORT}; "
            "special characters of a password are written as %xx"
        )
    return int(text)


def _tls(parameters: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in parameters.items() if name in _KEPT}
    if "sslcert" in kept and "sslkey" not in kept:
        # Prisma's `sslcert` is the certificate of the authority, which libpq calls `sslrootcert`.
        kept["sslrootcert"] = kept.pop("sslcert")
    if kept.get("sslrootcert") == "system":
        del kept["sslrootcert"]
    _choice(parameters, "sslnegotiation", {"postgres": True, "direct": True})
    modes = (_choice(parameters, name, _SSL_MODES) for name in ("sslmode", "ssl"))
    return {"sslmode": next(filter(None, modes), "prefer"), **kept}


def _choice(parameters: Mapping[str, str], name: str, choices: Mapping[str, T]) -> T | None:
    if name not in parameters:
        return None
    if parameters[name] not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}")
    return choices[parameters[name]]


def _search_path(parameters: Mapping[str, str], options: str, role: str | None) -> tuple[str, ...]:
    """Return the schemas that Prisma's `schema`, postgres.js's `search_path`, JDBC's
    `currentSchema`, or `options` names.
    """
    if parameters.get("schema"):
        return (parameters["schema"],)
    setting = parameters.get("search_path") or parameters.get("currentSchema") or ""
    for word in [] if setting else _WORD.findall(options):
        found = _SEARCH_PATH.fullmatch(re.sub(r"\\(.)", r"\1", word))
        setting = found[1] if found else setting
    return schemas(setting, role=role)
