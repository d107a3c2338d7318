"""SQL for a role that may do what responder does, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from responder.errors import SettingsError
from responder.postgres import decision
from responder.postgres.discovery import fetch_catalog
from responder.postgres.dsn import Dsn
from responder.postgres.inspection import connected
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import ident, literal, qualified, shown
from responder.postgres.schema import Schema

MAX_NAME: Final = 63  # bytes of a name (PostgreSQL's NAMEDATALEN less one)

# What views with security_invoker read, of the tables $1: with the privileges of the role that
# runs the query, and not of the view's owner. Such a view may be beneath any other view. A column
# of 0 is the whole row. (PostgreSQL's manual, CREATE VIEW.)
_BENEATH: Final = """
with recursive reached(oid) as (
  select to_regclass(name)::oid from unnest($1::text[]) as name
  union
  select d.refobjid
  from reached i
  join pg_catalog.pg_class v on v.oid = i.oid and v.relkind = 'v'
  join pg_catalog.pg_rewrite r on r.ev_class = v.oid
  join pg_catalog.pg_depend d on d.objid = r.oid and d.classid = 'pg_rewrite'::regclass
    and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
)
select n.nspname::text, c.relname::text, array_agg(distinct a.attname::text)
from reached i
join pg_catalog.pg_class v on v.oid = i.oid and v.relkind = 'v'
cross join pg_catalog.pg_options_to_table(v.reloptions) o
join pg_catalog.pg_rewrite r on r.ev_class = v.oid
join pg_catalog.pg_depend d on d.objid = r.oid and d.classid = 'pg_rewrite'::regclass
  and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
join pg_catalog.pg_class c on c.oid = d.refobjid and c.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  and d.refobjsubid in (0, a.attnum)
where o.option_name = 'security_invoker' and o.option_value::bool
group by 1, 2 order by 1, 2
"""
_DATABASE: Final = "select current_database()::text"


class Beneath(NamedTuple):
    """A table or view that a view with security_invoker reads, and its columns that it reads."""

    schema: str
    name: str
    columns: Sequence[str]


async def grants_for(dsn: Dsn, overrides: Overrides, *, role: str) -> str:
    """Find Better Auth's tables and return the SQL of `grants` for them.

    Args:
        dsn: of the database that has the tables; its role may be one that cannot read them.
        overrides: what the operator has said about the tables.
        role: the name of the role to make, in its literal case.

    Raises UnavailableError if there is no connection, SchemaError if the tables are not found,
    SettingsError if there can be no such role.
    """
    _check_role(role)
    async with connected(dsn) as connection:
        ((database,),) = await connection.fetch(_DATABASE)
        catalog = await fetch_catalog(connection, overrides)
        # The role that connects may be the very one that needs these grants. Tables would not be
        # found among columns that it cannot read, so each column counts as readable.
        readable = [column._replace(readable=True) for column in catalog.columns]
        found = decision.find(catalog._replace(columns=readable), overrides)
        names = [table.quoted for table in found.tables]
        beneath = [Beneath(*row) for row in await connection.fetch(_BENEATH, names)]
    path = () if overrides.search_path else catalog.search_path
    return grants(found, role=role, database=database, search_path=path, beneath=beneath)


def _check_role(role: str) -> None:
    """Raise SettingsError for a name that PostgreSQL takes for another role, or refuses.

    `grant … to "public"` grants to every role, quoted or not, and `grant … to pg_monitor` to each
    member of that one. A longer name would be cut. (PostgreSQL's manual, CREATE ROLE and GRANT.)
    """
    try:
        size = len(role.encode())
    except UnicodeEncodeError:
        raise SettingsError("ROLE: expected UTF-8") from None
    if not 0 < size <= MAX_NAME:
        raise SettingsError(f"ROLE: expected 1 to {MAX_NAME} bytes")
    if role in ("public", "none") or role.startswith("pg_"):
        raise SettingsError(f"ROLE: {shown(role)} is PostgreSQL's own, and cannot be made")


def grants(
    found: Schema,
    *,
    role: str,
    database: str,
    search_path: Sequence[str] = (),
    beneath: Sequence[Beneath] = (),
) -> str:
    """Return SQL that makes a role, or keeps one, with the least privilege; it may be run again.

    The role gets no password: the operator decides how it authenticates.

    Args:
        found: the tables that the role may read.
        role: its name, in its literal case.
        database: the name of the database that has the tables.
        search_path: what is set for the role with which the tables were found, if anything is.
        beneath: what views with security_invoker read.
    """
    quoted = ident(role)
    make = f"begin create role {quoted} login; exception when duplicate_object then null; end"
    lines = [
        f"-- What responder needs to read {found.users} and {found.members or 'no members'}.",
        "-- In psql, \\password gives the role one. Run this again when columns have been added.",
        f"do {literal(make)};",
        # A connection through a pooler cannot set these for its session, so the role has them.
        f"alter role {quoted} set default_transaction_read_only = on;",
        f"alter role {quoted} set statement_timeout = '5s';",
        f"grant connect on database {ident(database)} to {quoted};",
    ]
    if search_path:  # it may have decided which tables are meant
        path = ", ".join(map(ident, search_path))
        lines.append(f"alter role {quoted} in database {ident(database)} set search_path = {path};")
    columns = [column for table in found.read for column in table.columns.values()]
    schemas = {table.schema for table in found.read}
    # The lookups name the schema of citext's operators (see `expressions`).
    schemas |= {each.schema for each in beneath}
    schemas |= {column.type_schema for column in columns if column.type == "citext"}
    lines += [f"grant usage on schema {ident(each)} to {quoted};" for each in sorted(schemas)]
    for table in found.read:
        names = ", ".join(ident(column.name) for column in table.columns.values())
        lines.append(f"grant select ({names}) on {table.quoted} to {quoted};")
    for each in beneath:
        names = ", ".join(map(ident, each.columns))
        lines.append(f"grant select ({names}) on {qualified(each.schema, each.name)} to {quoted};")
    return "\n".join(lines) + "\n"
