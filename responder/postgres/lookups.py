"""Every lookup on one schema, for services and for callers."""

# The lookups are text, made once per schema, that could be pasted into psql. Values are parameters,
# always; names are quoted; columns are named one by one, so that a role with column privileges
# suffices and nothing else is ever read. `tests/postgres/sql` has the texts for the demo tables.
#
# Parameters of users ($5 to $7 for callers), and the columns of all rows, whose places UserRow and
# PageRow have:
#
#   $1 keys $2 organizations $3 cap $4 named $5 callers $6 their organizations $7 the caller of each
#
#   service, users  n │ id…departmentId     │ image_size   │                              │ analysed
#   caller,  users  n │ id…departmentId     │ image_size   │                      allowed │ analysed
#   service, page   n │ [id]…[departmentId] │ [image_size] │ created_at member_id         │ analysed
#   caller,  page   n │ [id]…[departmentId] │ [image_size] │ … member_id  listed  allowed │ analysed
#   service, of one n │ user_id │ organizationId…createdAt │ created_at member_id     │ analysed
#   caller,  of one n │ user_id │ organizationId…createdAt │ … member_id      allowed │ analysed
#
# n is the ordinal of the key or page that a row answers. Parameters of pages:
#
#   $1 organizations $2 wanted $3 cap $4 callers $5 member ids and $6 createdAt of the positions
#   $7 roles, if some are asked for
#
# Of memberships of one user:
#
#   $1 users $2 wanted $3 callers $4 member ids and $5 createdAt of the positions

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from responder.postgres import memberships, pages, users
from responder.postgres.additional import AdditionalField
from responder.postgres.memberships import Memberships
from responder.postgres.pages import Pages
from responder.postgres.schema import Schema
from responder.postgres.staleness import version_of
from responder.postgres.users import Users
from responder.postgres.visibility import DEFAULT_RULES, Rules


@dataclass(frozen=True, slots=True)
class Lookups:
    """The lookups for services, or for callers."""

    by_id: Users
    by_email: Users
    pages: Pages | None  # None without a member table
    pages_of_roles: Pages | None  # likewise
    memberships: Memberships | None  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Every lookup on a schema, and the query for the version of its tables' definitions."""

    schema: Schema
    version: str
    services: Lookups
    callers: Lookups
    timezone: str
    rules: Rules
    _variants: dict[tuple[AdditionalField, ...], Statements] = field(
        default_factory=dict, repr=False, compare=False
    )

    def without(self, fields: Iterable[AdditionalField]) -> Statements:
        """Return the same lookups, but that these additional fields are null in them."""
        unreadable = tuple(fields)
        if unreadable not in self._variants:
            schema = replace(self.schema, unreadable=unreadable)
            variant = statements(schema, timezone=self.timezone, rules=self.rules)
            self._variants[unreadable] = variant
        return self._variants[unreadable]


def statements(
    schema: Schema, *, timezone: str = "UTC", rules: Rules = DEFAULT_RULES
) -> Statements:
    """Build the lookups of a schema; timestamps without zone are in `timezone`."""
    return Statements(
        schema=schema,
        version=version_of(schema),
        timezone=timezone,
        rules=rules,
        services=Lookups(
            *users.for_services(schema, timezone),
            pages.for_services(schema, timezone),
            pages.for_services(schema, timezone, of_roles=True),
            memberships.for_services(schema, timezone),
        ),
        callers=Lookups(
            *users.for_callers(schema, timezone, rules),
            pages.for_callers(schema, timezone, rules),
            pages.for_callers(schema, timezone, rules, of_roles=True),
            memberships.for_callers(schema, timezone, rules),
        ),
    )
