"""What `responder check` looks at, and what to do about it."""

# Each check is on its own: it has its own timeout, and what fails in one is a finding and keeps no other
# from being made. None of them shows anything of a row but how many there are.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import nats
import nats.errors
from nats.aio.client import Client

from responder.app import nats_options
from responder.endpoints import ENDPOINTS, SERVICE
from responder.errors import SchemaError, SettingsError, UnavailableError
from responder.nats.service import VERBS, subjects
from responder.postgres import catalog, schema
from responder.postgres.catalog import CatalogColumn, CatalogReference
from responder.postgres.connection import (
    Connection,
    NotAllowedError,
    PooledConnection,
    SlowError,
    connect,
    describe,
)
from responder.postgres.fields import ACCOUNT, MEMBER, USER, plain
from responder.postgres.grants import grants
from responder.postgres.quoting import ident
from responder.postgres.schema import Schema, Table
from responder.settings import Settings
from responder.tokens import key_set as key_source
from responder.tokens.identity import KeySet

TIMEOUT: Final = 10.0  # seconds for each check; PostgreSQL gives up after half of them
PATIENCE: Final = 2.0  # seconds for NATS to say what it does not permit

# Lookups fail or answer wrongly; they may become slow or unsafe; good to know.
BROKEN, WARNING, NOTE = _SEVERITIES = "broken", "warning", "note"

