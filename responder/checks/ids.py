"""Whether memberships have ids that tell them apart."""

# Of memberships of one time, a page ends at the id of one, and the next begins after it. A table
# that was given ids later may have none in older rows, and a view may repeat them.

from __future__ import annotations

from collections.abc import AsyncIterator

from responder.checks.report import BROKEN, Finding
from responder.postgres.catalog import Catalog
from responder.postgres.connection import Connection
from responder.postgres.evidence import Tables
from responder.postgres.fields import MEMBER
from responder.postgres.near import setting
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import ident, shown
from responder.postgres.schema import Schema, TableName


async def repeated_ids(
    connection: Connection, schema: Schema, catalog: Catalog, overrides: Overrides
) -> AsyncIterator[Finding]:
    """Yield that ids of memberships are null, or there more than once."""
    members = schema.members
    if members is None or "id" not in members.columns:
        return
    column = members.columns["id"]
    keys = Tables(catalog).keys.get(TableName(members.schema, members.name), ())
    if column.not_null and {column.name} in keys:
        return
    id_ = ident(column.name)
    ((there,),) = await connection.fetch(
        f"select exists (select from {members.quoted} "
        f"group by {id_} having count(*) > 1 or {id_} is null)"
    )
    if there:
        yield Finding(
            "ids",
            BROKEN,
            f"{members}.{shown(column.name)} is null, or the same, for several memberships: "
            "lists of more than a page leave users out",
            f"{setting(overrides, MEMBER, columns={'id': ''})} orders them without it.",
        )
