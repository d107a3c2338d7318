"""What PostgreSQL's catalog says of tables: the queries, and their rows."""

# A catalog may have ten thousand tables, one set for each tenant of an application. So PostgreSQL
# itself picks those that can matter, and only what it says of these is sent and looked at; after a
# change, what it says of the tables that were found (FOLLOWED).

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

# The tables that can matter, of any schema. `decision` can take no others, and these are also what
# its messages and those of `check` may name:
#
#   - one whose name is said by the operator ($1), or ends as Better Auth's do (`app_user`,
#     `workspaceMembers`, `organization`)
#   - one with anything like an email, so that a table of users is seen that lacks a wanted name
#   - one with columns of sessions or accounts, or with secrets
#   - one with a user and an organization
#   - one to which such a table refers
#
# Names are compared without case and underscores; a column that the operator has named ($2) counts
# as the field that it is said to hold ($3). Each name is looked at once, however many columns it
# has, because comparing a name costs PostgreSQL more than reading it.
RELEVANT: Final = """
with names as materialized (
  select d.attname, coalesce(h.word, d.word) as word
  from (
    select every.attname, replace(lower(every.attname::text), '_', '') as word
    from (
      select attname from pg_catalog.pg_attribute
      where attnum > 0 and not attisdropped group by attname
    ) every
  ) d
  left join unnest($2::text[], $3::text[]) as h(name, word) on h.name = d.attname::text
  where h.name is not null or d.word like '%mail%'
    or d.word in ('userid', 'organizationid', 'token', 'ipaddress', 'useragent', 'providerid',
                  'accountid', 'privatekey', 'password', 'identifier', 'value')
), signs as (
  select a.attrelid as oid,
         array_agg(case when n.word like '%mail%' then 'email' else n.word end) as words
  from pg_catalog.pg_attribute a join names n on n.attname = a.attname
  where a.attnum > 0 and not a.attisdropped group by a.attrelid
), relevant as materialized (
  select c.oid
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join signs s on s.oid = c.oid
  where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
    and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
    and (c.relname::text = any($1::text[])
         or c.relname::text ~* '(user|member|membership|organi[sz]ation)s?$'
         or s.words && '{email,privatekey,password}'
         or s.words @> '{ipaddress,useragent}' or s.words @> '{providerid,accountid}'
         or s.words @> '{userid,token}' or s.words @> '{identifier,value}'
         or s.words @> '{userid,organizationid}')
)
select oid from relevant
union
select k.confrelid from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conrelid in (select oid from relevant)
"""

# The tables that are followed: those with one of these oids, schemas and names.
FOLLOWED: Final = """
select unnest($1::oid[]) as oid
union
select c.oid from unnest($2::text[], $3::text[]) as home(schema, name)
join pg_catalog.pg_namespace n on n.nspname = home.schema::name
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = home.name::name
"""

# Another number whenever a table may have come, gone or changed, for next to nothing: how many rows
# of the catalog have been written. A session may tell of what it has written up to ten seconds
# later, and of nothing where `track_counts` is off.
WRITTEN: Final = """
select sum(pg_catalog.pg_stat_get_tuples_inserted(t.oid)
           + pg_catalog.pg_stat_get_tuples_updated(t.oid)
           + pg_catalog.pg_stat_get_tuples_deleted(t.oid))::bigint
from unnest('{pg_class,pg_attribute,pg_constraint,pg_index,pg_namespace}'::regclass[]) as t(oid)
"""

