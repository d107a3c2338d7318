"""What the database has for responder: its tables, the role's privileges, indexes and rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from responder.checks.ids import repeated_ids
from responder.checks.indexes import missing_indexes
from responder.checks.organizations import unnamed_organizations
from responder.checks.report import BROKEN, NOTE, WARNING, Candidate, Finding, Mapped, Report
from responder.checks.row_security import row_security
from responder.checks.rows import unreadable_rows
from responder.errors import SchemaError, UnavailableError
from responder.postgres import decision
from responder.postgres.additional import fields_of
from responder.postgres.catalog import TIMEZONE, Catalog, CatalogColumn
from responder.postgres.connection import Connection, PooledConnection
from responder.postgres.decision import Decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.errors import NotAllowedError, SlowError, describe
from responder.postgres.fields import ACCOUNT, MEMBER, ORGANIZATION, USER, plain
from responder.postgres.inspection import connected
from responder.postgres.instants import TEXTS
from responder.postgres.near import near, setting
from responder.postgres.nearest import some
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import ident, shown
from responder.postgres.schema import Schema
from responder.settings import Settings

TIMEOUT: Final = 10.0  # seconds for each check of what was discovered


@dataclass(frozen=True, slots=True)
class _Discovered:
    """What was discovered in a database, over which connection and as which role.

    `timezone` is what the operator has set for timestamps without one.
    """

    connection: Connection
    role: str
    catalog: Catalog
    schema: Schema
    timezone: str
    overrides: Overrides

    @property
    def columns(self) -> Sequence[CatalogColumn]:
        """Of all tables."""
        return self.catalog.columns


async def check(settings: Settings, report: Report) -> None:
    """Report the server, the columns that fields are read from, and what each check finds."""
    if settings.dsn is None:
        remedy = "Give it as the application has it."
        report.findings.append(Finding("postgres", BROKEN, "DATABASE_URL is not set", remedy))
        return
    try:
        async with connected(settings.dsn) as connection:
            discovered = await _discover(connection, settings, report)
            if discovered is None:
                return
            report.mapping = _mapping(discovered.schema, settings)
            for name, findings in _CHECKS.items():
                report.findings += await _in_time(name, findings(discovered))
    except UnavailableError as error:
        report.findings.append(Finding("postgres", BROKEN, error.message, "Check DATABASE_URL."))


_SERVER: Final = """
select 'PostgreSQL ' || current_setting('server_version'), current_database()::text,
       current_user::text"""


async def _discover(
    connection: Connection, settings: Settings, report: Report
) -> _Discovered | None:
    """Find Better Auth's tables; where they are not found, report why and return None."""
    try:
        ((version, database, role),) = await connection.fetch(_SERVER)
        report.servers["postgres"] = f"{version}, database {shown(database)}, role {shown(role)}"
        catalog = await fetch_catalog(connection, settings.overrides)
        decided = decision.decide(catalog, settings.overrides)
        report.candidates = list(_candidates(decided))
        report.findings += [
            Finding("tables", WARNING if hint.serious else NOTE, hint.message, hint.setting)
            for hint in decided.hints
            if hint.field not in _ALWAYS_THERE
        ]
        found = decided.schema
    except SchemaError as error:
        report.findings.append(Finding("tables", BROKEN, error.message))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        message = f"cannot read the catalog: {describe(error)}"
        report.findings.append(Finding("tables", BROKEN, message))
    else:
        return _Discovered(connection, role, catalog, found, settings.timezone, settings.overrides)
    return None


def _candidates(decided: Decision) -> Iterator[Candidate]:
    """Yield each table that could be meant, the one that was taken first."""
    found = decided.found
    for role, table, weighed in (
        (USER, found.users if found else None, decided.users),
        (MEMBER, found.members if found else None, decided.members),
    ):
        candidates = [
            Candidate(
                role.name,
                str(each.table),
                table is not None and each.table == (table.schema, table.name),
                tuple(each.speaks.values()),
                (*(f"it has no {field}" for field in each.missing), *each.against),
            )
            for each in weighed
        ]
        yield from sorted(candidates, key=lambda each: not each.taken)


def _mapping(found: Schema, settings: Settings) -> list[Mapped]:
    mapping = []
    tables = (found.users, USER), (found.members, MEMBER), (found.organizations, ORGANIZATION)
    for table, role in tables:
        if table is None:
            continue
        by_hand = settings.columns.get(role.name, {})
        additional = fields_of(role, settings.additional_fields)
        for field in dict.fromkeys((*role.fields, *additional)):
            column = table.columns.get(field)
            name, type_ = (column.name, column.type) if column else (None, None)
            mapping.append(Mapped(str(table), field, name, type_, field in by_hand))
    return mapping


