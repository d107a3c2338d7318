"""The indexes without which lookups read whole tables, and the SQL that makes those missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from responder.checks.report import NOTE, WARNING, Finding, Severity
from responder.postgres.connection import Connection
from responder.postgres.quoting import ident
from responder.postgres.schema import Schema, Table


async def missing_indexes(connection: Connection, schema: Schema) -> AsyncIterator[Finding]:
    """Yield a finding for each lookup that has no index to read by."""
    users, members = schema.users, schema.members
    wanted: list[tuple[Table, tuple[str, ...], str]] = [
        (users, ("id",), "users.get"),
        (users, ("email",), "users.by_email"),
    ]
    if members:
        wanted.append((members, ("userId",), "every user's membership"))
    for table, fields, slow in wanted:
        if not await _indexed(connection, table, fields):
            message = f"{slow} reads all of {table}, for want of an index"
            yield await _missing(connection, WARNING, message, table, fields)
    if members and not await _indexed(connection, members, order := _page_order(members)):
        if await _indexed(connection, members, ("organizationId",)):
            message = "each page of users.org_list reads and sorts the whole organization"
            yield await _missing(connection, NOTE, message, members, order)
        else:
            message = f"users.org_list reads all of {members}, for want of an index"
            yield await _missing(connection, WARNING, message, members, order)


def _page_order(members: Table) -> tuple[str, ...]:
    """The fields of an index that has the members of an organization in the order of pages."""
    order = ("organizationId", "createdAt", "id" if "id" in members.columns else "userId")
    return tuple(field for field in order if field in members.columns)


# Pages are in ascending order with nulls last, for which an index has 0 in `indoption`. Where it
# has 3 (descending, nulls first) for every column after the first, it is read backwards.
_INDEXED: Final = """
select exists (
  select from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indexrelid
  join pg_catalog.pg_am a on a.oid = c.relam
  where i.indrelid = $1::oid and i.indisvalid and i.indpred is null
    and (a.amname = 'btree' or a.amname = 'hash' and cardinality($2::text[]) = 1)
    and i.indnkeyatts >= cardinality($2::text[])
    and (select array_agg(t.attname::text order by k.at)
         from unnest(i.indkey::int2[]) with ordinality k(number, at)
         join pg_catalog.pg_attribute t on t.attrelid = i.indrelid and t.attnum = k.number
         where k.at <= cardinality($2::text[])) = $2::text[]
    and (select count(*) = 0 or min(o.how) = max(o.how) and min(o.how) in (0, 3)
         from unnest(i.indoption::int2[]) with ordinality o(how, at)
         where o.at between 2 and cardinality($2::text[])))"""


async def _indexed(connection: Connection, table: Table, fields: Sequence[str]) -> bool:
    """Whether an index begins with the columns of these fields, in the order of pages."""
    names = [table.columns[field].name for field in fields]
    ((found,),) = await connection.fetch(_INDEXED, int(table.relation), names)
    return bool(found)


_KIND: Final = "select relkind::text from pg_catalog.pg_class where oid = $1::oid"
_PARTITIONED, _VIEW, _FOREIGN = "p", "v", "f"


async def _missing(
    connection: Connection, severity: Severity, message: str, table: Table, fields: Sequence[str]
) -> Finding:
    ((kind,),) = await connection.fetch(_KIND, int(table.relation))
    if kind in (_VIEW, _FOREIGN):
        where = "the tables below it" if kind == _VIEW else "another server"
        return Finding("indexes", NOTE, f"{table} has its indexes in {where}: not looked at")
    names = ", ".join(ident(table.columns[field].name) for field in fields)
    # PostgreSQL cannot make an index of a partitioned table concurrently.
    concurrently = "" if kind == _PARTITIONED else " concurrently"
    remedy = f"create index{concurrently} on {table.quoted} ({names});"
    return Finding("indexes", severity, message, remedy)
