"""Pages of an organization's users: the SQL, its arguments and its rows."""

# A page is one row, with an array of each field: PostgreSQL would wake us for every 8 kB of rows,
# and to take them apart would cost us twice as much.
#
# A page is cut first, so that what follows costs what the page is long. Of duplicate memberships
# only the earliest is joined with its user; the others come without one, as those whose user is
# gone do. On a first page the earliest of a user's memberships is there itself, so that the
# repeated user shows (`replies` leaves it out); to look for an earlier one of each would cost as
# much as all the rest. Such a page has fewer users than were asked for, and the next begins after
# its last membership.
#
# A page of those who hold a role reads so many memberships and no more, however rare the role is,
# and goes on after the last that it has read. Of duplicates the earliest speaks for the role, too.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from responder.models import ADDITIONAL
from responder.postgres.expressions import Row, Value
from responder.postgres.schema import Schema
from responder.postgres.staleness import stamped
from responder.postgres.users import FIELDS, Forms, Query, UserRow, fields, forms
from responder.postgres.visibility import Caller, Rules, callers, listing

MOST_READ: Final = 5000  # memberships that a page of a role reads


class PageRow(UserRow):
    """Where things are in the row of a page: fields and image sizes are arrays, side by side.

    All of them are null in an empty page.
    """

    CREATED_AT: Final = UserRow.IMAGE_SIZE + 1  # of the last membership wanted, as text
    MEMBER_ID: Final = UserRow.IMAGE_SIZE + 2  # likewise its id, or its user's where it has none
    ADDITIONAL = UserRow.IMAGE_SIZE + 3
    LISTED: Final = -3  # of a page for callers: whether this caller may see the list


class PageWanted(NamedTuple):
    """A page: of which organization, how long, for whom, and after which membership it starts."""

    organization: str
    wanted: int
    caller: Caller | None
    created_at: str | None = None
    member_id: str | None = None
    roles: str | None = None  # one of which is held, as a JSON array


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The lookup of pages, from the start of an organization or from a position on.

    There is a row for each page. The fields of User are null where a membership has lost its user,
    or repeats an earlier one. There is one membership more than is wanted, if there are so many.

    Those `of_roles` have in place of the position of the last membership wanted that after which
    the next page starts, null where there is none.
    """

    first: str
    after: str | None  # None where memberships have no createdAt
    after_null: str  # from where createdAt is null on
    position: str  # takes an id and a createdAt, if they can be those of a membership
    forms: Forms
    of_roles: bool

    def query(self, pages: Sequence[PageWanted], *, cap: int) -> Query | None:
        """Return the query for pages that all start alike, None where there is no such position.

        Args:
            pages: all first pages, or all after a membership with createdAt, or all after one
                without.
            cap: bytes over which an image is left out.
        """
        sql = self._starting_as(pages[0])
        if sql is None:
            return None
        return sql, (
            self.forms.organizations([page.organization for page in pages]),
            [page.wanted for page in pages],
            cap,
            [page.caller and self.forms.user(page.caller.user_id) for page in pages],
            [page.member_id for page in pages],
            [page.created_at for page in pages],
            *([[page.roles for page in pages]] if self.of_roles else []),
        )

    def _starting_as(self, page: PageWanted) -> str | None:
        if page.member_id is None:
            return self.first
        return self.after_null if page.created_at is None else self.after


def for_services(schema: Schema, timezone: str, *, of_roles: bool = False) -> Pages | None:
    """Return the pages for programs that speak for themselves, None without a member table."""
    if schema.members is None:
        return None
    u, m = Row(schema.users, "u"), Row(schema.members, "m")
    return _Text(schema, fields(u, m, schema, timezone), of_roles=of_roles).pages()


def for_callers(
    schema: Schema, timezone: str, rules: Rules, *, of_roles: bool = False
) -> Pages | None:
    """Return the pages on behalf of callers, None without a member table."""
    if schema.members is None:
        return None
    u, m = Row(schema.users, "u"), Row(schema.members, "m")
    columns = fields(u, m, schema, timezone, secrets=f"(c.admin or ({u['id'].is_('c.id')}))")
    source = "(select 1 as n, k.caller as id, null::text as token_organization)"
    caller = listing(callers(schema, timezone, rules, source), m)
    return _Text(schema, columns, caller=caller, of_roles=of_roles).pages()


class _Text:
    """The SQL of pages, from its parts; without a `caller` it is for services."""

    def __init__(
        self, schema: Schema, columns: str, *, caller: str = "", of_roles: bool = False
    ) -> None:
        self._forms = forms(schema)
        self._gathered = _gathered(*FIELDS, "image_size")
        self._additional = f",\n       {_gathered(ADDITIONAL)}" if schema.additional else ""
        self._who = f"\ncross join lateral {caller} c" if caller else ""
        self._may = ", c.listed, c.allowed" if caller else ""
        self._columns = columns
        self._caller = caller
        self._of_roles = of_roles
        self._most = str(MOST_READ) if of_roles else "k.wanted + 1"
        self._users, self._members = Row(schema.users, "u"), Row(schema.members, "m")
        tie_breaker = self._members.tie("userId")
        self._tie = self._members[tie_breaker]
        self._order = self._members.order(tie_breaker)

    def pages(self) -> Pages:
        """Return the text of each kind of page."""
        created_at = self._members.get("createdAt")
        time = f"$2::text::{created_at.type}" if created_at else "$2::text"
        later = f"{self._tie.sortable} > {self._tie.cast_sortable('k.member_id')}"
        if created_at is None:
            after, after_null = None, self._cut(later)
        else:
            after = self._page(self._after(created_at), self._earliest())
            after_null = self._cut(f"{created_at} is null", later)
        return Pages(
            first=self._page(self._cut()),
            after=after,
            after_null=self._page(after_null, self._earliest()),
            position=f"select {self._tie.cast_sortable('$1::text')}, {time}",
            forms=self._forms,
            of_roles=self._of_roles,
        )

    def _after(self, created_at: Value) -> str:
        """Return the memberships after one that has a createdAt."""
        position = f"(k.created_at::{created_at.type}, {self._tie.cast_sortable('k.member_id')})"
        after = self._cut(f"({created_at}, {self._tie.sortable}) > {position}")
        if created_at.column.not_null:
            return after
        # `(c, id) > (…)` is null, not true, where c is: those come last, and one index serves both
        # halves, which an `or` between them would not allow.
        nulls = self._cut(f"{created_at} is null")
        return f"""(
      select {self._members.names} from ({after} union all {nulls}) m
      order by {self._order} limit {self._most}
    )"""

    def _cut(self, *conditions: str) -> str:
        """Return the memberships of a page, and one more."""
        m = self._members
        condition = "".join(f"\n        and {each}" for each in conditions)
        gate = m.counts + (" and c.listed" if self._caller else "")
        return f"""(
      select {m.names} from {m.source}
      where {m["organizationId"].equals("k.organization")}{condition}{gate}
      order by {self._order} limit {self._most}
    )"""

    def _page(self, source: str, only: str = "") -> str:
        """Return the lookup of pages of these memberships, of which `only` some have their user."""
        if self._of_roles:
            return self._page_of_roles(source)
        u, m = self._users, self._members
        gathered, additional = self._gathered, self._additional
        who, may = self._who, self._may
        # The arrays have the order of the rows, which are sorted just below (PostgreSQL's manual,
        # "Aggregate Functions").
        return stamped(
            "$1 organizations, $2 members wanted, $3 cap of the images in bytes, $4 callers, "
            "and the positions: $5 ids, $6 createdAt",
            f"""select k.n, p.*{may}