async def _in_time(name: str, findings: AsyncIterator[Finding]) -> list[Finding]:
    """Return what a check finds within its time; that it fails is a finding, too."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(TIMEOUT):
            async for finding in findings:
                found.append(finding)  # noqa: PERF401 - what comes before a failure counts
    except (SlowError, TimeoutError):
        found.append(Finding(name, NOTE, f"{name}: not finished in time; the tables are large"))
    except NotAllowedError:
        found.append(Finding(name, BROKEN, f"{name}: PostgreSQL does not allow to look at that"))
    except Exception as error:  # noqa: BLE001 - the other checks go on
        found.append(Finding(name, BROKEN, f"{name}: this check could not run: {describe(error)}"))
    return found


# The checks. Each yields what it finds; the SQL of each stands before it.

# Better Auth has had these fields in every version, so a table that seems to lack one has it under
# another name.
_ALWAYS_THERE: Final = ("name", "image", "createdAt")


async def _fields(discovered: _Discovered) -> AsyncIterator[Finding]:
    users = discovered.schema.users
    columns = [
        column
        for column in discovered.columns
        if (column.schema, column.table) == (users.schema, users.name)
    ]
    whole = [column.name for column in columns]
    for missing in [field for field in _ALWAYS_THERE if field not in users.columns]:
        names = near(missing, columns, USER)
        names += [name for name in whole if plain(missing) in plain(name) and name not in names]
        hint = f" Could it be {' or '.join(map(shown, names))}?" if names else ""
        called = setting(discovered.overrides, USER, columns={missing: names[0]}) if names else ""
        yield Finding(
            "fields",
            WARNING if missing == "name" else NOTE,
            f"{users} has no column for {missing}, which answers null.{hint}",
            called or f"RESPONDER_COLUMNS=user.{missing}=… says what it is called.",
        )
    if discovered.schema.members is None:
        yield Finding(
            "fields",
            NOTE,
            "no table of members: organization fields are null, lists of them unavailable",
            "RESPONDER_MEMBERS_TABLE and RESPONDER_COLUMNS name one that is called otherwise.",
        )


_POWERS: Final = """
select rolsuper, rolbypassrls from pg_catalog.pg_roles where rolname = current_user"""
_WRITES: Final = """
select has_table_privilege($1::oid, 'insert, update, delete, truncate')
  or has_any_column_privilege($1::oid, 'insert, update')"""


async def _privileges(discovered: _Discovered) -> AsyncIterator[Finding]:
    remedy = "`responder grants` makes a role that may only read what is needed."
    ((superuser, bypasses),) = await discovered.connection.fetch(_POWERS)
    if superuser:
        yield Finding("privileges", WARNING, "the role is a superuser", remedy)
        return
    if bypasses:
        yield Finding("privileges", WARNING, "the role bypasses row-level security", remedy)
    for table in discovered.schema.read:
        ((writes,),) = await discovered.connection.fetch(_WRITES, int(table.relation))
        if writes:
            yield Finding("privileges", WARNING, f"the role may write to {table}", remedy)
    if readable := _readable_secrets(discovered.columns):
        message = f"the role may read secrets: {some(readable)}"
        yield Finding("privileges", WARNING, message, remedy)


# Columns with secrets, which responder never reads, by the columns that such a table is recognized
# by: a table with publicKey and privateKey has Better Auth's keys, and privateKey is the secret.
_SECRETS: Final = {
    ("userId", "token", "expiresAt"): ("token",),  # sessions, and other tables of tokens
    ACCOUNT: ("password", "accessToken", "refreshToken", "idToken"),
    ("publicKey", "privateKey"): ("privateKey",),
    ("identifier", "value", "expiresAt"): ("value",),  # verifications
    USER.known_by: ("password",),
}


def _readable_secrets(columns: Iterable[CatalogColumn]) -> list[str]:
    tables: dict[tuple[str, str], list[CatalogColumn]] = {}
    for column in columns:
        tables.setdefault((column.schema, column.table), []).append(column)
    return [
        shown(column.schema, column.table, column.name)
        for table in tables.values()
        for known_by, secrets in _SECRETS.items()
        if _plain(known_by) <= _plain(each.name for each in table)
        for column in table
        if column.readable and plain(column.name) in _plain(secrets)
    ]


def _plain(names: Iterable[str]) -> set[str]:
    return {plain(name) for name in names}


async def _emails(discovered: _Discovered) -> AsyncIterator[Finding]:
    users = discovered.schema.users
    email = users.columns["email"]
    if email.type == "citext":
        return
    name, table = ident(email.name), users.quoted
    shared = (
        f"(select lower({name}) from {table} where {name} is not null "
        "group by 1 having count(*) > 1)"
    )
    ((count, alike),) = await discovered.connection.fetch(
        f"select count(*), count(*) filter (where lower({name}) in {shared}) "
        f"from {table} where {name}::text <> lower({name}::text)"
    )
    if not count:
        return
    message = (
        f"{count} emails in {users} are not in lower case: "
        "neither Better Auth nor responder finds them by email"
    )
    remedy = f"update {table} set {name} = lower({name}) where {name} <> lower({name})"
    if alike:
        message += (
            f"; {alike} of them differ from another one in case only, and are yours to decide on"
        )
        remedy += f" and lower({name}) not in {shared}"
    yield Finding("emails", WARNING, message, f"{remedy};")


async def _duplicates(discovered: _Discovered) -> AsyncIterator[Finding]:
    members = discovered.schema.members
    if members is None:
        return
    table = members.quoted
    names = ", ".join(ident(members.columns[field].name) for field in ("organizationId", "userId"))
    ((count,),) = await discovered.connection.fetch(
        "select count(*) from "
        f"(select from {table} group by {names} having count(*) > 1) duplicated"
    )
    if count:
        yield Finding(
            "duplicates",
            NOTE,
            f"{count} users are in an organization more than once: "
            "their earliest membership speaks",
            f"select {names} from {table} group by {names} having count(*) > 1;",
        )


async def _times(discovered: _Discovered) -> AsyncIterator[Finding]:
    if not await discovered.connection.accepts(TIMEZONE, discovered.timezone):
        message = "RESPONDER_TIMEZONE: PostgreSQL does not know this time zone"
        yield Finding("times", BROKEN, message)
    users = discovered.schema.users
    expires = users.columns.get("banExpires")
    if expires and expires.type in ("timestamp", "date", *TEXTS):
        yield Finding(
            "times",
            NOTE,
            f"{users}.{shown(expires.name)} has no time zone and is read as {discovered.timezone}",
            "RESPONDER_TIMEZONE names another, if Better Auth wrote its own local time.",
        )


async def _deletions(discovered: _Discovered) -> AsyncIterator[Finding]:
    members = discovered.schema.members
    deleted = members and members.columns.get("deletedAt")
    if deleted:
        yield Finding(
            "members",
            NOTE,
            f"memberships whose {shown(deleted.name)} is set do not count",
            "RESPONDER_COLUMNS=member.deletedAt= counts them, too.",
        )


_STATE: Final = """
select pg_catalog.pg_is_in_recovery(), exists (
  select from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting
  where s.setrole = (select oid from pg_catalog.pg_roles where rolname = current_user)
    and setting = 'default_transaction_read_only=on')"""


async def _server(discovered: _Discovered) -> AsyncIterator[Finding]:
    ((standby, read_only),) = await discovered.connection.fetch(_STATE)
    if standby:
        yield Finding(
            "server",
            WARNING,
            "this is a standby: a write is seen only once it has been replayed there",
            "Name the primary in DATABASE_URL, or add target_session_attrs=primary.",
        )
    if isinstance(discovered.connection, PooledConnection):
        yield Finding(
            "pooler",
            NOTE,
            "a pooler shares its servers between clients: each lookup has a transaction of its "
            "own, eight round trips instead of one",
            "Name PostgreSQL itself in DATABASE_URL.",
        )
        if not read_only:
            yield Finding(
                "pooler",
                NOTE,
                "the role is not read-only by itself, only each transaction is",
                f"alter role {ident(discovered.role)} set default_transaction_read_only = on;",
            )


_Check: TypeAlias = Callable[[_Discovered], AsyncIterator[Finding]]
_CHECKS: Final[dict[str, _Check]] = {
    "fields": _fields,
    "row-level security": lambda discovered: row_security(
        discovered.connection, discovered.schema, discovered.role
    ),
    "organizations": lambda discovered: unnamed_organizations(
        discovered.schema, discovered.catalog, discovered.overrides
    ),
    "privileges": _privileges,
    "indexes": lambda discovered: missing_indexes(discovered.connection, discovered.schema),
    "rows": lambda discovered: unreadable_rows(discovered.connection, discovered.schema),
    "emails": _emails,
    "duplicates": _duplicates,
    "ids": lambda discovered: repeated_ids(
        discovered.connection, discovered.schema, discovered.catalog, discovered.overrides
    ),
    "times": _times,
    "deletions": _deletions,
    "server": _server,
}