COLUMNS: Final = """
select n.nspname::text as schema, c.relname::text as table, v.version,
       pg_catalog.row_security_active(c.oid) as row_security, a.attname::text as name,
       pg_catalog.has_schema_privilege(n.oid, 'usage')
         and pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')
         and (t.typname <> 'citext'
              or pg_catalog.has_schema_privilege(tn.oid, 'usage')) as readable,
       a.attnotnull as not_null, tn.nspname::text as type_schema, t.typname::text as type,
       t.typcategory::text as category, c.relkind::text as kind,
       pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
       pg_catalog.pg_get_userbyid(n.nspowner)::text as schema_owner
from pg_catalog.pg_class c
cross join lateral (
  select c.oid || ':' || sum(every.xmin::text::bigint) as version
  from pg_catalog.pg_attribute every where every.attrelid = c.oid and every.attnum > 0
) v
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type d on d.oid = a.atttypid
join pg_catalog.pg_type t on t.oid = case when d.typtype <> 'd' then d.oid else (
  with recursive base as (
    select d.typbasetype as oid
    union all
    select b.typbasetype from base join pg_catalog.pg_type b on b.oid = base.oid
    where b.typtype = 'd'
  )
  select base.oid from base join pg_catalog.pg_type b on b.oid = base.oid where b.typtype <> 'd'
) end
join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
where c.oid = any($1::oid[]) and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
order by n.nspname, c.relname, a.attnum
"""


class CatalogColumn(NamedTuple):
    """A row of COLUMNS: a column as the catalog describes it; of a domain, its base type."""

    schema: str
    table: str
    version: str  # of the table's definition: another whenever a column has changed
    row_security: bool  # whether policies decide which rows our role sees
    name: str
    readable: bool  # by our role
    not_null: bool
    type_schema: str
    type: str
    category: str  # pg_type.typcategory
    kind: str = "r"  # of the table: pg_class.relkind
    owner: str = ""  # of the table
    schema_owner: str = ""


REFERENCES: Final = """
select fn.nspname::text as from_schema, f.relname::text as from_table,
       tn.nspname::text as to_schema, t.relname::text as to_table,
       array(select a.attname::text from unnest(k.conkey) with ordinality key(number, at)
             join pg_catalog.pg_attribute a on a.attrelid = f.oid and a.attnum = key.number
             order by key.at) as from_columns,
       array(select a.attname::text from unnest(k.confkey) with ordinality key(number, at)
             join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = key.number
             order by key.at) as to_columns
from pg_catalog.pg_constraint k
join pg_catalog.pg_class f on f.oid = k.conrelid
join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
join pg_catalog.pg_class t on t.oid = k.confrelid
join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
where k.contype = 'f' and k.conrelid = any($1::oid[])
  and not f.relispartition and not t.relispartition
order by 1, 2, 3, 4, 5
"""


class CatalogReference(NamedTuple):
    """A row of REFERENCES: a foreign key from one table to another, and between which columns."""

    from_schema: str
    from_table: str
    to_schema: str
    to_table: str
    from_columns: Sequence[str] = ()
    to_columns: Sequence[str] = ()


KEYS: Final = """
select n.nspname::text as schema, c.relname::text as table,
       array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality key(number, at)
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = key.number
             where key.at <= i.indnkeyatts order by key.at) as columns
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where i.indrelid = any($1::oid[]) and i.indisunique and i.indisvalid and i.indexprs is null
  and not c.relispartition
order by 1, 2, 3
"""


class CatalogKey(NamedTuple):
    """A row of KEYS: the columns of a unique index, which may be that of a primary key, or be of
    some rows only.
    """

    schema: str
    table: str
    columns: Sequence[str]


# Of the role or of the database, the nearest first. Our own connections have another search path,
# and what PostgreSQL would have without a setting says nothing of where the application looks.
SEARCH_PATH: Final = """
select pg_catalog.substr(setting, pg_catalog.length('search_path=') + 1), session_user::text
from pg_catalog.pg_db_role_setting s
cross join lateral pg_catalog.unnest(s.setconfig) setting
where setting like 'search_path=%'
  and s.setdatabase in (0, (
    select d.oid from pg_catalog.pg_database d
    where d.datname = pg_catalog.current_database()))
  and s.setrole in (0, (select r.oid from pg_catalog.pg_roles r where r.rolname = session_user))
order by s.setrole = 0, s.setdatabase = 0
limit 1
"""


class Catalog(NamedTuple):
    """All that the catalog says of tables; `search_path` has the schemas that a setting of the role
    or of the database names, or none.
    """

    columns: Sequence[CatalogColumn]
    references: Sequence[CatalogReference] = ()
    keys: Sequence[CatalogKey] = ()
    search_path: tuple[str, ...] = ()


TIMEZONE: Final = "select now() at time zone $1::text"  # refused if there is no such time zone
