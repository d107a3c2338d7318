"""All SQL: the catalog queries, and the lookups built from a schema."""

# Strategy: the lookups are text, made once per schema, that could be pasted into psql. Values are
# parameters, always; names pass through `ident`; columns are named one by one, so that a role with
# column privileges suffices and nothing else is ever read.
#
# A parameter is sent as text and cast to its column's type, because casting the column instead would
# read the whole table. Every lookup answers with the fields of `models.User` in their order, then the
# size of the image where it is left out for being over a cap: images may be data URLs of a megabyte, and
# a batch must not pull hundreds of them into memory at once.
#
# A page is one row, with an array of each field: PostgreSQL would wake us for every 8 kB of rows, and to
# take them apart would cost us twice as much.
#
# An answer is right only if the tables still are what its statement was made for. PostgreSQL refuses a
# name or a type that is gone, but not one that has come. So each answer ends with the time at which its
# statement was last analysed: PostgreSQL reads the constant 'now' while it analyses, once, and analyses
# a prepared statement anew after any change of its tables. Another time than before says to ask for the
# version of their definitions. That costs a lookup nothing.

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from responder.models import User
from responder.postgres.schema import Column, Schema, Table

CATALOG_COLUMNS: Final = """
select n.nspname::text as schema, c.relname::text as table, v.version,
       pg_catalog.row_security_active(c.oid) as row_security, a.attname::text as name,
       pg_catalog.has_schema_privilege(n.oid, 'usage')
         and pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')
         and (t.typname <> 'citext' or pg_catalog.has_schema_privilege(tn.oid, 'usage')) as readable,
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

CATALOG_REFERENCES: Final = """
select distinct fn.nspname::text as from_schema, f.relname::text as from_table,
       tn.nspname::text as to_schema, t.relname::text as to_table
from pg_catalog.pg_constraint k
join pg_catalog.pg_class f on f.oid = k.conrelid
join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
join pg_catalog.pg_class t on t.oid = k.confrelid
join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
where k.contype = 'f'
"""

TIMEZONE: Final = "select now() at time zone $1::text"

# Returns the canonical form of a key, None for what cannot be one.
Canonical: TypeAlias = Callable[[str], str | None]

FIELDS: Final = tuple(str(field.alias) for field in User.model_fields.values())
# Where things are in the row of any lookup: the ordinal of its key, from 1; the fields of User; the size in
# bytes of an image over the cap, else null; and in the row of a page, createdAt and id, as text, of the
# last membership wanted. In a page fields and sizes are arrays, side by side, or null where it is empty.
ORDINAL: Final = 0
USER: Final = slice(1, 1 + len(FIELDS))
USER_ID: Final = 1
IMAGE_SIZE: Final = 1 + len(FIELDS)
CREATED_AT: Final = 2 + len(FIELDS)
MEMBER_ID: Final = 3 + len(FIELDS)
ANALYSED: Final = -1  # last in the row of any lookup, and there is always a row
# Only in the rows of a lookup for a caller: whether they may ask at all, and in those of a page, whether
# they may see that organization.
ALLOWED: Final = -2
LISTED: Final = -3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What callers with a token may see.

    A caller sees themself; who shares an organization with them, if that is asked for, else everyone;
    and with an admin role everything.
    """

    shared_organization: bool = True
    admin_roles: tuple[str, ...] = ("admin", "superadmin")


DEFAULT_RULES: Final = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The SQL that lists an organization, from its start or from a position on.

    The fields of User are null where a membership has lost its user, or repeats an earlier one. There is
    one membership more than is wanted, if there are so many.
    """

    first: str
    after: str | None  # None where memberships have no createdAt
    after_null: str  # from where createdAt is null on


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """The SQL of every lookup, for services or for callers.

    Parameters are named in each text's first line. A key names an organization or does not; one that
    is named and null matches nothing. For a service there is one row with a null ordinal where nothing
    is found; for a caller there is a row for each key, with nothing of a user they may not see. There is
    a row for each page.
    """

    by_id: str
    by_ids: str
    by_email: str
    by_emails: str
    pages: Pages | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The SQL of every lookup on one schema, and what its keys may look like."""

    schema: Schema
    version: str

    services: Lookups
    callers: Lookups
    user_id: Canonical
    organization_id: Canonical


