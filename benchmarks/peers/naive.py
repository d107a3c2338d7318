"""What everyone writes first: a callback that awaits a query."""

import asyncio
import json
import os

import asyncpg
import nats
import uvloop
from nats.aio.msg import Msg

from responder.models import User

SQL = """
select u.id, u.email, u."emailVerified", u.name, u.image,
       coalesce(u."isAnonymous", false) as "isAnonymous",
       coalesce(nullif(u.role, ''), 'user') as role,
       coalesce(u.banned, false) as banned, u."banReason", u."banExpires",
       m."organizationId", m.role as "orgRole", m."managerId", m."departmentId"
from users u
left join members m on m."userId" = u.id
where u.id = $1
order by m."createdAt", m.id
limit 1
"""


async def main() -> None:
    """Answer until killed."""
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    connection = await nats.connect(os.environ["NATS_URL"])

    async def handle(message: Msg) -> None:
        row = await pool.fetchrow(SQL, json.loads(message.data)["id"])
        if row is None:
            await message.respond(b'{"code":"not_found"}')
            return
        user = User(**row)
        await message.respond(user.model_dump_json(by_alias=True).encode())

    await connection.subscribe("naive.get", cb=handle)
    await asyncio.Event().wait()


uvloop.run(main())
