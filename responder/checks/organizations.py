"""Whether organizations have names, and if not, why."""

from __future__ import annotations

from collections.abc import AsyncIterator

from responder.checks.report import NOTE, Finding
from responder.postgres.catalog import Catalog
from responder.postgres.evidence import Tables
from responder.postgres.fields import ORGANIZATION, plain
from responder.postgres.organizations import candidates
from responder.postgres.overrides import Overrides
from responder.postgres.schema import Schema


async def unnamed_organizations(
    schema: Schema, catalog: Catalog, overrides: Overrides
) -> AsyncIterator[Finding]:
    """Yield the reason for which organizations have no names in `users.memberships`."""
    if schema.members is None or schema.organizations is not None:
        return
    null = "the names and slugs of organizations are null in users.memberships"
    tables = Tables(catalog)
    by_hand = overrides.columns.get(ORGANIZATION.name, {})
    read = {plain(by_hand.get(field) or field) for field in ORGANIZATION.fields}
    there = list(candidates(schema.members, tables))
    for name in there:
        columns = [each for each in tables.columns.get(name, ()) if plain(each.name) in read]
        if not all(each.readable for each in columns):
            yield Finding(
                "organizations",
                NOTE,
                f"the role may not read {name}: {null}",
                "`responder grants` prints what it needs.",
            )
            return
    if there:
        yield Finding(
            "organizations",
            NOTE,
            f"{there[0]} has no columns for the id, and the name or slug, of organizations: {null}",
            "RESPONDER_COLUMNS=organization.name=… says what a column is called.",
        )
        return
    yield Finding(
        "organizations",
        NOTE,
        f"no table of organizations: {null}",
        f"A foreign key from {schema.members} to it says which table it is.",
    )
