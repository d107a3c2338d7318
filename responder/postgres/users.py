"""Users by their ids or emails: the SQL, its arguments and its rows."""

# A lone key, which is what an idle system is asked for, has a statement of its own: `= $1` costs
# PostgreSQL half of what a join with one unnested row does. Many keys are unnested side by side
# with their organizations and callers, and the ordinal of a row says which key it answers.

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from responder.models import ADDITIONAL, User
from responder.postgres import ids
from responder.postgres.expressions import Row
from responder.postgres.fields import USER
from responder.postgres.ids import Canonical
from responder.postgres.quoting import literal
from responder.postgres.schema import Schema, Table
from responder.postgres.staleness import ANALYSED, stamped
from responder.postgres.visibility import Caller, Rules, among_own, callers, role, sees

# SQL and its arguments.
Query: TypeAlias = tuple[str, Sequence[object]]

FIELDS: Final = tuple(
    str(field.alias) for field in User.model_fields.values() if field.alias != ADDITIONAL
)


class UserRow:
    """Where things are in the row of a user."""

    ORDINAL: Final = 0  # of the key that it answers, from 1
    USER: Final = slice(1, 1 + len(FIELDS))  # the fields of User, in their order
    USER_ID: Final = 1  # null where there is nothing to be seen
    IMAGE_SIZE: Final = 1 + len(FIELDS)  # bytes of an image that is over the cap, else null
    ADDITIONAL = IMAGE_SIZE + 1  # fields as JSON, or the size of what is over the cap
    ALLOWED: Final = -2  # of a lookup for callers: whether this caller may ask at all
    ANALYSED: Final = ANALYSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The forms in which ids of users and organizations are compared."""

    user: Canonical
    organization: Canonical

    def organizations(self, given: Sequence[str | None]) -> list[str | None]:
        """Return ids of organizations; None is one that was not given, or cannot be one."""
        return [each if each is None else self.organization(each) for each in given]

    def caller(self, caller: Caller) -> tuple[str | None, str | None]:
        """Return a caller's ids; None is one that is not there, or cannot be one."""
        (organization,) = self.organizations([caller.organization_id])
        return self.user(caller.user_id), organization


