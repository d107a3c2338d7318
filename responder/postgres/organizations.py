"""Which table has the names of organizations."""

# The members say it: it is the table to which their organization refers, or where there is no
# foreign key the one with Better Auth's own name in their schema, with the prefix of their table.
# It adds names to what is known without it, so that one that cannot be read is no error: names are
# null then.

from __future__ import annotations

from collections.abc import Iterator

from responder.postgres.columns import as_table, can_hold, holding, lacking
from responder.postgres.evidence import Tables
from responder.postgres.fields import MEMBER, ORGANIZATION, plain
from responder.postgres.overrides import Overrides
from responder.postgres.schema import Table, TableName


def named_by(members: Table, tables: Tables, overrides: Overrides) -> Table | None:
    """Return the table of organizations, None where there is none that may be read."""
    said = overrides.columns.get(ORGANIZATION.name, {})
    for name in candidates(members, tables):
        columns = tables.columns.get(name, ())
        key = _referred_to(members, tables).get(name)
        by_hand = {"id": key, **said} if key else said
        if lacking(columns, ORGANIZATION.needs, by_hand):
            continue
        found = {
            field: same[0]
            for field, kind in ORGANIZATION.fields.items()
            if (same := holding(columns, field, by_hand)) and can_hold(kind, same[0])
        }
        if "id" in found and len(found) > 1 and all(each.readable for each in found.values()):
            return as_table(name, columns, found)
    return None


def _referred_to(members: Table, tables: Tables) -> dict[TableName, str]:
    """Return the tables to which the organization of a member refers, and by which column."""
    name = TableName(members.schema, members.name)
    return tables.targets(name, members.columns["organizationId"].name)


def candidates(members: Table, tables: Tables) -> Iterator[TableName]:
    """Yield the tables that could be meant, the likeliest first."""
    if referred_to := _referred_to(members, tables):
        yield from referred_to
        return
    words = {word for (word,) in MEMBER.called}
    ending = next(
        (
            each
            for each in sorted(words, key=len, reverse=True)
            if plain(members.name).endswith(each)
        ),
        "",
    )
    prefix = plain(members.name).removesuffix(ending)
    wanted = {prefix + word for (word,) in ORGANIZATION.called}
    yield from sorted(
        each
        for each in tables.columns
        if each.schema == members.schema and plain(each.name) in wanted
    )
