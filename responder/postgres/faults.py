"""Failures of the operator's own SQL: of views, policies and whatever else computes rows."""

# A table may be a view, be read through policies of row-level security, have virtual columns, or
# lie on another server. Then reading it runs SQL that is the operator's, and what that raises
# arrives as an error of our lookup: 42704, for example, of a policy that asks for a setting which
# only the application makes. A plain table computes nothing, so that an error in reading one is a
# bug of ours.
#
# An error may be that of one row, or of all. Where all fail, a worker is not ready, and that must
# not take a caller to find out. So rows are read for /ready, and not only looked for: two of those
# at the beginning, or at the end if none can be read at the beginning. Where one of them can be
# read, the tables can.

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from responder.postgres.connection import Connection
from responder.postgres.errors import (
    BusyError,
    ChangedError,
    LostError,
    NotAllowedError,
    SlowError,
    describe,
    from_server,
)
from responder.postgres.expressions import Row
from responder.postgres.lookups import Statements
from responder.postgres.schema import Schema, Table

FAILS: Final = "a view or a policy of the database fails"
SAMPLE: Final = 2  # rows
FRESH: Final = 1.0  # seconds for which it is known what computes the tables' rows
TOLD: Final = 60.0  # seconds for which a failure is told
SLOW: Final = 60.0  # seconds for which no rows are read, after that was too slow

# What reading each table runs. `attgenerated` is not in PostgreSQL 11 and earlier, `to_jsonb` reads
# it where it is; `v` is a virtual column.
_COMPUTED: Final = """
select t.name,
       case c.relkind when 'v' then 'a view' when 'f' then 'a foreign table'
            else case when pg_catalog.row_security_active(c.oid) then 'row-level security'
                      else 'virtual columns' end end
from unnest($1::text[]) as t(name)
join pg_catalog.pg_class c on c.oid = to_regclass(t.name)
where c.relkind in ('v', 'f') or pg_catalog.row_security_active(c.oid)
  or exists (select from pg_catalog.pg_attribute a
             where a.attrelid = c.oid and to_jsonb(a) ->> 'attgenerated' = 'v')"""


async def computed(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Return those tables whose reading runs SQL of the operator's, and what that SQL is."""
    names = {table.quoted: str(table) for table in tables}
    rows = await connection.fetch(_COMPUTED, list(names))
    return [f"{names[quoted]} ({how})" for quoted, how in rows]


class Faults:
    """Tells failures of the operator's SQL from others, and remembers the latest."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._latest = ""
        self._latest_at = float("-inf")
        self._sample_from = 0.0
        self._sampling = False
        self._known: tuple[Schema, Sequence[str]] | None = None  # the tables that are computed
        self._known_until = 0.0

    def warning(self) -> str | None:
        """Return how a lookup has failed lately, None if none has."""
        lately = self._now() < self._latest_at + TOLD
        return f"a lookup has failed: {self._latest}" if lately else None

    def note(self, fault: str) -> None:
        """Remember how a lookup has failed."""
        self._latest, self._latest_at = fault, self._now()

    async def explain(
        self, connection: Connection, statements: Statements, error: Exception
    ) -> str | None:
        """Return what fails by an error in reading the tables, None if no SQL of the operator's.

        Args:
            connection: on which the error has arisen.
            statements: for the tables as they were; the error is not theirs if they have changed.
            error: as `Connection.fetch` raises it.

        Raises LostError.
        """
        if not from_server(error):
            return None
        try:
            if isinstance(error, ChangedError | NotAllowedError):
                await connection.check_version(statements)
            tables = await self._computed(connection, statements.schema)
        except LostError:
            raise
        except Exception:  # noqa: BLE001 - then there is no explanation
            return None
        if not tables:
            return None
        return f"{' or '.join(tables)} fails when it is read: {describe(error)}"

    async def sample(self, connection: Connection, statements: Statements) -> None:
        """Read some users, if that runs the operator's SQL; raises what each of them has raised."""
        if self._sampling or self._now() < self._sample_from:
            return
        self._sampling = True  # one at a time: rows that take long would hold all connections
        try:
            if await self._computed(connection, statements.schema):
                await _sample(connection, statements)
        except (BusyError, SlowError):
            self._sample_from = self._now() + SLOW
        finally:
            self._sampling = False

    async def _computed(self, connection: Connection, schema: Schema) -> Sequence[str]:
        """Return what `computed` does; asked at most once a second while there are such tables."""
        known = self._known
        if known is None or known[0] is not schema or self._now() >= self._known_until:
            known = schema, await computed(connection, schema.tables)
            self._known = known if known[1] else None
            self._known_until = self._now() + FRESH
        return known[1]


async def _sample(connection: Connection, statements: Statements) -> None:
    by_id = statements.services.by_id
    problem: Exception | None = None
    for id_ in await _ids(connection, statements):
        sql, arguments = by_id.query([by_id.key(id_)], [None], (), cap=0)
        try:
            await connection.fetch_checked(statements, sql, *arguments)
        except (LostError, BusyError, SlowError):
            raise
        except Exception as error:  # noqa: BLE001 - it is raised below
            problem = error
        else:
            return
    if problem is not None:
        raise problem


async def _ids(connection: Connection, statements: Statements) -> list[str]:
    u = Row(statements.schema.users, "u")
    some = f"select {u.words('id')} from {u.source}"
    try:
        rows = await connection.fetch(f"{some} limit {SAMPLE}")
    except (LostError, BusyError, SlowError):
        raise
    except Exception:  # noqa: BLE001 - there are others
        rows = await connection.fetch(f"{some} order by {u['id'].sortable} desc limit {SAMPLE}")
    return [id_ for (id_,) in rows if id_ is not None]
