"""What callers with a token may see, decided in the query that reads it."""

# A caller and what they ask for travel together, so that what they may see is decided on the same
# snapshot as what they see: a ban, a removal or a new role shows in the very next answer.
#
# In every lookup for callers, `c` is a caller as stored now. There is always a row of it, in which
# `allowed` is false for a caller who is banned or gone. What is not visible is not read, and its
# fields are null like those of what does not exist.
#
# Nor does time tell the two apart. Whether a caller sees a user is decided before that user is
# read, from memberships that are found by the id that was asked for; and about as many memberships
# are read where there is no such user: those of other users, whose ids are next in the index. For a
# user in three organizations these are three memberships and eleven of others, for a user who does
# not exist fourteen of others, which count for nothing. A user in more than twenty organizations
# takes longer.
#
# The organizations of a caller are the keys of a JSON object, in which one is found without
# comparing all: a caller in 10,000 organizations who asks for a user in 10,000 others would be a
# hundred million comparisons of two arrays. A join of memberships with memberships would be no way
# either: it could be planned by the organization, and read all of it.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from responder.postgres.expressions import Row
from responder.postgres.quoting import literal
from responder.postgres.schema import Schema, Table


class Caller(NamedTuple):
    """A user on whose behalf a request is made, and the organization that their token names."""

    user_id: str
    organization_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What callers with a token may see.

    A caller sees themself, and the users who share an organization with them; every user, if
    `shared_organization` is not asked for; and the lists of their own organizations. With
    `organization_roles`, those organizations count in which they have one of these roles; their own
    memberships they see without. With an admin role they see everything. A guest (isAnonymous) sees
    only themself, and no lists.
    """

    shared_organization: bool = True
    admin_roles: tuple[str, ...] = ("admin", "superadmin")
    organization_roles: tuple[str, ...] = ()  # none of them is every role


DEFAULT_RULES: Final = Rules()

# Memberships that are read for a user whether or not they have so many: of measured tables the
# number at which a list of users in twenty organizations takes as long as one of users who do not
# exist. Twenty memberships of one user, which often stand side by side, cost what fourteen of
# others do.
WINDOW: Final = 14


def callers(schema: Schema, timezone: str, rules: Rules, source: str) -> str:
    """Return callers as stored now, from rows of n, id and the organization of their token."""
    v = Row(schema.users, "v")
    roles = ", ".join(map(literal, rules.admin_roles))
    admin = f"coalesce(string_to_array({role(v)}, ',') && array[{roles}]::text[], false)"
    anonymous, banned = v.flag("isAnonymous"), v.flag("banned")
    if expires := v.get("banExpires"):
        banned = f"{banned} and coalesce({expires.instant(timezone)} > now(), true)"
    known = f"{v['id']} is not null"
    organization, organizations = "a.token_organization", "'{}'::jsonb"
    if schema.members:
        organization = Row(schema.members, "o")["organizationId"].cast("a.token_organization")
        organizations = _organizations(schema.members, schema.users, rules)
    # The fence has them read once, and not wherever they are needed.
    return f"""(
  select d.*, {organizations} as organizations
  from (
    select a.n, {organization} as token_organization, {v["id"]} as id,
           {known} and not ({banned}) as allowed,
           {known} and {admin} and not {anonymous} as admin, {anonymous} as anonymous
    from {source} a
    left join {v.source} on {v["id"].equals("a.id")}
  ) d
  offset 0
)"""


def _organizations(members: Table, users: Table, rules: Rules) -> str:
    """Return the organizations of the caller `d`, if what they may see depends on them."""
    o = Row(members, "o")
    key, user_id = o["organizationId"].as_key, o["userId"].converted("d.id", users.columns["id"])
    own = f"""{o.source}
    where {o["userId"].is_(user_id)} and {o["organizationId"]} is not null{o.counts}"""
    if rules.organization_roles:
        # Of duplicate memberships the earliest says which roles the caller has.
        held = o.has_role("role", rules.organization_roles)
        order = o.order(o.tie("organizationId"))
        own = f"""(
      select distinct on ({key}) {key} as key, {held} as held from {own}
      order by {key}, {order}
    ) o
    where o.held"""
        key = "o.key"
    return f"""case when d.admin or d.anonymous then '{{}}'::jsonb else coalesce((
    select jsonb_object_agg({key}, null::text) from {own}
  ), '{{}}'::jsonb) end"""


def role(user: Row) -> str:
    """Return the platform role of a user, comma-separated if they have several."""
    return f"coalesce(nullif({user.words('role')}, ''), 'user')"


def sees(schema: Schema, rules: Rules, *, own: str, user_id: str) -> str:
    """Tell whether the caller `c` sees a user, whether or not there is one.

    Args:
        schema: that is read.
        rules: that say so.
        own: whether the caller is that user.
        user_id: the id of the user, or of another if there is no such user.
    """
    others = "c.admin or not c.anonymous"
    if rules.shared_organization:
        others = "c.admin"
        if schema.members:
            others += f" or not c.anonymous and {_share(schema.users, schema.members, user_id)}"
    return f"({own}) is true or c.allowed and ({others})"


def _share(users: Table, members: Table, user_id: str) -> str:
    """Tell whether a user is in an organization of the caller."""
    o = Row(members, "o")
    theirs = o["userId"].converted(user_id, users.columns["id"])
    organization = o["organizationId"]
    shared = f"c.organizations ? {organization.as_key}{o.counts}"
    return f"""(
      select w.shared and p.others is not null
      from (
        select coalesce(bool_or({shared}), false) as shared,
               count(*) as theirs
        from {o.source} where {o["userId"].is_(theirs)} offset 0
      ) w
      cross join lateral (
        select count(n.organization) as others
        from (
          select {organization} as organization from {o.source}
          where {o["userId"].comes_after(theirs)} limit greatest({WINDOW} - w.theirs, 1)
        ) n offset 0
      ) p
    )"""


def among_own(members: Row) -> str:
    """Tell whether a membership is in an organization of the caller."""
    return f"c.organizations ? {members['organizationId'].as_key}"


def listing(caller: str, members: Row) -> str:
    """Return a caller with whether they may see the list of the organization asked for."""
    key = members["organizationId"].text_as_key("k.organization")
    return f"""(
  select c.*, c.allowed and (c.admin or not c.anonymous
                             and coalesce(c.organizations ? {key}, false)) as listed
  from {caller} c
)"""