def statements(
    schema: Schema, *, timezone: str = "UTC", rules: Rules = DEFAULT_RULES
) -> Statements:
    """Build the lookups of a schema; timestamps without zone are in `timezone`."""
    members = schema.members
    return Statements(
        schema=schema,
        version=_version(schema),
        services=_for_services(schema, timezone),
        callers=_for_callers(schema, timezone, rules),
        user_id=_canonical(schema.users.columns["id"]),
        organization_id=_canonical(members.columns["organizationId"]) if members else text,
    )


def _for_services(schema: Schema, timezone: str) -> Lookups:
    users, members = schema.users, schema.members
    user_id = users.columns["id"]
    fields = _fields(schema, timezone)
    lone = _membership(schema, "$2::text", named="$4::bool")
    each = _membership(schema, "k.organization", named="k.named")
    unnested = "unnest($1::text[], $2::text[], $4::bool[]) with ordinality"
    return Lookups(
        by_id=_stamped(
            "$1 id, $2 organization, $3 cap of the image in bytes, $4 organization is named",
            f"""select 1::bigint as n, {fields}
from {qualified(users)} u{lone}
where u.{ident(user_id.name)} {_equals(user_id)} {_cast("$1::text", user_id)}""",
        ),
        by_ids=_stamped(
            "$1 ids, $2 organizations, $3 cap of the image in bytes, $4 organizations are named",
            f"""select k.n, {fields}
from {unnested} as k(id, organization, named, n)
join {qualified(users)} u on u.{ident(user_id.name)} {_equals(user_id)} {_cast("k.id", user_id)}{each}""",
        ),
        by_email=_stamped(
            "$1 email, $2 organization, $3 cap of the image in bytes, $4 organization is named",
            f"""select 1::bigint as n, {fields}
from {_earliest(users, "$1::text")} u{lone}""",
        ),
        by_emails=_stamped(
            "$1 emails, $2 organizations, $3 cap of the image in bytes, $4 organizations are named",
            f"""select k.n, {fields}
from {unnested} as k(email, organization, named, n)
cross join lateral {_earliest(users, "k.email")} u{each}""",
        ),
        pages=_pages(users, members, fields) if members else None,
    )


# A caller and what they ask for travel together, so that what they may see is decided on the same
# snapshot as what they see. `c` is the caller as stored now: there is always a row of it, in which
# `allowed` is false for one who is banned or gone. Organizations are compared as arrays, each read by a
# user's id: a join of memberships with memberships could be planned by the organization, and read all of
# it. What is not visible is not joined, and its fields are null like those of what does not exist.


def _for_callers(schema: Schema, timezone: str, rules: Rules) -> Lookups:
    users, members = schema.users, schema.members
    user_id = users.columns["id"]
    id_ = f"u.{ident(user_id.name)}"
    own = f"({id_} {_equals(user_id)} c.id)"
    fields = _fields(schema, timezone, secrets=f"(c.admin or {own})")
    visible = f"({own} or c.allowed and ({_sees(schema, rules)}))"
    of_key = "k.organization", "k.named"
    membership = _membership(
        schema, of_key[0], named=of_key[1], among=f"c.admin or {own}", first="c.home"
    )
    one = "(select 1::bigint as n, $1::text as key, $2::text as organization, $4::bool as named) k"
    many = (
        "unnest($1::text[], $2::text[], $4::bool[], $7::int[]) with ordinality "
        "as k(key, organization, named, caller, n)"
    )
    lone_caller = _callers(
        schema, timezone, rules, "(select 1 as n, $5::text as id, $6::text as home)"
    )
    callers = _callers(
        schema,
        timezone,
        rules,
        "(select * from unnest($5::text[], $6::text[]) with ordinality as a(id, home, n))",
    )

    def lookup(key: str, target: str, *, alone: bool) -> str:
        source = (
            f"from {one}\ncross join {lone_caller} c"
            if alone
            else f"from {many}\njoin callers c on c.n = k.caller"
        )
        before = (
            "" if alone else f"with callers as materialized (\n  select * from {callers} c\n)\n"
        )
        s = "" if alone else "s"
        return _stamped(
            f"$1 {key}{s}, $2 organization{s}, $3 cap of the image in bytes, "
            f"$4 organization{s} named, $5 caller{s}, $6 organization{s} of their token{s}"
            + ("" if alone else ", $7 the caller of each, from 1"),
            f"""{before}select k.n, {fields}, c.allowed
{source}
left join {target} on {visible}{membership}""",
        )

    by_id = f"""lateral (
  select {_names(users, "e")} from {qualified(users)} e
  where e.{ident(user_id.name)} {_equals(user_id)} {_cast("k.key", user_id)}
) u"""
    by_email = f"lateral {_earliest(users, 'k.key')} u"
    return Lookups(
        by_id=lookup("id", by_id, alone=True),
        by_ids=lookup("id", by_id, alone=False),
        by_email=lookup("email", by_email, alone=True),
        by_emails=lookup("email", by_email, alone=False),
        pages=_pages(users, members, fields, caller=_lister(schema, timezone, rules))
        if members
        else None,
    )


