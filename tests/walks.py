"""Organizations of many members, and walks through their pages."""

from __future__ import annotations

from itertools import cycle

NULLABLE = 'alter table members alter "createdAt" drop not null'
GENERIC = """
do $$ begin
    execute format('alter database %I set plan_cache_mode = force_generic_plan',
                   current_database());
end $$
"""
# When member n joined, as SQL. Members who joined at the same time are ordered by id.
TIMES = {
    "distinct": "timestamptz '2020-01-01' + n * interval '1 second'",
    "equal": "timestamptz '2020-01-01'",
    "some-equal": "timestamptz '2020-01-01' + n / 7 * interval '1 microsecond'",
    "null": "null::timestamptz",
    "some-null": """case when n % 3 > 0
        then timestamptz '2020-01-01' + n / 2 * interval '1 second' end""",
    "infinite": "case when n % 2 = 0 then timestamptz '2020-01-01' else 'infinity' end",
    "backwards": "timestamptz '2020-01-01' - n * interval '1 day'",
}


def crowd(count, times, organization="big"):
    """Return SQL for an organization of so many members: `member n` is of `user n`."""
    return f"""
        insert into organizations (id, name, slug, "createdAt")
        values ('{organization}', '', '{organization}', now());
        insert into users (id, name, email, "emailVerified")
        select format('user %s', n), '', format('user %s', n), true
        from generate_series(1, {count}) n
        on conflict do nothing;
        insert into members (id, "organizationId", "userId", role, "createdAt")
        select format('member %s', n) || '{"" if organization == "big" else f" {organization}"}',
               '{organization}', format('user %s', n), 'staff', {times}
        from generate_series(1, {count}) n;
        analyze users, members;
    """


async def in_order(service, organization="big"):
    """Return the user ids of an organization in the order of subjects.md, users.org_list."""
    rows = await service.database.fetch(
        """select "userId" from members where "organizationId" = $1
        order by "createdAt" nulls last, id""",
        organization,
    )
    return [row[0] for row in rows]


async def walk(service, *, limits, organization="big"):
    """Return the user ids of an organization, page by page, with each of the limits in turn."""
    limits = cycle(limits)
    pages, cursor, seen = [], None, set()
    while True:
        request = {"organizationId": organization, "limit": next(limits), "cursor": cursor}
        answer = await service.ask("users.org_list", request)
        assert answer.code is None, answer.json
        assert len(answer.json["users"]) <= request["limit"]
        pages.append([user["id"] for user in answer.json["users"]])
        cursor = answer.json["nextCursor"]
        if cursor is None:
            return pages
        assert cursor not in seen, "the walk has no end"
        seen.add(cursor)


def flat(pages):
    return [user for page in pages for user in page]
