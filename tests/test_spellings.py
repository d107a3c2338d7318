"""A user answers the same, however the names of Better Auth's tables and columns are spelled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SCHEMAS = Path(__file__).parent / "schemas"


def _snake(sql):
    """Write Better Auth's camelCase names in snake_case."""
    return re.sub('"(.*?)"', lambda name: re.sub("[A-Z]", r"_\g<0>", name[0]).lower(), sql)


def _mixed(sql):
    """Write some of the names in snake_case."""
    for name in ("emailVerified", "banExpires", "organizationId", "managerId"):
        sql = sql.replace(f'"{name}"', _snake(f'"{name}"'))
    return sql


SAMPLE = """
insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role, banned,
                    "banReason", "banExpires", "isAnonymous", image)
values ('u1', 'Zoë', 'zoe@example.com', true, now(), now(), 'admin', true,
        'spam', '2031-01-01 00:00:00.5+00', true, 'https://images.example/z.png');
insert into organization (id, name, slug, "createdAt") values ('o1', 'Lumen', 'lumen', now());
insert into member (id, "organizationId", "userId", role, "createdAt", "managerId", "departmentId")
values ('m1', 'o1', 'u1', 'owner', now(), 'u1', 'sales');
"""
RENAME = """
alter table "user" rename "emailVerified" to email_verified;
alter table "user" rename "banExpires" to ban_expires;
alter table member rename "organizationId" to organization_id;
alter table member rename "managerId" to manager_id;
"""
PLURAL = """
alter table "user" rename to users;
alter table member rename to members;
alter table session rename to sessions;
alter table account rename to accounts;
"""


@pytest.mark.parametrize(
    ("file", "spell", "change"),
    [
        pytest.param("kysely-1.7.sql", str, "", id="singular-camelCase"),
        pytest.param("kysely-1.7.sql", str, PLURAL, id="plural-camelCase"),
        pytest.param("drizzle-1.7.sql", _snake, "", id="singular-snake_case"),
        pytest.param("drizzle-1.7.sql", _snake, PLURAL, id="plural-snake_case"),
        pytest.param("kysely-1.7.sql", _mixed, RENAME, id="mixed"),
    ],
)
async def test_the_tables_of_generators_are_read(start_with, file, spell, change):
    """Tables singular or plural, in camelCase, snake_case or both, answer the same user."""
    schema = (SCHEMAS / file).read_text()
    early, late = (change, "") if change == RENAME else ("", change)
    service = await start_with(schema, early, spell(SAMPLE), late, empty=True)
    answer = await service.ask("users.get", {"id": "u1"})

    assert {
        "id": "u1",
        "email": "zoe@example.com",
        "emailVerified": True,
        "name": "Zoë",
        "image": "https://images.example/z.png",
        "isAnonymous": True,
        "role": "admin",
        "banned": True,
        "banReason": "spam",
        "banExpires": "2031-01-01T00:00:00.500Z",
        "organizationId": "o1",
        "orgRole": "owner",
        "managerId": "u1",
        "departmentId": "sales",
    } == answer.json
