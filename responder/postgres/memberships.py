"""Pages of a user's memberships: the SQL, its arguments and its rows."""

# A page reads all memberships of its user, by the index that every lookup needs, and takes the
# earliest in each organization: to look for an earlier one of each would read them as many times.
# It joins the names of what it has after it is cut. Each membership is a row: nearly every user has
# a handful, for which to gather arrays, as `pages` does, costs PostgreSQL more than the rest.
#
# A lone page has a statement of its own, as a lone user has (see `users`).
#
# Which memberships a caller may see is decided before a page is cut, so that no position in it is
# one that they may not see.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from responder.models import Membership
from responder.postgres.expressions import Row
from responder.postgres.schema import Schema, Table
from responder.postgres.staleness import ANALYSED, stamped
from responder.postgres.users import Forms, Query, forms
from responder.postgres.visibility import Caller, Rules, among_own, callers, sees

FIELDS: Final = tuple(str(field.alias) for field in Membership.model_fields.values())

# What is asked, as a table: one row for each page.
_ONE: Final = """(select 1::bigint as n, $1::text as id, $2::int as wanted, $3::text as caller,
             $4::text as member_id, $5::text as created_at) k"""
_MANY: Final = """unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[]) with ordinality
  as k(id, wanted, caller, member_id, created_at, n)"""


class MembershipRow:
    """Where things are in the row of a membership: its fields, and the page that it is of.

    An empty page has one row, in which they are null.
    """

    ORDINAL: Final = 0  # of the page, from 1
    USER_ID: Final = 1  # null where there is no user to be seen
    MEMBERSHIP: Final = slice(2, 2 + len(FIELDS))
    ORGANIZATION_ID: Final = 2 + FIELDS.index("organizationId")  # which no membership lacks
    CREATED_AT: Final = 2 + len(FIELDS)  # as text
    MEMBER_ID: Final = 3 + len(FIELDS)  # as text, or the organization's id where it has none
    ALLOWED: Final = -2  # of a page for callers: whether this caller may ask at all
    ANALYSED: Final = ANALYSED


class MembershipsWanted(NamedTuple):
    """A page: of which user, how long, for whom, and after which membership it starts."""

    user_id: str
    wanted: int
    caller: Caller | None
    created_at: str | None = None
    member_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The SQL for a lone page and for many."""

    one: str
    many: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memberships:
    """The lookup of pages: the rows of each in their order.

    There is one membership more than is wanted, if there are so many.
    """

    named: Texts
    unnamed: Texts  # the same without the table of organizations, for when that fails
    position: str  # takes an id and a createdAt, if they can be those of a membership
    forms: Forms

    def query(self, pages: Sequence[MembershipsWanted], *, names: bool) -> Query:
        """Return the query for pages, with the names of organizations or without."""
        texts = self.named if names else self.unnamed
        arguments = [
            (
                self.forms.user(page.user_id),
                page.wanted,
                page.caller and self.forms.user(page.caller.user_id),
                page.member_id,
                page.created_at,
            )
            for page in pages
        ]
        if len(pages) == 1:
            return texts.one, arguments[0]
        return texts.many, tuple(zip(*arguments, strict=True))


def for_services(schema: Schema, timezone: str) -> Memberships | None:
    """Return the pages for programs that speak for themselves, None without a member table."""
    if schema.members is None:
        return None
    u = Row(schema.users, "u")
    user = f"left join {u.source} on {u['id'].equals('k.id')}"
    return _lookup(schema, schema.members, timezone, user)


def for_callers(schema: Schema, timezone: str, rules: Rules) -> Memberships | None:
    """Return the pages on behalf of callers, None without a member table."""
    if schema.members is None:
        return None
    e, u, m = Row(schema.users, "e"), Row(schema.users, "u"), Row(schema.members, "m")
    source = "(select 1 as n, k.caller as id, null::text as token_organization)"
    key = e["id"].cast("k.id")
    seen = sees(schema, rules, own=e["id"].same(key, "c.id"), user_id=key)
    user = f"""cross join lateral {callers(schema, timezone, rules, source)} c