def _callers(schema: Schema, timezone: str, rules: Rules, source: str) -> str:
    """Callers as stored now, from rows of n, id and home (the organization of their token)."""
    users, members = schema.users, schema.members
    user_id = users.columns["id"]
    user = users.columns.get
    role = _words(user("role"), "v")
    roles = ", ".join(map(literal, rules.admin_roles))
    admin = (
        f"coalesce(string_to_array(coalesce(nullif({role}, ''), 'user'), ',') "
        f"&& array[{roles}]::text[], false)"
    )
    anonymous = _flag_of(user("isAnonymous"), "v")
    banned = _flag_of(user("banned"), "v")
    if expires := user("banExpires"):
        instant = _as_instant(f"v.{ident(expires.name)}", expires, timezone)
        banned = f"{banned} and coalesce({instant} > now(), true)"
    known = f"v.{ident(user_id.name)} is not null"
    home = "a.home"
    organizations = "null::text[]"
    if members:
        organization_id, owner = members.columns["organizationId"], members.columns["userId"]
        home = _cast("a.home", organization_id)
        organizations = _organizations(members, f"v.{ident(user_id.name)}", user_id, owner)
    return f"""(
  select a.n, {home} as home, v.{ident(user_id.name)} as id, {known} and not ({banned}) as allowed,
         {known} and {admin} and not {anonymous} as admin, {anonymous} as anonymous,
         {organizations} as organizations
  from {source} a
  left join {qualified(users)} v on v.{ident(user_id.name)} {_equals(user_id)} {_cast("a.id", user_id)}
)"""


def _organizations(members: Table, user: str, user_id: Column, owner: Column) -> str:
    organization_id = members.columns["organizationId"]
    return f"""array(
    select o.{ident(organization_id.name)} from {qualified(members)} o
    where o.{ident(owner.name)} {_equals(owner)} {_as(user, user_id, owner)}
  )"""


def _sees(schema: Schema, rules: Rules) -> str:
    """Whether a caller sees a user that is not themself."""
    if not rules.shared_organization:
        return "not c.anonymous"
    members, user_id = schema.members, schema.users.columns["id"]
    if members is None:
        return "c.admin"
    owner = members.columns["userId"]
    shared = _organizations(members, f"u.{ident(user_id.name)}", user_id, owner)
    return f"c.admin or not c.anonymous and {shared} && c.organizations"


def _lister(schema: Schema, timezone: str, rules: Rules) -> str:
    """The caller of a page, and whether they may see its organization."""
    members = schema.members
    assert members  # noqa: S101 - there are no pages without
    organization_id = members.columns["organizationId"]
    caller = _callers(
        schema, timezone, rules, "(select 1 as n, k.caller as id, null::text as home)"
    )
    # Not `&&`, for which text[] and varchar[] are of different kinds.
    one = f"{_cast('k.organization', organization_id)} {_equals(organization_id)}"
    listed = f"coalesce({one} any(c.organizations), false)"
    return f"""(
  select c.*, c.allowed and (c.admin or not c.anonymous and {listed}) as listed
  from {caller} c
)"""


def ident(name: str) -> str:
    """Quote a name.

    >>> ident('we"ird name')
    '"we""ird name"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a constant.

    >>> literal("O'Hara")
    "'O''Hara'"
    """
    return "'" + text.replace("'", "''") + "'"


def qualified(table: Table) -> str:
    """Quote the name of a table, with its schema."""
    return f"{ident(table.schema)}.{ident(table.name)}"


