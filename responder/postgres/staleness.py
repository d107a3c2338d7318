"""Whether the tables are still what a statement was made for."""

# An answer is right only if the tables are what its statement was made for. PostgreSQL refuses a
# name or a type that is gone, but not one that has come: a `role` column added to `members` would
# go on answering null. So every lookup is stamped with the time at which its statement was last
# analysed: PostgreSQL reads the constant 'now' while it analyses, once, and analyses a prepared
# statement anew after any change of its tables. While that time is the same as before, nothing has
# changed, and knowing it costs a lookup nothing; when it is another, the version of the tables'
# definitions is asked for and compared with that of the schema the statement was made from.

from __future__ import annotations

from typing import Final

from responder.postgres.quoting import literal, regclass
from responder.postgres.schema import Schema

ANALYSED: Final = -1  # where the stamp is in the row of any lookup, and there is always a row


def stamped(parameters: str, lookup: str) -> str:
    """Return a lookup whose rows end with their stamp; where it finds nothing it has one row."""
    return f"""-- {parameters}
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
{lookup}
) l on true"""


def version_of(schema: Schema) -> str:
    """Return the query for the version of the tables' definitions (see `Schema.version`)."""
    definitions = [
        f"""(
  select a.attrelid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_attribute a
  where a.attrelid = {regclass(table.schema, table.name)} and a.attnum > 0 group by a.attrelid
)"""
        for table in schema.read
    ]
    definitions += [
        f"""coalesce((
  select c.oid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0
  where n.nspname = {literal(former.schema)} and c.relname = {literal(former.name)}
    and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
  group by c.oid having not bool_and(a.attisdropped)
), '')"""
        for former, _ in schema.formers
    ]
    version = " || ' ' || ".join(definitions)
    return f"select {version} as version"