def forms(schema: Schema) -> Forms:
    """Return the forms of a schema's ids."""
    members = schema.members
    return Forms(
        user=ids.canonical(schema.users.columns["id"].type),
        organization=ids.canonical(members.columns["organizationId"].type) if members else ids.text,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The lookup of users by keys of one kind, for services or for callers.

    For a service there is one row with a null ordinal where none of the keys is found; for a caller
    there is a row for each key, with nothing of a user they may not see.
    """

    one: str
    many: str
    key: Canonical
    forms: Forms

    def query(
        self,
        keys: Sequence[str | None],
        organizations: Sequence[str | None],
        callers: Sequence[Caller],
        *,
        cap: int,
    ) -> Query:
        """Return the query for keys.

        Args:
            keys: in the form of `key`; None matches nothing.
            organizations: that each key names, None where it names none.
            callers: of each key, or none at all for services.
            cap: bytes over which an image is left out.
        """
        if len(keys) == 1:
            return self.lone(keys[0], organizations[0], callers[0] if callers else None, cap=cap)
        possible: Sequence[str | None] = ()  # unnest fills the shorter arrays up with nulls
        all_named: Sequence[bool] = ()
        if any(each is not None for each in organizations):
            possible = self.forms.organizations(organizations)
            all_named = [each is not None for each in organizations]
        return self.many, (keys, possible, cap, all_named, *self._callers(callers))

    def lone(
        self, key: str | None, organization: str | None, caller: Caller | None, *, cap: int
    ) -> Query:
        """Return the query for a lone key, likewise."""
        named = organization is not None
        if organization is not None:
            organization = self.forms.organization(organization)
        own = self.forms.caller(caller) if caller else ()
        return self.one, (key, organization, cap, named, *own)

    def _callers(self, callers: Sequence[Caller]) -> Sequence[Sequence[object]]:
        """Return the callers of a batch as arguments: each once, and the number of each key's."""
        if not callers:
            return ()
        numbers: dict[Caller, int] = {}
        of_each = [numbers.setdefault(caller, len(numbers) + 1) for caller in callers]
        users, organizations = zip(*map(self.forms.caller, numbers), strict=True)
        return users, organizations, of_each


def for_services(schema: Schema, timezone: str) -> tuple[Users, Users]:
    """Return the lookups by id and by email for programs that speak for themselves."""
    u, m = Row(schema.users, "u"), Row(schema.members, "m")
    columns = fields(u, m, schema, timezone)
    lone = _membership(u, m, "$2::text", named="$4::bool")
    each = _membership(u, m, "k.organization", named="k.named")
    keys = "unnest($1::text[], $2::text[], $4::bool[]) with ordinality"
    by_id = Users(
        one=stamped(
            "$1 id, $2 organization, $3 cap of the image in bytes, $4 organization is named",
            f"""select 1::bigint as n, {columns}
from {u.source}{lone}
where {u["id"].equals("$1::text")}""",
        ),
        many=stamped(
            "$1 ids, $2 organizations, $3 cap of the image in bytes, $4 organizations are named",
            f"""select k.n, {columns}
from {keys} as k(id, organization, named, n)
join {u.source} on {u["id"].equals("k.id")}{each}""",
        ),
        key=forms(schema).user,
        forms=forms(schema),
    )
    by_email = Users(
        one=stamped(
            "$1 email, $2 organization, $3 cap of the image in bytes, $4 organization is named",
            f"""select 1::bigint as n, {columns}
from {_earliest(schema.users, "$1::text")} u{lone}""",
        ),
        many=stamped(
            "$1 emails, $2 organizations, $3 cap of the image in bytes, $4 organizations are named",
            f"""select k.n, {columns}
from {keys} as k(email, organization, named, n)
cross join lateral {_earliest(schema.users, "k.email")} u{each}""",
        ),
        key=_email,
        forms=forms(schema),
    )
    return by_id, by_email


def for_callers(schema: Schema, timezone: str, rules: Rules) -> tuple[Users, Users]:
    """Return the lookups by id and by email for callers, who see what the rules let them."""
    e = Row(schema.users, "e")
    key = e["id"].cast("k.key")
    # Nothing is read of a user whom the caller does not see: the key is null then.
    seen = sees(schema, rules, own=e["id"].same(key, "c.id"), user_id=key)
    by_id = f"""cross join lateral (select {seen} as visible offset 0) s
left join lateral (
  select {e.names} from {e.source}
  where {e["id"].is_(f"case when s.visible then {key} end")}
) u on true"""
    # A user has to be found before their id is known; where there is none, the memberships that are
    # read instead are the caller's.
    found = Row(schema.users, "f")
    someone = f"coalesce({found['id']}, c.id)"
    seen = sees(schema, rules, own=found["id"].is_("c.id"), user_id=someone)
    by_email = f"""left join lateral {_earliest(schema.users, "k.key")} f on true
cross join lateral (select {seen} as visible offset 0) s
left join lateral (select {found.names} where s.visible) u on true"""
    return (
        _on_behalf("id", by_id, forms(schema).user, schema=schema, timezone=timezone, rules=rules),
        _on_behalf("email", by_email, _email, schema=schema, timezone=timezone, rules=rules),
    )


def _on_behalf(
    key: str, target: str, form: Canonical, *, schema: Schema, timezone: str, rules: Rules
) -> Users:
    u, m = Row(schema.users, "u"), Row(schema.members, "m")
    own = f"({u['id'].is_('c.id')})"
    columns = fields(u, m, schema, timezone, secrets=f"(c.admin or {own})")
    membership = _membership(
        u,
        m,
        "k.organization",
        named="k.named",
        among=f"c.admin or {own} or {among_own(m)}" if m.source else "",
        first="c.token_organization",
    )
    one = "(select 1 as n, $5::text as id, $6::text as token_organization)"
    unnested = "unnest($5::text[], $6::text[]) with ordinality as a(id, token_organization, n)"
    many = f"(select * from {unnested})"
    keys = "unnest($1::text[], $2::text[], $4::bool[], $7::int[]) with ordinality"
    return Users(
        one=stamped(
            f"$1 {key}, $2 organization, $3 cap of the image in bytes, $4 organization named, "
            "$5 caller, $6 organization of their token",
            f"""select k.n, {columns}, c.allowed
from (select 1::bigint as n, $1::text as key, $2::text as organization, $4::bool as named) k
cross join {callers(schema, timezone, rules, one)} c
{target}{membership}""",
        ),
        many=stamped(
            f"$1 {key}s, $2 organizations, $3 cap of the image in bytes, $4 organizations named, "
            "$5 callers, $6 organizations of their tokens, $7 the caller of each, from 1",
            f"""with callers as materialized (
  select * from {callers(schema, timezone, rules, many)} c
)
select k.n, {columns}, c.allowed
from {keys} as k(key, organization, named, caller, n)
join callers c on c.n = k.caller
{target}{membership}""",
        ),
        key=form,
        forms=forms(schema),
    )


def fields(u: Row, m: Row, schema: Schema, timezone: str, *, secrets: str = "") -> str:
    """Return the columns of a row: the fields of User, then the size of an image over the cap, $3.

    The last are the additional fields, if any are asked for.

    Images may be data URLs of a megabyte, and a batch must not pull hundreds of them into memory.

    Args:
        u: the user.
        m: the membership that speaks for them.
        schema: that is read.
        timezone: of timestamps without zone.
        secrets: the condition under which a caller sees what only the user and admins may.
    """
    reason, image = u.words("banReason"), u.words("image")
    expressions = {
        "id": u.words("id"),
        "email": u.words("email"),
        "emailVerified": u.flag("emailVerified"),
        "name": u.words("name"),
        "image": f"case when octet_length({image}) <= $3::int then {image} end",
        "isAnonymous": u.flag("isAnonymous"),
        "role": role(u),
        "banned": u.flag("banned"),
        "banReason": f"case when {secrets} then {reason} end" if secrets else reason,
        "banExpires": u.javascript_time("banExpires", timezone),
        "organizationId": m.words("organizationId"),
        "orgRole": m.words("role"),
        "managerId": m.words("managerId"),
        "departmentId": m.words("departmentId"),
    }
    columns = [f'{expressions[field]} as "{field}"' for field in FIELDS]
    size = f"octet_length({image})"
    columns.append(f"case when {size} > $3::int then {size} end as image_size")
    if schema.additional:
        columns.append(f'{_additional(schema, u, m, timezone)} as "{ADDITIONAL}"')
    return ",\n       ".join(columns)


def _additional(schema: Schema, u: Row, m: Row, timezone: str) -> str:
    """Return additional fields as the text of a JSON object, or its size if that is over $3."""
    parts = []
    for opening, each in zip("{" + "," * len(schema.additional), schema.additional, strict=False):
        row = u if each.table == USER.name else m
        value = row.get(each.field)  # a column may have been dropped
        written = "'null'"
        if value and each not in schema.unreadable:
            written = f"coalesce({value.json(timezone)}, 'null')"
        key = literal(f"{opening}{json.dumps(each.key, ensure_ascii=False)}:")
        parts.append(f"{key} || {written}")
    written = " ||\n           ".join([*parts, "'}'"])
    return f"""(
         select case when octet_length(a.written) <= $3::int then a.written
                     else octet_length(a.written)::text end
         from (
           select {written} as written
           offset 0
         ) a
       )"""


def _email(email: str) -> str | None:
    """Better Auth lower-cases an email before it looks it up or stores it."""
    return ids.text(email.lower())


def _earliest(users: Table, email: str) -> str:
    """Return the earliest of the users with an email: Better Auth compares exactly."""
    e = Row(users, "e")
    return f"""(
  select {e.names} from {e.source}
  where {e["email"].equals(email)}
  order by {e.order("id")} limit 1
)"""


def _membership(
    u: Row, m: Row, organization: str, *, named: str, among: str = "", first: str = ""
) -> str:
    """Return the membership that speaks for a user: in the organization named, else the earliest.

    A caller sees it only `among` those for which that condition holds, and rather than the earliest
    the one in `first`, the organization of their token.
    """
    if not m.source:  # every parameter must be used somewhere
        return f"\nleft join lateral (select {organization}, {named}) m on true"
    order, most = m.order(m.tie("organizationId")), "1"
    if among:
        most = f"case when {u['id']} is null then 0 else 1 end"  # without an index, a whole table
        among = f"\n    and ({among})"
        order = f"({m['organizationId'].is_(first)}) is true desc, {order}"
    of_any = m["organizationId"]
    of_one = "" if of_any.column.not_null else f"\n    and {of_any} is not null"
    return f"""
left join lateral (
  select {m.names} from {m.source}
  where {m["userId"].refers_to(u["id"])}
    and ({named} is not true
         or {m["organizationId"].equals(organization)}){of_one}{m.counts}{among}
  order by {order} limit {most}
) m on true"""
