"""Ask the worker, from Python."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from responder import endpoints, wire
from responder.endpoints import Answered, Asked, Endpoint
from responder.errors import (
    InternalError,
    PayloadTooLargeError,
    UnavailableError,
)
from responder.models import (
    MAX_IDS,
    ByEmail,
    ById,
    ByIds,
    Myself,
    OrgList,
    User,
    UserBatch,
    WhoAmI,
)
from responder.nats.connection import connected
from responder.requester import NoRespondersError, Requester

# How long to try again when no worker listens (seconds): one that restarts is back by then. Such a
# request has reached no worker, so that repeating it is safe.
PATIENCE: Final = 0.3
FIRST_PAUSE: Final = 0.01  # seconds between two tries; each pause is twice as long as the last

MARGIN: Final = 0.05  # seconds that a reply may be under way


class UsersClient:
    """Reads users from the workers of a company; raises the contract's errors.

        async with UsersClient.connect("nats://127.0.0.1:4222") as users:
            user = await users.get("KbO8WbOTItGbdi0KY5YfJyfimmurNJra")

    Args:
        connection: to NATS, see `connect`.
        prefix: of the subjects.
        timeout: seconds that a request may take.
        token: of the user on whose behalf it asks, see `on_behalf_of`.
    """

    def __init__(
        self,
        connection: Requester,
        *,
        prefix: str = "users",
        timeout: float = 2.0,
        token: str | None = None,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._timeout = timeout
        self._headers = {wire.AUTHORIZATION: f"Bearer {token}"} if token is not None else {}

    def on_behalf_of(self, token: str) -> UsersClient:
        """Return a client on the same connection that sees what the user of a token may see."""
        return UsersClient(
            self._connection, prefix=self._prefix, timeout=self._timeout, token=token
        )

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        prefix: str = "users",
        timeout: float = 2.0,
        **options: Any,
    ) -> AsyncIterator[UsersClient]:
        """Connect while the context is open.

        Args:
            servers: URLs, as a list or comma-separated.
            prefix: of the subjects.
            timeout: seconds that a request may take.
            options: credentials and TLS, as nats-py's `connect` takes them.

        Raises UnavailableError if NATS cannot be reached.
        """
        urls = servers.split(",") if isinstance(servers, str) else servers
        async with connected(
            urls, name="responder-client", options=options, patience=timeout
        ) as connection:
            yield cls(connection, prefix=prefix, timeout=timeout)

    async def get(
        self,
        id: str,  # noqa: A002 - its name on the wire
        *,
        organization_id: str | None = None,
    ) -> User:
        """Return the user with an id; raises NotFoundError."""
        return await self._reply(endpoints.GET, ById(id, organization_id))

    async def by_email(self, email: str, *, organization_id: str | None = None) -> User:
        """Return the user with an email, in any case; raises NotFoundError."""
        return await self._reply(endpoints.BY_EMAIL, ByEmail(email, organization_id))

    async def get_many(
        self, ids: Sequence[str], *, organization_id: str | None = None
    ) -> UserBatch:
        """Return the users among any number of ids, and the ids that no user has.

        More ids than one request may hold, or one reply, are asked for in parts.
        """
        unique = list(dict.fromkeys(ids))
        users: dict[str, User] = {}  # by id, which may have been spelled in two ways
        missing: list[str] = []
        parts = [unique[n : n + MAX_IDS] for n in range(0, len(unique), MAX_IDS)]
        while parts:
            part = parts.pop(0)
            try:
                batch = await self._reply(endpoints.GET_MANY, ByIds(part, organization_id))
            except PayloadTooLargeError:
                if len(part) == 1:
                    raise
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
                continue
            users |= {user.id: user for user in batch.users}
            missing += batch.missing
        return UserBatch(users=list(users.values()), missing=missing)

    async def org_list(self, organization_id: str, *, page: int = 100) -> AsyncIterator[User]:
        """Iterate over all members of an organization, `page` at a time."""
        cursor = None
        while True:
            request = OrgList(organization_id, page, cursor)
            answer = await self._reply(endpoints.ORG_LIST, request)
            for user in answer.users:
                yield user
            cursor = answer.next_cursor
            if cursor is None:
                return

    async def whoami(self, *, organization_id: str | None = None) -> WhoAmI:
        """Return who the token of this client speaks for; raises UnauthenticatedError."""
        return await self._reply(endpoints.WHOAMI, Myself(organization_id))

    async def _reply(self, endpoint: Endpoint[Asked, Answered], request: Asked) -> Answered:
        body = await self.reply_bytes(endpoint, wire.encode_request(request))
        try:
            # The standard library reads lone surrogates, which pydantic's own reader does not.
            return endpoint.reply.model_validate(json.loads(body))
        except ValueError:  # pydantic's ValidationError is one
            raise InternalError("the worker answered with something else") from None

    async def reply_bytes(
        self,
        endpoint: Endpoint[Any, Any],
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the payload of an endpoint's reply as it came; raises the error that it is.

        Args:
            endpoint: whose reply it is.
            payload: of the request (see `wire.encode_request`).
            headers: of the request, besides those of this client.
        """
        return await reply_on(
            self._connection,
            endpoint.subject(self._prefix),
            payload,
            headers={**self._headers, **(headers or {})},
            timeout=self._timeout,
            begins=endpoint.begins,
        )


async def reply_on(
    connection: Requester,
    subject: str,
    payload: bytes,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    begins: bytes = b"",
) -> bytes:
    """Return the payload of the reply to a request; raises the error that the reply is.

    The worker is told how long there is. While no worker listens, the request is sent again.

    Args:
        connection: to NATS.
        subject: of the request.
        payload: of the request.
        timeout: seconds that all of this may take.
        headers: of the request.
        begins: what a value begins with (see `Endpoint`); by default any reply will do.

    Raises UnavailableError if no worker listens or only other programs answer, RequestTimeoutError
    if no program answers in time.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    pause = FIRST_PAUSE
    while True:
        left = timeout - (loop.time() - start)
        # A worker that answers at the last moment is heard if its reply has the time to arrive.
        given = max(round(1000 * (left - min(MARGIN, left / 10))), 1)
        block = wire.encode_headers({**(headers or {}), wire.TIMEOUT: str(given)})
        try:
            reply_headers, body = await connection.ask(
                subject, payload, headers=block, timeout=left, begins=begins
            )
        except NoRespondersError:
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - jitter
            pause *= 2
            if loop.time() - start > min(PATIENCE, timeout / 2):
                raise UnavailableError("no worker listens") from None
            continue
        error = wire.decode_error(reply_headers, body)
        if error is not None:
            raise error
        return body
