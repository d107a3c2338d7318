"""Whether rows can be read where the operator's own SQL computes them: views and policies."""

# A lookup reads one row, and so finds what fails in it only when it is asked for. Here many rows
# are read, each of the columns that lookups read, as many as take a moment.

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from responder import wire
from responder.checks.report import BROKEN, Finding
from responder.postgres import faults
from responder.postgres.connection import Connection
from responder.postgres.errors import BusyError, LostError, SlowError, describe, from_server
from responder.postgres.quoting import ident
from responder.postgres.schema import Schema, Table

MOST: Final = 100_000  # rows of a table

_POLICIES: Final = """
select policyname::text from pg_catalog.pg_policies
where schemaname = $1::text and tablename = $2::text and cmd in ('ALL', 'SELECT')
order by 1"""


async def unreadable_rows(connection: Connection, schema: Schema) -> AsyncIterator[Finding]:
    """Yield a finding for each table that fails when its rows are read.

    Raises SlowError or BusyError if reading takes too long or is kept from it.
    """
    for table in schema.tables:
        how = await faults.computed(connection, [table])
        if not how:
            continue
        names = list(dict.fromkeys(ident(column.name) for column in table.columns.values()))
        # What is counted has been computed, and need not be sent or taken out of its place.
        counts = ", ".join(f"count(t.{name})" for name in names)
        rows = f"select {', '.join(names)} from {table.quoted}"
        try:
            await connection.fetch(f"select {counts} from ({rows} limit {MOST}) t")
        except (BusyError, LostError, SlowError):
            raise
        except Exception as error:
            if not from_server(error):
                raise
            yield Finding(
                "rows",
                BROKEN,
                f"{how[0]} fails when it is read: {describe(error)}",
                f"{await _remedy(connection, table)}; this says why, as the same role: {rows};",
            )


async def _remedy(connection: Connection, table: Table) -> str:
    policies = await connection.fetch(_POLICIES, table.schema, table.name)
    if not policies:
        return "Mend the view, or what it calls"
    named = ", ".join(wire.excerpt(ident(name)) for (name,) in policies)
    return f"Mend the policy that raises, of {named}, or what it calls"