cross join lateral (select {seen} as visible offset 0) s
left join lateral (
  select {e["id"]} from {e.source}
  where {e["id"].is_(f"case when s.visible then {key} end")}
) u on true"""
    among = f"(c.admin or {u['id'].is_('c.id')} or {among_own(m)})"
    return _lookup(schema, schema.members, timezone, user, among=among, allowed=", c.allowed")


def _lookup(
    schema: Schema, members: Table, timezone: str, user: str, *, among: str = "", allowed: str = ""
) -> Memberships:
    """Return the lookup.

    Args:
        schema: that is read.
        members: its table of members.
        timezone: of timestamps without zone.
        user: the joins that find the user `u` of each page.
        among: the condition of the memberships that may be seen.
        allowed: the column that says whether the caller may ask.
    """
    m, u = Row(members, "m"), Row(schema.users, "u")
    tie = m[m.tie("organizationId")]
    created_at = m.get("createdAt")
    cut = _cut(u, m, among)

    def texts(organizations: Table | None) -> Texts:
        columns, names = _columns(m, organizations, timezone)
        lookup = f"""select k.n, {u.words("id")} as user_id, p.*{allowed}
from {{asked}}
{user}
left join lateral (
select {columns},
       {created_at or "null"}::text as position, {tie}::text as member_id
from {cut} m{names}
order by {_order(m)}
) p on true"""
        return Texts(
            one=stamped(
                "$1 id, $2 memberships wanted, $3 caller, and the position: $4 id, $5 createdAt",
                lookup.replace("{asked}", _ONE),
            ),
            many=stamped(
                "$1 ids, $2 memberships wanted, $3 callers, "
                "and the positions: $4 ids, $5 createdAt",
                lookup.replace("{asked}", _MANY),
            ),
        )

    time = f"$2::text::{created_at.type}" if created_at else "$2::text"
    return Memberships(
        named=texts(schema.organizations),
        unnamed=texts(None),
        position=f"select {tie.cast_sortable('$1::text')}, {time}",
        forms=forms(schema),
    )


def _order(m: Row) -> str:
    return m.order(m.tie("organizationId"))


def _cut(u: Row, m: Row, among: str) -> str:
    """Return the memberships of a page, and one more: of each organization the earliest."""
    organization = m["organizationId"]
    may = f"\n          and {among}" if among else ""
    return f"""(
      select {m.names} from (
        select distinct on ({organization}) {m.names} from {m.source}
        where {m["userId"].refers_to(u["id"])} and {organization} is not null{m.counts}{may}
        order by {organization}, {_order(m)}
      ) m
      where {_after(m)}
      order by {_order(m)} limit k.wanted + 1
    )"""


def _after(m: Row) -> str:
    """Tell whether a membership comes after the position of a page."""
    tie = m[m.tie("organizationId")]
    later = f"{tie.sortable} > {tie.cast_sortable('k.member_id')}"
    if created_at := m.get("createdAt"):
        at = f"k.created_at::{created_at.type}"
        later = (
            f"({created_at} > {at} or {created_at} is null and k.created_at is not null\n"
            f"         or {created_at} is not distinct from {at} and {later})"
        )
    return f"k.member_id is null or {later}"


def _columns(m: Row, organizations: Table | None, timezone: str) -> tuple[str, str]:
    """Return the fields of a membership, and the join that has the names among them."""
    g = Row(organizations, "g")
    expressions = {
        "organizationId": m.words("organizationId"),
        "organizationName": g.words("name"),
        "organizationSlug": g.words("slug"),
        "orgRole": m.words("role"),
        "managerId": m.words("managerId"),
        "departmentId": m.words("departmentId"),
        "createdAt": _created_at(m, timezone),
    }
    columns = ",\n       ".join(f'{expressions[field]} as "{field}"' for field in FIELDS)
    if organizations is None:
        return columns, ""
    named = f"select {g.names} from {g.source} where {g['id'].refers_to(m['organizationId'])}"
    return columns, f"\nleft join lateral ({named} limit 1) g on true"


def _created_at(m: Row, timezone: str) -> str:
    created_at = m.get("createdAt")
    if created_at is None or created_at.column.category != "D":
        return "null::text"  # an order, and no time
    return m.javascript_time("createdAt", timezone)
