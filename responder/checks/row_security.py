"""Row-level security: which rows the policies of the tables hide from the role."""

# Without the rows of users or members there are no answers. Without those of organizations there
# are, and the names in them are null.

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from responder.checks.report import BROKEN, WARNING, Finding
from responder.postgres.connection import Connection
from responder.postgres.quoting import ident, literal
from responder.postgres.schema import Schema

# A policy that lets every row through hides none, unless a restrictive one stands beside it.
_POLICIES: Final = """
select count(*),
  coalesce(bool_or(permissive = 'PERMISSIVE' and qual = 'true')
           and not bool_or(permissive = 'RESTRICTIVE' and qual <> 'true'), false)
from pg_catalog.pg_policies
where schemaname = $1::text and tablename = $2::text and cmd in ('ALL', 'SELECT')
  and (roles = '{public}'
       or exists (select from unnest(roles) role where pg_has_role(role, 'usage')))"""


async def row_security(connection: Connection, schema: Schema, role: str) -> AsyncIterator[Finding]:
    """Yield a finding for each table of which the role may not see all rows."""
    for table in schema.read:
        if not table.row_security:
            continue
        arguments = table.schema, table.name
        ((policies, all_rows),) = await connection.fetch(_POLICIES, *arguments)
        if not policies:
            yield Finding(
                "row-level security",
                WARNING if table is schema.organizations else BROKEN,
                f"this role sees no row of {table}: no policy lets it",
                f"create policy responder on {table.quoted} for select to {ident(role)} "
                "using (true);",
            )
        elif not all_rows:
            where = f"schemaname = {literal(table.schema)} and tablename = {literal(table.name)}"
            yield Finding(
                "row-level security",
                WARNING,
                f"policies decide which rows of {table} this role sees",
                f"These are the policies: select * from pg_policies where {where};",
            )
