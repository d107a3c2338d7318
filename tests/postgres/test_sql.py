"""The SQL of every lookup on the demo tables stands in `sql/`: a review sees each change of it.

`make sql` writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg

from responder.postgres import decision
from responder.postgres.additional import field_names
from responder.postgres.discovery import fetch_catalog
from responder.postgres.lookups import Statements, statements
from responder.postgres.overrides import Overrides

DIRECTORY = Path(__file__).parent / "sql"
WRITE = "RESPONDER_TEST_WRITE_SQL" in os.environ


def texts(made: Statements) -> dict[str, str]:
    """Every text, by the name of its file."""
    named = {"version": made.version}
    for audience, its in (("services", made.services), ("callers", made.callers)):
        assert its.pages
        assert its.pages.after
        assert its.pages_of_roles
        assert its.memberships
        named |= {
            f"{audience}/by_id": its.by_id.one,
            f"{audience}/by_ids": its.by_id.many,
            f"{audience}/by_email": its.by_email.one,
            f"{audience}/by_emails": its.by_email.many,
            f"{audience}/page_first": its.pages.first,
            f"{audience}/page_after": its.pages.after,
            f"{audience}/page_after_null": its.pages.after_null,
            f"{audience}/page_of_roles_first": its.pages_of_roles.first,
            f"{audience}/memberships": its.memberships.named.one,
            f"{audience}/memberships_of_many": its.memberships.named.many,
            f"{audience}/memberships_unnamed": its.memberships.unnamed.one,
        }
    return {f"{name}.sql": f"{text}\n" for name, text in named.items()}


def with_additional(made: Statements) -> dict[str, str]:
    """Some texts of a schema with additional fields."""
    assert made.callers.pages
    named = {"user": made.services.by_id.one, "page": made.callers.pages.first}
    return {f"additional/{name}.sql": f"{text}\n" for name, text in named.items()}


async def test_a_change_of_sql_is_seen_in_review(postgres, template):
    """The texts for the demo tables are the files, each of them and no others."""
    connection = await asyncpg.connect(await postgres.create_database("sql", template=template[0]))
    try:
        catalog = await fetch_catalog(connection)
    finally:
        await connection.close()
    found = decision.find(catalog)
    asked = Overrides(additional=field_names("user.createdAt,joined=member.createdAt"))
    made = texts(statements(found))
    made |= with_additional(statements(decision.find(catalog, asked)))
    if WRITE:
        for name, text in made.items():
            (DIRECTORY / name).parent.mkdir(parents=True, exist_ok=True)
            (DIRECTORY / name).write_text(text)

    files = sorted(DIRECTORY.rglob("*.sql"))
    assert {str(file.relative_to(DIRECTORY)): file.read_text() for file in files} == made