# What can be a key, in the form in which equal keys are equal; None for what cannot be one. That would
# fail a whole batch, or match by PostgreSQL's lenient input rules (` 7`, `0x7`, braced uuids) what it
# does not equal.


def text(key: str) -> str | None:
    """Return the key for a text column, which holds any UTF-8 but NUL."""
    if "\0" in key:
        return None
    if key.isascii():
        return key
    try:
        key.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return key


def _uuid(key: str) -> str | None:
    return key.lower() if _UUID.fullmatch(key) else None


def _padded(key: str) -> str | None:
    return None if key.endswith(" ") else text(key)  # char(n) knows no spaces at the end


def _integer(bits: int) -> Canonical:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return lambda key: key if _INTEGER.fullmatch(key) and low <= int(key) <= high else None


_UUID_PATTERN: Final = "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"
_INTEGER_PATTERN: Final = "^(0|-?[1-9][0-9]{0,17})$"
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_COMPARES_WITH_TEXT: Final = {"text", "varchar"}  # through their own index
_INTEGERS: Final = {"int2", "int4", "int8"}
_KEYS: Final[dict[str, Canonical]] = {
    "uuid": _uuid,
    "bpchar": _padded,
    "int2": _integer(16),
    "int4": _integer(32),
    "int8": _integer(64),
}


def _canonical(column: Column) -> Canonical:
    return _KEYS.get(column.type, text)


# The parts of a lookup.


def _stamped(parameters: str, lookup: str) -> str:
    return f"""-- {parameters}
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
{lookup}
) l on true"""


