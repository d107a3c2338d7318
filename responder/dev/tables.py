"""Better Auth's tables, created and filled with the demo people."""

from importlib import resources

import asyncpg

from responder.dev.people import Cast, populate


async def create_tables(connection: asyncpg.Connection) -> None:
    """Create Better Auth's tables, with the statements that Better Auth itself uses."""
    await connection.execute(resources.files(__package__).joinpath("tables.sql").read_text("utf8"))


async def insert_people(connection: asyncpg.Connection) -> Cast:
    """Insert the demo people into Better Auth's empty tables; return those worth asking for."""
    population, cast = populate()
    async with connection.transaction():
        await connection.copy_records_to_table(
            "users",
            columns=(
                *("id", "name", "email", "emailVerified", "image", "createdAt", "updatedAt"),
                *("role", "banned", "banReason", "banExpires", "isAnonymous"),
            ),
            records=[
                (
                    *(p.id, p.name, p.email, p.email_verified, p.image, p.created, p.created),
                    *(p.role, p.banned, p.ban_reason, p.ban_expires, p.is_anonymous),
                )
                for p in population.people.values()
            ],
        )
        await connection.copy_records_to_table(
            "organizations",
            columns=("id", "name", "slug", "createdAt"),
            records=[(o.id, o.name, o.slug, o.created) for o in population.organizations],
        )
        await connection.copy_records_to_table(
            "members",
            columns=(
                *("id", "organizationId", "userId", "role", "createdAt"),
                *("managerId", "departmentId"),
            ),
            records=[
                (m.id, m.organization, m.user, m.role, m.created, m.manager, m.department)
                for m in population.memberships.values()
            ],
        )
    # Autovacuum would do this a minute later, and change query plans while they are measured.
    await connection.execute("analyze users, organizations, members")
    return cast
