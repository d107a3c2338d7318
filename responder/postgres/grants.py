"""SQL for a role that may do what responder does, and nothing else."""

from __future__ import annotations

from responder.postgres.quoting import ident, literal
from responder.postgres.schema import Schema


def grants(schema: Schema, *, role: str, database: str) -> str:
    """Return SQL that makes a role, or keeps one, with the least privilege; it may be run again.

    `database` is the one that has the tables. The role gets no password: how it authenticates is for
    whoever runs this to say.
    """
    quoted = ident(role)
    make = f"begin create role {quoted} login; exception when duplicate_object then null; end"
    lines = [
        f"-- What responder needs to read {schema.users} and {schema.members or 'no members'}.",
        "-- In psql, \\password gives the role one. Run this again when columns have been added.",
        f"do {literal(make)};",
        # Where a pooler is in between, sessions cannot say so themselves.
        f"alter role {quoted} set default_transaction_read_only = on;",
        f"alter role {quoted} set statement_timeout = '5s';",
        f"grant connect on database {ident(database)} to {quoted};",
    ]
    columns = [column for table in schema.tables for column in table.columns.values()]
    schemas = {table.schema for table in schema.tables}
    schemas |= {column.type_schema for column in columns if column.type == "citext"}  # named in SQL
    lines += [f"grant usage on schema {ident(each)} to {quoted};" for each in sorted(schemas)]
    for table in schema.tables:
        names = ", ".join(ident(column.name) for column in table.columns.values())
        lines.append(f"grant select ({names}) on {table.quoted} to {quoted};")
    return "\n".join(lines) + "\n"
