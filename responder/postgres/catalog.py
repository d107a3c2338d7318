"""What PostgreSQL's catalog says of tables: the queries, and their rows."""

from __future__ import annotations

from typing import Final, NamedTuple

COLUMNS: Final = """
select n.nspname::text as schema, c.relname::text as table, v.version,
       pg_catalog.row_security_active(c.oid) as row_security, a.attname::text as name,
       pg_catalog.has_schema_privilege(n.oid, 'usage')
         and pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')
         and (t.typname <> 'citext'
              or pg_catalog.has_schema_privilege(tn.oid, 'usage')) as readable,
       a.attnotnull as not_null, tn.nspname::text as type_schema, t.typname::text as type,
       t.typcategory::text as category
from pg_catalog.pg_class c
cross join lateral (
  select c.oid || ':' || sum(every.xmin::text::bigint) as version
  from pg_catalog.pg_attribute every where every.attrelid = c.oid and every.attnum > 0
) v
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type d on d.oid = a.atttypid
join pg_catalog.pg_type t on t.oid = case d.typtype when 'd' then d.typbasetype else d.oid end
join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by n.nspname, c.relname, a.attnum
"""


class CatalogColumn(NamedTuple):
    """A row of COLUMNS: a column as the catalog describes it; of a domain, its base type."""

    schema: str
    table: str
    version: (
        str  # of the table's definition: another whenever a column has changed (see `staleness`)
    )
    row_security: bool  # whether policies decide which rows our role sees
    name: str
    readable: bool  # by our role
    not_null: bool
    type_schema: str
    type: str
    category: str  # pg_type.typcategory


REFERENCES: Final = """
select distinct fn.nspname::text as from_schema, f.relname::text as from_table,
       tn.nspname::text as to_schema, t.relname::text as to_table
from pg_catalog.pg_constraint k
join pg_catalog.pg_class f on f.oid = k.conrelid
join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
join pg_catalog.pg_class t on t.oid = k.confrelid
join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
where k.contype = 'f'
"""


class CatalogReference(NamedTuple):
    """A row of REFERENCES: a foreign key from one table to another."""

    from_schema: str
    from_table: str
    to_schema: str
    to_table: str


TIMEZONE: Final = "select now() at time zone $1::text"  # refused if there is no such time zone
