"""The SQL of every lookup on the demo tables stands in `sql/`, so that a review sees a change of it.

`make sql` writes the files anew.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import asyncpg

from responder.postgres import lookups as queries
from responder.postgres import schema

DIRECTORY = Path(__file__).parent / "sql"
WRITE = "RESPONDER_TEST_WRITE_SQL" in os.environ


def texts(statements: queries.Statements) -> dict[str, str]:
    """Every text, by the name of its file."""
    named = {"version": statements.version}
    for audience in ("services", "callers"):
        lookups = getattr(statements, audience)
        pages = {f"page_{field.name}": lookups.pages for field in fields(lookups.pages)}
        keys = {field.name: lookups for field in fields(lookups) if field.name != "pages"}
        for name, holder in {**keys, **pages}.items():
            named[f"{audience}/{name}"] = getattr(holder, name.removeprefix("page_"))
    return {f"{name}.sql": f"{text}\n" for name, text in named.items()}


async def test_a_change_of_sql_is_seen_in_review(postgres, template):
    """The texts for the demo tables are the files, each of them and no others."""
    connection = await asyncpg.connect(await postgres.create_database("sql", template=template[0]))
    try:
        columns = await connection.fetch(queries.CATALOG_COLUMNS)
        references = await connection.fetch(queries.CATALOG_REFERENCES)
    finally:
        await connection.close()
    found = schema.read(
        [schema.CatalogColumn(*row) for row in columns],
        [schema.CatalogReference(*row) for row in references],
    )

    made = texts(queries.statements(found))
    if WRITE:
        for name, text in made.items():
            (DIRECTORY / name).parent.mkdir(parents=True, exist_ok=True)
            (DIRECTORY / name).write_text(text)

    files = sorted(DIRECTORY.rglob("*.sql"))
    assert {str(file.relative_to(DIRECTORY)): file.read_text() for file in files} == made
