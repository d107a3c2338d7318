"""FastStream with asyncpg as its documentation has it: typed handlers, a pool in the context."""

# Tuned as the documentation allows: messages of one subject concurrently, as many as the pool has
# connections, and without a log line for each message.

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import queries
from faststream import Context, ContextRepo, FastStream
from faststream.nats import NatsBroker
from models import (
    ByEmail,
    ById,
    ByIds,
    MembershipPage,
    MembershipsOf,
    OrgList,
    User,
    UserBatch,
    UserPage,
    batch,
    page,
)
from models import memberships as page_of_memberships

CONNECTIONS = 10  # asyncpg's default

broker = NatsBroker(os.environ["NATS_URL"], logger=None)
Pool = Annotated[asyncpg.Pool, Context("pool")]


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    """Keep a pool open while the application runs."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=CONNECTIONS) as pool:
        context.set_global("pool", pool)
        yield


app = FastStream(broker, lifespan=lifespan)


@broker.subscriber("faststream.get", queue="faststream", max_workers=CONNECTIONS)
async def get(request: ById, pool: Pool) -> User:
    """Answer with the user of an id."""
    return User(**await pool.fetchrow(queries.GET, request.id))


@broker.subscriber("faststream.by_email", queue="faststream", max_workers=CONNECTIONS)
async def by_email(request: ByEmail, pool: Pool) -> User:
    """Answer with the user of an email."""
    return User(**await pool.fetchrow(queries.BY_EMAIL, request.email))


@broker.subscriber("faststream.get_many", queue="faststream", max_workers=CONNECTIONS)
async def get_many(request: ByIds, pool: Pool) -> UserBatch:
    """Answer with the users of many ids."""
    return batch(request.ids, await pool.fetch(queries.GET_MANY, request.ids))


@broker.subscriber("faststream.org_list", queue="faststream", max_workers=CONNECTIONS)
async def org_list(request: OrgList, pool: Pool) -> UserPage:
    """Answer with the first members of an organization."""
    rows = await pool.fetch(queries.ORG_LIST, request.organizationId, request.limit)
    return page(request, rows)


@broker.subscriber("faststream.memberships", queue="faststream", max_workers=CONNECTIONS)
async def memberships(request: MembershipsOf, pool: Pool) -> MembershipPage:
    """Answer with the first memberships of a user."""
    rows = await pool.fetch(queries.MEMBERSHIPS, request.id, request.limit)
    return page_of_memberships(request, rows)