def _version(schema: Schema) -> str:
    """The query for the version of the tables' definitions, as the catalog query has it."""
    definitions = [
        f"""(
  select a.attrelid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_attribute a
  where a.attrelid = {literal(qualified(table))}::regclass and a.attnum > 0 group by a.attrelid
)"""
        for table in schema.tables
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


def _equals(column: Column) -> str:
    # An extension's operators are where it was installed, which need not be on the search path: without
    # them citext would be compared as text, exactly and without its index.
    return f"operator({ident(column.type_schema)}.=)" if column.type == "citext" else "="


def _cast(value: str, column: Column) -> str:
    if column.type in _COMPARES_WITH_TEXT:
        return value
    return f"{value}::{_type(column)}"


def _as(value: str, column: Column, other: Column) -> str:
    """The value of a column as the type of another, to be looked up by that one's index."""
    if column.type == other.type or {column.type, other.type} <= _INTEGERS:
        return value
    as_text = f"{value}::text"
    # Text that is no such value equals none, and must not make the whole lookup fail.
    if other.type == "uuid":
        return f"case when {as_text} ~* {literal(_UUID_PATTERN)} then {as_text}::uuid end"
    if other.type in _INTEGERS:
        return f"case when {as_text} ~ {literal(_INTEGER_PATTERN)} then {as_text}::bigint end"
    return _cast(as_text, other)


def _type(column: Column) -> str:
    return f"{ident(column.type_schema)}.{ident(column.type)}"


_NO: Final = "('', 'false', 'f', 'no', 'n', 'off', '0')"  # as PostgreSQL reads a boolean
_NO_COLUMNS: Final[Mapping[str, Column]] = {}


def _fields(schema: Schema, timezone: str, *, secrets: str = "") -> str:
    """The fields of User in their order, then the image's size if it is over the cap, $3.

    `secrets` is the condition under which a caller sees what is not for everyone.
    """
    user = schema.users.columns.get
    member = (schema.members.columns if schema.members else _NO_COLUMNS).get
    words, flag = _words, _flag_of
    reason = words(user("banReason"))
    image = words(user("image"))
    expressions = {
        "id": words(user("id")),
        "email": words(user("email")),
        "emailVerified": flag(user("emailVerified")),
        "name": words(user("name")),
        "image": f"case when octet_length({image}) <= $3::int then {image} end",
        "isAnonymous": flag(user("isAnonymous")),
        "role": f"coalesce(nullif({words(user('role'))}, ''), 'user')",
        "banned": flag(user("banned")),
        "banReason": f"case when {secrets} then {reason} end" if secrets else reason,
        "banExpires": _instant(user("banExpires"), timezone),
        "organizationId": words(member("organizationId"), "m"),
        "orgRole": words(member("role"), "m"),
        "managerId": words(member("managerId"), "m"),
        "departmentId": words(member("departmentId"), "m"),
    }
    columns = [f'{expressions[field]} as "{field}"' for field in FIELDS]
    size = f"octet_length({image})"
    columns.append(f"case when {size} > $3::int then {size} end as image_size")
    return ",\n       ".join(columns)


def _words(column: Column | None, alias: str = "u") -> str:
    if column is None:
        return "null::text"
    name = f"{alias}.{ident(column.name)}"
    if column.category == "A":
        return f"array_to_string({name}, ',')"
    return f"{name}::text"  # even of text: it may be of another type tomorrow


def _flag_of(column: Column | None, alias: str = "u") -> str:
    return "false" if column is None else _flag(f"{alias}.{ident(column.name)}", column)


def _as_instant(name: str, column: Column, timezone: str) -> str:
    """A timestamp of any kind as one with a zone."""
    if column.type == "timestamptz":
        return name
    return f"{name}::timestamp at time zone {literal(timezone)}"


def _flag(name: str, column: Column) -> str:
    """Whether a column says yes: a boolean, the time since when, a number, or a word."""
    match column.category:
        case "B":
            return f"coalesce({name}, false)"
        case "D":
            return f"{name} is not null"
        case "N":
            return f"coalesce({name} <> 0, false)"
    return f"coalesce(lower({name}::text) not in {_NO}, false)"


def _instant(column: Column | None, timezone: str) -> str:
    """A timestamp as JavaScript writes it. A time past year 9999 is no end at all."""
    if column is None:
        return "null::text"
    name = f"u.{ident(column.name)}"
    if column.type == "date":
        name = f"{name}::timestamp"
    if column.type == "timestamptz":
        name = f"{name} at time zone 'UTC'"
    elif timezone != "UTC":
        name = f"{name} at time zone {literal(timezone)} at time zone 'UTC'"
    return f"""case when {name} < timestamp '10000-01-01'
            then to_char(greatest({name}, timestamp '0001-01-01'), \
'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') end"""


def _earliest(users: Table, email: str) -> str:
    """The earliest of the users with an email: Better Auth compares exactly, in lower case."""
    column = users.columns["email"]
    names = _names(users, "e")
    order = _order(users, "e.", users.columns["id"])
    return f"""(
  select {names} from {qualified(users)} e
  where e.{ident(column.name)} {_equals(column)} {_cast(email, column)}
  order by {order} limit 1
)"""


def _membership(
    schema: Schema, organization: str, *, named: str, among: str = "", first: str = ""
) -> str:
    """The membership that speaks for a user: in the organization named, else the earliest.

    For a caller who sees it only `among` their own organizations unless that holds, and `first` in the
    organization of their token.
    """
    members = schema.members
    if members is None:  # every parameter must be used somewhere
        return f"\nleft join lateral (select {organization}, {named}) m on true"
    column, user_id = members.columns, schema.users.columns["id"]
    organization_id, owner = column["organizationId"], column["userId"]
    names = _names(members, "m")
    order = _order(members, "m.", column.get("id", column["organizationId"]))
    own = f"m.{ident(organization_id.name)}"
    if among:
        among = f"\n    and ({among} or array[{own}] && c.organizations)"
        order = f"({own} {_equals(organization_id)} {first}) is true desc, {order}"
    return f"""
left join lateral (
  select {names} from {qualified(members)} m
  where m.{ident(owner.name)} {_equals(owner)} {_as(f"u.{ident(user_id.name)}", user_id, owner)}
    and ({named} is not true
         or {own} {_equals(organization_id)} {_cast(organization, organization_id)}){among}
  order by {order} limit 1
) m on true"""


def _pages(users: Table, members: Table, fields: str, *, caller: str = "") -> Pages:
    """The members of organizations in their order, from a position on; for callers, if they may.

    A page is cut first, so that what follows costs what the page is long. Of duplicate memberships
    only the earliest is joined with its user; the others come without, like those whose user is gone. On
    a first page those are all there, and whoever reads it can tell: looking each up would cost as much as
    all the rest. The arrays have the order of the rows, which are sorted just below (PostgreSQL's manual,
    "Aggregate Functions").
    """
    column = members.columns
    names = _names(members, "m")
    organization_id, owner, user_id = (
        column["organizationId"],
        column["userId"],
        users.columns["id"],
    )
    organization, member = ident(organization_id.name), ident(owner.name)
    tie_breaker = column.get("id", column["userId"])
    tie, created = ident(tie_breaker.name), column.get("createdAt")
    order = _order(members, "m.", tie_breaker)
    key = _cast("k.organization", organization_id)
    since = f"m.{ident(created.name)}" if created else "null::text"
    gathered = ", ".join(f'array_agg(r."{name}") as "{name}"' for name in (*FIELDS, "image_size"))
    gate, may, who = "", "", ""
    if caller:
        gate, may = " and c.listed", ", c.listed, c.allowed"
        who = f"\ncross join lateral {caller} c"
    earlier = f"""
      and not exists (
        select from {qualified(members)} d
        where d.{organization} {_equals(organization_id)} m.{organization}
          and d.{member} {_equals(owner)} m.{member} and ({_precedes(members)})
      )"""

    def memberships(condition: str) -> str:
        return f"""(
      select {names} from {qualified(members)} m
      where m.{organization} {_equals(organization_id)} {key}{condition}{gate}
      order by {order} limit k.wanted + 1
    )"""

    def page(source: str, only: str = "") -> str:
        return _stamped(
            "$1 organizations, $2 members wanted, $3 cap of the images in bytes, $4 callers, "
            "and the positions: $5 ids, $6 createdAt",
            f"""select k.n, p.*{may}
from unnest($1::text[], $2::int[], $4::text[], $5::text[], $6::text[]) with ordinality
  as k(organization, wanted, caller, member, moment, n){who}
cross join lateral (
  select {gathered},
       (array_agg(r.created_at))[k.wanted]::text as created_at,
       (array_agg(r.member_id))[k.wanted]::text as member_id
  from (
select {fields},
       {since} as created_at, m.{tie} as member_id
from {source} m
left join {qualified(users)} u
  on u.{ident(user_id.name)} {_equals(user_id)} {_as(f"m.{member}", owner, user_id)}{only}
order by {order}
  ) r
) p""",
        )

    place = _sortable(_cast("k.member", tie_breaker), tie_breaker)
    within = _sortable(f"m.{tie}", tie_breaker)
    later = f"\n        and {within} > {place}"
    after_null, after = memberships(later), None
    if created is not None:
        name = f"m.{ident(created.name)}"
        after_null = memberships(f"\n        and {name} is null{later}")
        after = memberships(
            f"\n        and ({name}, {within}) > (k.moment::{_type(created)}, {place})"
        )
        if not created.not_null:
            # `(c, id) > (…)` is null, not true, where c is: those come last, and one index serves
            # both halves, which an `or` between them would not allow.
            nulls = memberships(f"\n        and {name} is null")
            after = f"""(
      select {names} from ({after} union all {nulls}) m
      order by {order} limit k.wanted + 1
    )"""
    return Pages(
        first=page(memberships("")),
        after=after and page(after, earlier),
        after_null=page(after_null, earlier),
    )


def _names(table: Table, alias: str) -> str:
    """The columns of a table, each once, though several fields may be read from it."""
    names = dict.fromkeys(column.name for column in table.columns.values())
    return ", ".join(f"{alias}.{ident(name)}" for name in names)


def _order(table: Table, alias: str, tie_breaker: Column) -> str:
    created = table.columns.get("createdAt")
    first = f"{alias}{ident(created.name)} nulls last, " if created else ""
    return f"{first}{_sortable(f'{alias}{ident(tie_breaker.name)}', tie_breaker)}"


def _sortable(value: str, column: Column) -> str:
    # Only `=` of an extension is named with its schema; `<` has to be PostgreSQL's own.
    return f"{value}::text" if column.type == "citext" else value


def _precedes(members: Table) -> str:
    """Whether the membership `d` comes before `m`."""
    created, id_ = members.columns.get("createdAt"), members.columns.get("id")
    before = "false"
    if id_:
        d, m = (_sortable(f"{alias}.{ident(id_.name)}", id_) for alias in "dm")
        before = f"{d} < {m}"
    if created:
        d, m = (f"{alias}.{ident(created.name)}" for alias in "dm")
        tie = f"{d} is not distinct from {m} and {before}"
        before = f"{d} < {m} or {d} is not null and {m} is null or {tie}"
    return before
