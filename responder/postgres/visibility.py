"""What callers with a token may see, decided in the query that reads it."""

# A caller and what they ask for travel together, so that what they may see is decided on the same
# snapshot as what they see: a ban, a removal or a new role shows in the very next answer.
#
# In every lookup for callers, `c` is a caller as stored now. There is always a row of it, in which
# `allowed` is false for a caller who is banned or gone. What is not visible is not joined, and its
# fields are null like those of what does not exist, so that nothing tells the two apart.
#
# Organizations are compared as arrays, each read by a user's id: a join of memberships with
# memberships could be planned by the organization, and read all of it.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from responder.postgres.expressions import Row
from responder.postgres.quoting import literal
from responder.postgres.schema import Schema


class Caller(NamedTuple):
    """A user on whose behalf a request is made, and the organization that their token names."""

    user_id: str
    organization_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What callers with a token may see.

    A caller sees themself, and the users who share an organization with them; every user, if
    `shared_organization` is not asked for. With an admin role they see everything.
    """

    shared_organization: bool = True
    admin_roles: tuple[str, ...] = ("admin", "superadmin")


DEFAULT_RULES: Final = Rules()


def callers(schema: Schema, timezone: str, rules: Rules, source: str) -> str:
    """Return callers as stored now, from rows of n, id and the organization of their token."""
    v = Row(schema.users, "v")
    roles = ", ".join(map(literal, rules.admin_roles))
    admin = f"coalesce(string_to_array({role(v)}, ',') && array[{roles}]::text[], false)"
    anonymous, banned = v.flag("isAnonymous"), v.flag("banned")
    if expires := v.get("banExpires"):
        banned = f"{banned} and coalesce({expires.instant(timezone)} > now(), true)"
    known = f"{v['id']} is not null"
    organization, organizations = "a.token_organization", "null::text[]"
    if schema.members:
        o = Row(schema.members, "o")
        organization = o["organizationId"].cast("a.token_organization")
        organizations = _organizations(o, v)
    return f"""(
  select a.n, {organization} as token_organization, {v["id"]} as id,
         {known} and not ({banned}) as allowed,
         {known} and {admin} and not {anonymous} as admin, {anonymous} as anonymous,
         {organizations} as organizations
  from {source} a
  left join {v.source} on {v["id"].equals("a.id")}
)"""


def role(user: Row) -> str:
    """Return the platform role of a user, comma-separated if they have several."""
    return f"coalesce(nullif({user.words('role')}, ''), 'user')"


def sees(schema: Schema, user: Row, rules: Rules) -> str:
    """Tell whether the caller `c` sees a user other than themself."""
    if not rules.shared_organization:
        return "not c.anonymous"
    if schema.members is None:
        return "c.admin"
    shared = _organizations(Row(schema.members, "o"), user)
    return f"c.admin or not c.anonymous and {shared} && c.organizations"


def listing(caller: str, members: Row) -> str:
    """Return a caller with whether they may see the list of the organization asked for."""
    # Not `&&`, for which text[] and varchar[] are of different kinds.
    own = members["organizationId"].is_in("k.organization", "c.organizations")
    return f"""(
  select c.*, c.allowed and (c.admin or not c.anonymous and coalesce({own}, false)) as listed
  from {caller} c
)"""


def _organizations(o: Row, user: Row) -> str:
    return f"""array(
    select {o["organizationId"]} from {o.source}
    where {o["userId"].refers_to(user["id"])}
  )"""