from unnest($1::text[], $2::int[], $4::text[], $5::text[], $6::text[]) with ordinality
  as k(organization, wanted, caller, member_id, created_at, n){who}
cross join lateral (
  select {gathered},
       (array_agg(r.created_at))[k.wanted]::text as created_at,
       (array_agg(r.member_id))[k.wanted]::text as member_id{additional}
  from (
select {self._columns},
       {m.get("createdAt") or "null::text"} as created_at, {self._tie} as member_id
from {source} m
left join {u.source}
  on {u["id"].refers_to(m["userId"])}{only}
order by {self._order}
  ) r
) p""",
        )

    def _page_of_roles(self, source: str) -> str:
        """Return the lookup of pages of those of these memberships that hold one of some roles."""
        u, m = self._users, self._members
        gathered, additional = self._gathered, self._additional
        who, may = self._who, self._may
        last = f"""(
    case when (select count(*) from held) > k.wanted
         then (select h.place from held h order by h.place offset k.wanted - 1 limit 1)
         when (select count(*) from seen) = {MOST_READ} then {MOST_READ} end
  )"""
        return stamped(
            "$1 organizations, $2 members wanted, $3 cap of the images in bytes, $4 callers, "
            "the positions: $5 ids, $6 createdAt, and $7 roles as JSON",
            f"""select k.n, p.*{may}
from unnest($1::text[], $2::int[], $4::text[], $5::text[], $6::text[], $7::text[]) with ordinality
  as k(organization, wanted, caller, member_id, created_at, roles, n){who}
cross join lateral (
  with seen as materialized (
    select {m.names}, row_number() over (order by {self._order}) as place
    from {source} m
  ), held as materialized (
    select {m.names}, m.place from seen m
    where {m.roles("role")} && array(select jsonb_array_elements_text(k.roles::jsonb)){
                self._earliest()
            }
    order by m.place limit k.wanted + 1
  )
  select {gathered},
       (select {m.get("createdAt") or "null"}::text from seen m where m.place = {last}
       ) as created_at,
       (select {self._tie}::text from seen m where m.place = {last}
       ) as member_id{additional}
  from (
select {self._columns}
from held m
left join {u.source}
  on {u["id"].refers_to(m["userId"])}
order by m.place
  ) r
) p""",
        )

    def _earliest(self) -> str:
        """Return the condition that no earlier membership is of the same user."""
        m, d = self._members, self._members.under("d")
        return f"""
      and not exists (
        select from {d.source}
        where {d["organizationId"].is_(m["organizationId"])}
          and {d["userId"].is_(m["userId"])} and ({_precedes(d, m)}){d.counts}
      )"""


def _gathered(*names: str) -> str:
    return ", ".join(f'array_agg(r."{name}") as "{name}"' for name in names)


def _precedes(d: Row, m: Row) -> str:
    """Tell whether the membership `d` comes before `m`."""
    before = "false"
    if d.get("id"):
        before = f"{d['id'].sortable} < {m['id'].sortable}"
    if created_at := d.get("createdAt"):
        other = m["createdAt"]
        tie = f"{created_at} is not distinct from {other} and {before}"
        before = f"{created_at} < {other} or {created_at} is not null and {other} is null or {tie}"
    return before