# What no reader of users needs, by what makes its table known.
_SECRETS: Final = {
    ("userId", "token", "expiresAt"): ("token",),  # of any kind
    ACCOUNT: ("password", "accessToken", "refreshToken", "idToken"),
    ("publicKey", "privateKey"): ("privateKey",),
    ("identifier", "value", "expiresAt"): ("value",),
    USER.known_by: ("password",),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, how bad it is, and what to do."""

    check: str
    severity: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A field and where it is read from; no column means that it answers null."""

    table: str
    field: str
    column: str | None
    type: str | None
    by_hand: bool


@dataclass(slots=True)
class Report:
    """What all checks have seen."""

    servers: dict[str, str] = field(default_factory=dict)
    mapping: list[Mapped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is broken."""
        return all(finding.severity != BROKEN for finding in self.findings)

    def as_text(self) -> str:
        """Return it for a person: servers, the mapping as a table, findings with what to do."""
        lines = [f"{name:<10}{what}" for name, what in self.servers.items()]
        for table in dict.fromkeys(each.table for each in self.mapping):
            lines += ["", table]
            lines += [
                f"  {each.field:<16}{each.column or '-':<24}{each.type or '':<14}"
                f"{'set by hand' if each.by_hand else ''}".rstrip()
                for each in self.mapping
                if each.table == table
            ]
        lines.append("")
        for finding in sorted(self.findings, key=lambda each: _SEVERITIES.index(each.severity)):
            lines.append(f"{finding.severity:<10}{finding.message}")
            lines += [f"{'':<10}{finding.remedy}"] if finding.remedy else []
        return "\n".join([*lines, *([] if self.findings else ["nothing to mend"])])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"good": self.good, **asdict(self)}


async def check(settings: Settings) -> Report:
    """Look at everything these settings lead to; raises nothing for what it finds."""
    report = Report()
    await _postgres(settings, report)
    await _nats(settings, report)
    await _key_set(settings, report)
    return report


async def _key_set(settings: Settings, report: Report) -> None:
    issuer = settings.issuer
    if issuer is None:
        required = settings.nats_auth == "required" or (
            settings.http_auth == "required" and settings.http_listen
        )
        severity, message = BROKEN if required else NOTE, "no issuer of tokens is known"
        remedy = "Set BETTER_AUTH_URL, or RESPONDER_JWKS_URL, _JWT_ISSUER and _JWT_AUDIENCE."
        report.findings.append(Finding("key set", severity, message, remedy))
        return
    try:
        keys = KeySet(await key_source.read(issuer.key_set)).keys
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"the key set cannot be fetched: {key_source.describe(error)}"
        remedy = (
            "Check BETTER_AUTH_URL, or RESPONDER_JWKS_URL; the jwt plugin publishes it at …/jwks."
        )
        report.findings.append(Finding("key set", BROKEN, message, remedy))
        return
    algorithms = ", ".join(sorted({name for key in keys for name in key.uses}))
    names = ", ".join(issuer.issuers)
    report.servers["key set"] = f"{len(keys)} keys for {algorithms}; issuer {names}"


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the checks of PostgreSQL look at, and as whom."""

    connection: Connection
    role: str
    columns: Sequence[CatalogColumn]
    schema: Schema
    timezone: str


async def grants_for(settings: Settings, role: str) -> str:
    """Return the SQL that gives a role what it needs (see `grants`).

    Raises SettingsError without DATABASE_URL, UnavailableError if it leads nowhere, SchemaError if the
    tables are not found.
    """
    if settings.dsn is None:
        raise SettingsError("DATABASE_URL: required, to find the tables")
    try:
        connection = await connect(settings.dsn, timeout=TIMEOUT)
    except Exception as error:
        raise UnavailableError(f"cannot connect to PostgreSQL: {_why(error)}") from error
    try:
        ((_, database, _),) = await connection.fetch(_SERVER)
        columns, references = await _catalog(connection)
    finally:
        connection.terminate()
    # Whoever asks may be the very role that may not read them yet.
    readable = [column._replace(readable=True) for column in columns]
    found = schema.find(readable, references, settings.overrides)
    return grants(found, role=role, database=database)


async def _catalog(connection: Connection) -> tuple[list[CatalogColumn], list[CatalogReference]]:
    columns = await connection.fetch(catalog.COLUMNS)
    references = await connection.fetch(catalog.REFERENCES)
    return [CatalogColumn(*row) for row in columns], [CatalogReference(*row) for row in references]


async def _postgres(settings: Settings, report: Report) -> None:
    if settings.dsn is None:
        report.findings.append(
            Finding(
                "postgres", BROKEN, "DATABASE_URL is not set", "Give it as the application has it."
            )
        )
        return
    try:
        connection = await connect(settings.dsn, timeout=TIMEOUT)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"cannot connect to PostgreSQL: {_why(error)}"
        report.findings.append(Finding("postgres", BROKEN, message, "Check DATABASE_URL."))
        return
    try:
        await _on_tables(connection, settings, report)
    finally:
        connection.terminate()


async def _on_tables(connection: Connection, settings: Settings, report: Report) -> None:
    try:
        ((version, database, role),) = await connection.fetch(_SERVER)
        report.servers["postgres"] = f"{version}, database {database}, role {role}"
        columns, references = await _catalog(connection)
        found = schema.find(columns, references, settings.overrides)
    except SchemaError as error:
        report.findings.append(Finding("tables", BROKEN, error.message))
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"cannot read the catalog: {describe(error)}"
        report.findings.append(Finding("tables", BROKEN, message))
        return
    report.mapping = _mapping(found, settings)
    tables = _Tables(connection, role, columns, found, settings.timezone)
    for name, look in _CHECKS.items():
        report.findings += await _timed(name, look(tables))


async def _timed(name: str, findings: AsyncIterator[Finding]) -> list[Finding]:
    """What a check finds within its time, and how it fails."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(TIMEOUT):
            async for finding in findings:
                found.append(finding)  # noqa: PERF401 - what comes before a failure counts
    except (SlowError, TimeoutError):
        found.append(Finding(name, NOTE, "not finished in time; the tables are large"))
    except NotAllowedError:
        found.append(Finding(name, NOTE, "not allowed to look at that"))
    except Exception as error:  # noqa: BLE001 - the other checks go on
        found.append(Finding(name, WARNING, f"failed: {describe(error)}"))
    return found


def _mapping(found: Schema, settings: Settings) -> list[Mapped]:
    mapped = []
    for table, role in ((found.users, USER), (found.members, MEMBER)):
        by_hand = settings.columns.get(role.name, {})
        for each in role.fields if table else ():
            column = table.columns.get(each) if table else None
            kind = column.type if column else None
            mapped.append(
                Mapped(str(table), each, column.name if column else None, kind, each in by_hand)
            )
    return mapped


def _why(error: Exception) -> str:
    """Why there is no connection, without what an error may hold of a row or a password."""
    known = _REFUSALS.get(getattr(error, "sqlstate", ""))
    if known:
        return known
    if isinstance(error, TimeoutError):
        return "nobody answers"
    return str(error) if isinstance(error, OSError) else describe(error)


_REFUSALS: Final = {
    "28P01": "the password is wrong",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "53300": "there are too many connections",
}


# The checks. Each yields what it finds.


async def _fields(tables: _Tables) -> AsyncIterator[Finding]:
    """Better Auth has always had these three: where they are missing, they are called otherwise."""
    users = tables.schema.users
    names = [
        each.name
        for each in tables.columns
        if (each.schema, each.table) == (users.schema, users.name)
    ]
    for missing in [each for each in ("name", "image", "createdAt") if each not in users.columns]:
        near = [name for name in names if plain(missing) in plain(name)]
        hint = f" Could it be {' or '.join(near)}?" if near else ""
        yield Finding(
            "fields",
            WARNING if missing == "name" else NOTE,
            f"{users} has no column for {missing}, which answers null.{hint}",
            f"RESPONDER_COLUMNS=user.{missing}=… says what it is called.",
        )
    if tables.schema.members is None:
        yield Finding(
            "fields",
            NOTE,
            "no table of members: organization fields are null, and users.org_list is unavailable",
            "RESPONDER_MEMBERS_TABLE and RESPONDER_COLUMNS name one that is called otherwise.",
        )


async def _row_security(tables: _Tables) -> AsyncIterator[Finding]:
    for table in tables.schema.tables:
        if not table.row_security:
            continue
        ((policies,),) = await tables.connection.fetch(_POLICIES, table.schema, table.name)
        yield Finding(
            "row-level security",
            WARNING if policies else BROKEN,
            f"policies decide which rows of {table} this role sees"
            if policies
            else f"this role sees no row of {table}: no policy lets it",
            f"create policy responder on {table.quoted} for select to {ident(tables.role)} "
            "using (true);",
        )


async def _privileges(tables: _Tables) -> AsyncIterator[Finding]:
    remedy = "`responder grants` makes a role that may only read what is needed."
    ((superuser, bypasses),) = await tables.connection.fetch(_POWERS)
    if superuser:
        yield Finding("privileges", WARNING, "the role is a superuser", remedy)
        return
    if bypasses:
        yield Finding("privileges", WARNING, "the role bypasses row-level security", remedy)
    for table in tables.schema.tables:
        ((writes,),) = await tables.connection.fetch(_WRITES, table.quoted)
        if writes:
            yield Finding("privileges", WARNING, f"the role may write to {table}", remedy)
    if readable := _readable_secrets(tables.columns):
        shown = schema.some(readable)
        yield Finding("privileges", WARNING, f"the role may read secrets: {shown}", remedy)


def _readable_secrets(columns: Sequence[CatalogColumn]) -> list[str]:
    by_table: dict[tuple[str, str], list[CatalogColumn]] = {}
    for column in columns:
        by_table.setdefault((column.schema, column.table), []).append(column)
    return [
        f"{column.schema}.{column.table}.{column.name}"
        for its in by_table.values()
        for known_by, fields in _SECRETS.items()
        if {plain(each) for each in known_by} <= {plain(each.name) for each in its}
        for column in its
        if column.readable and plain(column.name) in {plain(each) for each in fields}
    ]


async def _indexes(tables: _Tables) -> AsyncIterator[Finding]:
    users, members = tables.schema.users, tables.schema.members
    wanted: list[tuple[Table, tuple[str, ...], str]] = [
        (users, ("id",), "users.get"),
        (users, ("email",), "users.by_email"),
    ]
    if members:
        wanted.append((members, ("userId",), "every user's membership"))
    for table, fields, slow in wanted:
        if not await _indexed(tables.connection, table, fields):
            message = f"{slow} reads all of {table}, for want of an index"
            yield await _missing_index(tables.connection, WARNING, message, table, fields)
    if members and not await _indexed(tables.connection, members, order := _page_order(members)):
        if await _indexed(tables.connection, members, ("organizationId",)):
            message = "each page of users.org_list reads and sorts the whole organization"
            yield await _missing_index(tables.connection, NOTE, message, members, order)
        else:
            message = f"users.org_list reads all of {members}, for want of an index"
            yield await _missing_index(tables.connection, WARNING, message, members, order)


def _page_order(members: Table) -> tuple[str, ...]:
    """The fields whose index has the members of an organization in their order (see `queries`)."""
    order = ("organizationId", "createdAt", "id" if "id" in members.columns else "userId")
    return tuple(each for each in order if each in members.columns)


async def _missing_index(
    connection: Connection, severity: str, message: str, table: Table, fields: Sequence[str]
) -> Finding:
    ((kind,),) = await connection.fetch(_KIND, table.quoted)
    if kind in ("v", "f"):
        where = "the tables below it" if kind == "v" else "another server"
        return Finding("indexes", NOTE, f"{table} has its indexes in {where}: not looked at")
    names = ", ".join(ident(table.columns[each].name) for each in fields)
    # On a partitioned table an index cannot be made without a lock.
    concurrently = "" if kind == "p" else " concurrently"
    remedy = f"create index{concurrently} on {table.quoted} ({names});"
    return Finding("indexes", severity, message, remedy)


async def _indexed(connection: Connection, table: Table, fields: Sequence[str]) -> bool:
    """Whether an index begins with the columns of these fields."""
    names = [table.columns[each].name for each in fields]
    ((found,),) = await connection.fetch(_INDEXED, table.quoted, names)
    return bool(found)


async def _emails(tables: _Tables) -> AsyncIterator[Finding]:
    users = tables.schema.users
    email = users.columns["email"]
    if email.type == "citext":
        return
    name, table = ident(email.name), users.quoted
    others = (
        f"(select lower({name}) from {table} where {name} is not null "
        "group by 1 having count(*) > 1)"
    )
    ((count, alike),) = await tables.connection.fetch(
        f"select count(*), count(*) filter (where lower({name}) in {others}) "
        f"from {table} where {name}::text <> lower({name}::text)"
    )
    if count:
        too = f"; {alike} of them differ from another one in case only, and are yours to decide on"
        yield Finding(
            "emails",
            WARNING,
            f"{count} emails in {users} are not in lower case: neither Better Auth nor responder finds "
            f"them by email{too if alike else ''}",
            f"update {table} set {name} = lower({name}) where {name} <> lower({name})"
            f"{f' and lower({name}) not in {others}' if alike else ''};",
        )


async def _duplicates(tables: _Tables) -> AsyncIterator[Finding]:
    members = tables.schema.members
    if members is None:
        return
    names = ", ".join(ident(members.columns[each].name) for each in ("organizationId", "userId"))
    ((count,),) = await tables.connection.fetch(
        f"select count(*) from (select from {members.quoted} group by {names} "
        "having count(*) > 1) duplicated"
    )
    if count:
        yield Finding(
            "duplicates",
            NOTE,
            f"{count} users are in an organization more than once: their earliest membership speaks",
            f"select {names} from {members.quoted} group by {names} having count(*) > 1;",
        )


async def _times(tables: _Tables) -> AsyncIterator[Finding]:
    if not await tables.connection.accepts(catalog.TIMEZONE, tables.timezone):
        yield Finding(
            "times", BROKEN, "RESPONDER_TIMEZONE: PostgreSQL does not know this time zone"
        )
    expires = tables.schema.users.columns.get("banExpires")
    if expires and expires.type != "timestamptz":
        yield Finding(
            "times",
            NOTE,
            f"{tables.schema.users}.{expires.name} has no time zone and is read as {tables.timezone}",
            "RESPONDER_TIMEZONE names another, if Better Auth wrote its own local time.",
        )


async def _server(tables: _Tables) -> AsyncIterator[Finding]:
    ((standby, read_only),) = await tables.connection.fetch(_STATE)
    if standby:
        yield Finding(
            "server",
            WARNING,
            "this is a standby: a write is seen only once it has been replayed there",
            "Name the primary in DATABASE_URL, or add target_session_attrs=primary.",
        )
    if isinstance(tables.connection, PooledConnection):
        yield Finding(
            "pooler",
            NOTE,
            "a pooler shares its servers between clients: each lookup has a transaction of its own, "
            "eight round trips instead of one",
            "Name PostgreSQL itself in DATABASE_URL.",
        )
        if not read_only:
            yield Finding(
                "pooler",
                NOTE,
                "the role is not read-only by itself, only each transaction is",
                f"alter role {ident(tables.role)} set default_transaction_read_only = on;",
            )


_CHECKS: Final[dict[str, Callable[[_Tables], AsyncIterator[Finding]]]] = {
    "fields": _fields,
    "row-level security": _row_security,
    "privileges": _privileges,
    "indexes": _indexes,
    "emails": _emails,
    "duplicates": _duplicates,
    "times": _times,
    "server": _server,
}

_SERVER: Final = """
select 'PostgreSQL ' || current_setting('server_version'), current_database()::text, current_user::text"""
_POLICIES: Final = """
select count(*) from pg_catalog.pg_policies
where schemaname = $1::text and tablename = $2::text and cmd in ('ALL', 'SELECT')
  and (roles = '{public}' or exists (select from unnest(roles) role where pg_has_role(role, 'usage')))"""
_POWERS: Final = (
    "select rolsuper, rolbypassrls from pg_catalog.pg_roles where rolname = current_user"
)
_WRITES: Final = """
select has_table_privilege($1::text, 'insert, update, delete, truncate')
  or has_any_column_privilege($1::text, 'insert, update')"""
_KIND: Final = "select relkind::text from pg_catalog.pg_class where oid = $1::text::regclass"
_INDEXED: Final = """
select exists (
  select from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indexrelid
  join pg_catalog.pg_am a on a.oid = c.relam
  where i.indrelid = $1::text::regclass and i.indisvalid and i.indpred is null
    and (a.amname = 'btree' or a.amname = 'hash' and cardinality($2::text[]) = 1)
    and i.indnkeyatts >= cardinality($2::text[])
    and (select array_agg(t.attname::text order by k.at)
         from unnest(i.indkey::int2[]) with ordinality k(number, at)
         join pg_catalog.pg_attribute t on t.attrelid = i.indrelid and t.attnum = k.number
         where k.at <= cardinality($2::text[])) = $2::text[]
    -- What comes after the first is in the order of pages, or all of it in the opposite one.
    and (select count(*) = 0 or min(o.how) = max(o.how) and min(o.how) in (0, 3)
         from unnest(i.indoption::int2[]) with ordinality o(how, at)
         where o.at between 2 and cardinality($2::text[])))"""
_STATE: Final = """
select pg_catalog.pg_is_in_recovery(), exists (
  select from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting
  where s.setrole = (select oid from pg_catalog.pg_roles where rolname = current_user)
    and setting = 'default_transaction_read_only=on')"""


async def _nats(settings: Settings, report: Report) -> None:
    """Listen and ask where a worker does, beside it: as no member of its queue group."""
    try:
        async with asyncio.timeout(TIMEOUT), _client(settings) as (client, refused):
            version = client.connected_server_version
            number = f"{version.major}.{version.minor}.{version.patch}"
            report.servers["nats"] = f"NATS {number}, messages up to {client.max_payload} bytes"
            report.findings += await _permissions(client, refused, settings)
            await _workers(client, settings, report)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"cannot connect to NATS: {_why(error)}"
        report.findings.append(Finding("nats", BROKEN, message, "Check NATS_URL and credentials."))


@asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[tuple[Client, list[str]]]:
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    async with asyncio.timeout(PATIENCE):  # it would try again and again
        client = await nats.connect(
            settings.nats_url,
            name="responder-check",
            error_cb=note,
            allow_reconnect=False,
            **nats_options(settings),
        )
    try:
        yield client, refused
    finally:
        await client.close()


async def _permissions(client: Client, refused: list[str], settings: Settings) -> list[Finding]:
    wanted = [endpoint.subject(settings.subject_prefix) for endpoint in ENDPOINTS]
    wanted += [each for verb in VERBS for each in subjects(verb, name=SERVICE, id="*")]
    for subject in wanted:
        await client.subscribe(subject)
    await client.publish(client.new_inbox(), b"")
    # The server answers in order, so a violation arrives before the second PONG.
    await client.flush()
    await client.flush()
    denied = [each for each in wanted if any(f'"{each.lower()}"' in words for words in refused)]
    findings = [
        Finding(
            "nats",
            BROKEN if subject.startswith(settings.subject_prefix) else WARNING,
            f"NATS does not permit to subscribe to {subject}",
            "Permit the account of responder to subscribe to "
            f"{settings.subject_prefix}.> and $SRV.>.",
        )
        for subject in denied
    ]
    if any("publish" in words for words in refused):
        findings.append(
            Finding(
                "nats",
                WARNING,
                "NATS does not permit to publish to inboxes at any time",
                "Permit to publish to _INBOX.>, or allow_responses, which is enough and not seen here.",
            )
        )
    return findings


async def _workers(client: Client, settings: Settings, report: Report) -> None:
    """Count the workers that answer; each tells of itself."""
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(f"$SRV.PING.{SERVICE}", b"", reply=inbox)
    count = 0
    with suppress(nats.errors.TimeoutError):
        # Where there is nobody the server itself answers, with a header that says so.
        while not (await replies.next_msg(timeout=PATIENCE / 4)).headers:
            count += 1
    report.servers["workers"] = f"{count} answer on {settings.subject_prefix}.>"
