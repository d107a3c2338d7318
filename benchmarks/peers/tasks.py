"""nats-py with a task for each message, which takes a connection of asyncpg's pool."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import asyncpg
import nats
import queries
import uvloop
from models import ByEmail, ById, ByIds, MembershipsOf, OrgList, User, batch, page
from models import memberships as page_of_memberships
from nats.aio.msg import Msg
from pydantic import BaseModel

Answer = Callable[[asyncpg.Pool, bytes], Awaitable[BaseModel | None]]


async def get(pool: asyncpg.Pool, data: bytes) -> BaseModel | None:
    """Answer with the user of an id."""
    row = await pool.fetchrow(queries.GET, ById.model_validate_json(data).id)
    return User(**row) if row else None


async def by_email(pool: asyncpg.Pool, data: bytes) -> BaseModel | None:
    """Answer with the user of an email."""
    row = await pool.fetchrow(queries.BY_EMAIL, ByEmail.model_validate_json(data).email)
    return User(**row) if row else None


async def get_many(pool: asyncpg.Pool, data: bytes) -> BaseModel:
    """Answer with the users of many ids."""
    ids = ByIds.model_validate_json(data).ids
    return batch(ids, await pool.fetch(queries.GET_MANY, ids))


async def org_list(pool: asyncpg.Pool, data: bytes) -> BaseModel:
    """Answer with the first members of an organization."""
    request = OrgList.model_validate_json(data)
    rows = await pool.fetch(queries.ORG_LIST, request.organizationId, request.limit)
    return page(request, rows)


async def memberships(pool: asyncpg.Pool, data: bytes) -> BaseModel | None:
    """Answer with the first memberships of a user."""
    request = MembershipsOf.model_validate_json(data)
    rows = await pool.fetch(queries.MEMBERSHIPS, request.id, request.limit)
    return page_of_memberships(request, rows) if rows else None


async def main() -> None:
    """Answer until killed."""
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    connection = await nats.connect(os.environ["NATS_URL"])
    tasks = set()

    async def respond(message: Msg, answer: Answer) -> None:
        found = await answer(pool, message.data)
        body = found.model_dump_json().encode() if found else b'{"code":"not_found"}'
        await message.respond(body)

    async def listen(answer: Answer) -> None:
        async def handle(message: Msg) -> None:
            task = asyncio.create_task(respond(message, answer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await connection.subscribe(f"tasks.{answer.__name__}", queue="tasks", cb=handle)

    for answer in (get, by_email, get_many, org_list, memberships):
        await listen(answer)
    await asyncio.Event().wait()


uvloop.run(main())
