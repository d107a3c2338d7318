"""A list or page that shares a query with others is answered as it is alone."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from responder import cursors
from responder.dev.tokens import Mint

# Organizations of 20 members. `small` has images that are left out of a query that many requests
# share. The images of `large` do not fit into one message together. `lost` has memberships whose
# users are gone, and duplicate memberships.
CROWDS = """
    alter table members drop constraint "members_userId_fkey";
    alter table members drop constraint "members_organizationId_fkey";
    alter table members alter "createdAt" drop not null;
    insert into users (id, name, email, "emailVerified", image)
    select format('%s %s', kind, n), 'name', format('%s.%s@example.com', kind, n), true,
           repeat('x', case kind when 'small' then 7000 when 'large' then 90000 end)
    from unnest(array['plain', 'small', 'large', 'lost']) kind, generate_series(1, 20) n;
    insert into members (id, "organizationId", "userId", role, "createdAt")
    select format('%s %s', id, copy), split_part(id, ' ', 1), id, 'staff',
           case when copy = 1 then timestamptz '2020-01-01' end
    from users, generate_series(1, 2) copy
    where id like '% %' and (copy = 1 or id like 'lost %');
    delete from users where id in ('lost 3', 'lost 4');
    insert into users (id, name, email, "emailVerified", banned)
    values ('banned', '', 'banned@example.com', true, true);
"""
KINDS = ("plain", "small", "large", "lost", "nowhere")


def forged(organization: str, created_at: str | None, member: str) -> str:
    return cursors.encode(cursors.Position(organization, created_at, member))


PAGES = [
    {"organizationId": kind, "limit": limit, "cursor": cursor}
    for kind in KINDS
    for limit, cursor in (
        (500, None),
        (1, None),
        (7, forged(kind, "2020-01-01", f"{kind} 15 1")),
        (3, forged(kind, None, "lost 2 2")),
        (5, forged(kind, "no time at all", f"{kind} 15 1")),
    )
]
LISTS = [
    {"ids": [f"{kind} {n}" for n in numbers], "organizationId": organization}
    for kind in KINDS
    for numbers, organization in (
        ((1, 21, 2, 1), None),
        ((5,), "plain"),
        (range(1, 21), None),
        ((3, 4, 22, 4), "lost"),
    )
]
REQUESTS = [("org_list", page) for page in PAGES] + [("get_many", ids) for ids in LISTS]


async def outcomes(service: Any, asked: list[Any]) -> list[Any]:
    """Ask all at once; return the bodies of the answers in the order of the requests."""
    answers = await asyncio.gather(
        *(service.ask(f"users.{subject}", payload, headers) for subject, payload, headers in asked)
    )
    return [answer.body for answer in answers]


@pytest.mark.parametrize("connections", ["1", "3"])
async def test_requests_at_once_are_answered_as_alone(start_with, connections, tmp_path):
    """Images, bad cursors and refused callers change no other request's answer."""
    mint, file = Mint(), tmp_path / "jwks.json"
    settings = mint.publish(file)
    service = await start_with(
        CROWDS, RESPONDER_CONNECTIONS=connections, RESPONDER_TIMEOUT="10", **settings
    )
    callers = [None, "plain 1", "lost 1", "banned", "gone"]
    headers = [
        {"Authorization": f"Bearer {mint.token(caller)}"} if caller else {} for caller in callers
    ]
    asked = [(*request, header) for request in REQUESTS for header in headers]
    alone = [(await outcomes(service, [each]))[0] for each in asked]
    order = list(range(len(asked)))
    random.shuffle(order)
    together = await outcomes(service, [asked[at] for at in order])

    assert [alone[at] for at in order] == together
    codes = {json.loads(body).get("code") for body in alone}
    assert {None, "invalid_request", "not_found", "forbidden", "payload_too_large"} == codes


HANGING = """
    create table users (id text primary key, email text, "emailVerified" boolean);
    insert into users select n, n || '@example.com', true from generate_series(1, 100) n;
    create table joined (id text primary key, "organizationId" text, "userId" text);
    insert into joined select n, n % 10, n from generate_series(1, 100) n;
    create view members as
    select id, "organizationId", "userId",
           case "organizationId" when '3' then pg_sleep(60)::text end as role
    from joined;
"""


@pytest.mark.heavy
async def test_a_page_that_takes_too_long_is_not_shared_again(start_with):
    """A page that was too slow once is asked for alone, and others keep their deadline."""
    service = await start_with(HANGING, empty=True, RESPONDER_CONNECTIONS="1")
    organizations = [str(n) for n in (1, 3, 2, 4, 5, 6, 7, 8, 9, 0)]

    async def codes() -> dict[str, str | None]:
        answers = await asyncio.gather(
            *(service.ask("users.org_list", {"organizationId": each}) for each in organizations)
        )
        return dict(zip(organizations, (answer.code for answer in answers), strict=True))

    await codes()

    assert {**dict.fromkeys(organizations), "3": "timeout"} == await codes()
