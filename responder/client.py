"""Ask the worker, from Python."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, Final

from nats import errors
from nats.aio.client import Client

from responder import bearer, endpoints, wire
from responder.asking import Asker
from responder.endpoints import Answered, Asked, Endpoint
from responder.errors import InternalError, PayloadTooLargeError, UnavailableError
from responder.inbox import Inbox
from responder.models import (
    MAX_IDS,
    ByEmail,
    ById,
    ByIds,
    Membership,
    MembershipPage,
    MembershipsOf,
    Myself,
    OrgList,
    User,
    UserBatch,
    UserPage,
    WhoAmI,
)
from responder.nats.tls import TlsClient

SCHEMES: Final = ("nats://", "tls://", "ws://", "wss://")
CLOSING: Final = 2.0  # seconds that closing a connection may take
DEFAULTS: Final[dict[str, Any]] = {
    "name": "responder-client",
    "max_reconnect_attempts": -1,
}  # for ever


class UsersClient:
    """Reads users from the workers of a company; raises the contract's errors.

        users = UsersClient(nc)  # the nats-py connection that your application has
        user = await users.get("KbO8WbOTItGbdi0KY5YfJyfimmurNJra", timeout=0.5)

    Make one for each connection, and keep it: its replies have a subscription of their own.

    Each method takes `timeout`, seconds that this request may take, and `headers`, such as those
    of a trace (`{"traceparent": …}`).

    Args:
        connection: of nats-py, which stays yours; or see `connect`.
        prefix: of the subjects.
        timeout: seconds that a request may take, if it does not say itself.
        token: of the user on whose behalf it asks, see `on_behalf_of`.
    """

    def __init__(
        self,
        connection: Client,
        *,
        prefix: str = "users",
        timeout: float = 2.0,
        token: str | None = None,
    ) -> None:
        self._asker = Asker(transport=Inbox(connection), prefix=prefix, timeout=timeout)
        self._headers = _authorization(token) if token is not None else {}

    def on_behalf_of(self, token: str) -> UsersClient:
        """Return a client on the same connection that sees what the user of a token may see."""
        client = copy(self)
        client._headers = _authorization(token)  # noqa: SLF001 - of this class
        return client

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
        """Connect while the context is open, and reconnect for ever.

            async with UsersClient.connect("nats://127.0.0.1:4222") as users:
                user = await users.get("KbO8WbOTItGbdi0KY5YfJyfimmurNJra")

        Args:
            servers: URLs, as a list or comma-separated. One `tls://` means TLS or no connection.
            prefix: of the subjects.
            timeout: seconds that connecting may take, and a request if it does not say itself.
            options: what nats-py's `connect` takes besides.

        Raises UnavailableError if NATS cannot be reached, and says why.
        """
        urls = _urls(servers)
        client = TlsClient()
        try:
            try:
                async with asyncio.timeout(timeout):
                    await client.connect(urls, **{**DEFAULTS, **options})
            except (OSError, errors.Error) as error:  # a timeout is an OSError
                raise UnavailableError(client.trouble) from error
            yield cls(client, prefix=prefix, timeout=timeout)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await client.close()

    async def get(
        self,
        id: str,  # noqa: A002 - its name on the wire
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> User:
        """Return the user with an id; raises NotFoundError."""
        return await self._reply(endpoints.GET, ById(id, organization_id), timeout, headers)

    async def by_email(
        self,
        email: str,
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> User:
        """Return the user with an email, in any case; raises NotFoundError."""
        request = ByEmail(email, organization_id)
        return await self._reply(endpoints.BY_EMAIL, request, timeout, headers)

    async def get_many(
        self,
        ids: Sequence[str],
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> UserBatch:
        """Return the users among any number of ids, and the ids that no user has.

        More ids than one request may hold, or one reply, are asked for in parts, each of which has
        its own timeout.
        """
        if isinstance(ids, str):
            raise TypeError("ids: a list of ids, not one string")
        unique = list(dict.fromkeys(ids))
        users: dict[str, User] = {}  # by id, which may have been spelled in two ways
        missing: list[str] = []
        parts = [unique[n : n + MAX_IDS] for n in range(0, len(unique), MAX_IDS)]
        while parts:
            part = parts.pop(0)
            request = ByIds(part, organization_id)
            try:
                batch = await self._reply(endpoints.GET_MANY, request, timeout, headers)
            except PayloadTooLargeError:
                if len(part) == 1:
                    raise
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
                continue
            users |= {user.id: user for user in batch.users}
            missing += batch.missing
        return UserBatch(users=list(users.values()), missing=missing)

    async def org_list(
        self,
        organization_id: str,
        *,
        roles: Sequence[str] | None = None,
        page: int = 100,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[User]:
        """Iterate over all members of an organization, or over those with one of some roles.

        `page` is how many are asked for at a time, `timeout` is a page's.
        """
        cursor = None
        while True:
            answer = await self.org_page(
                organization_id,
                limit=page,
                cursor=cursor,
                roles=roles,
                timeout=timeout,
                headers=headers,
            )
            for user in answer.users:
                yield user
            cursor = answer.next_cursor
            if cursor is None:
                return

    async def org_page(
        self,
        organization_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        roles: Sequence[str] | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> UserPage:
        """Return a page of an organization's members, as a user interface shows them.

        Args:
            organization_id: whose members.
            limit: how many at most, 1 to 500; there may be fewer on a page that is not the last.
            cursor: `next_cursor` of the page before; None for the first.
            roles: 1 to 20, of which each member has one or more; None is any. A page may be empty
                then and not be the last.
            timeout: seconds.
            headers: of the request.
        """
        if isinstance(roles, str):
            raise TypeError("roles: a list of roles, not one string")
        request = OrgList(organization_id, limit, cursor, None if roles is None else [*roles])
        return await self._reply(endpoints.ORG_LIST, request, timeout, headers)

    async def memberships(
        self,
        id: str | None = None,  # noqa: A002 - its name on the wire
        *,
        page: int = 100,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Membership]:
        """Iterate over all organizations of a user, by default of the user of this client's token.

        Raises NotFoundError. `page` is how many are asked for at a time, `timeout` is a page's.
        """
        cursor = None
        while True:
            answer = await self.memberships_page(
                id, limit=page, cursor=cursor, timeout=timeout, headers=headers
            )
            for membership in answer.memberships:
                yield membership
            cursor = answer.next_cursor
            if cursor is None:
                return

    async def memberships_page(
        self,
        id: str | None = None,  # noqa: A002 - its name on the wire
        *,
        limit: int = 100,
        cursor: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> MembershipPage:
        """Return a page of a user's memberships, as a user interface shows them.

        Args:
            id: of the user; None is the user of this client's token.
            limit: how many at most, 1 to 500; there may be fewer on a page that is not the last.
            cursor: `next_cursor` of the page before; None for the first.
            timeout: seconds.
            headers: of the request.
        """
        request = MembershipsOf(id, limit, cursor)
        return await self._reply(endpoints.MEMBERSHIPS, request, timeout, headers)

    async def whoami(
        self,
        *,
        organization_id: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> WhoAmI:
        """Return who the token of this client speaks for; raises UnauthenticatedError."""
        return await self._reply(endpoints.WHOAMI, Myself(organization_id), timeout, headers)

    async def _reply(
        self,
        endpoint: Endpoint[Asked, Answered],
        request: Asked,
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> Answered:
        payload = wire.encode_request(request)
        sent = {**(headers or {}), **self._headers}
        body = await self._asker.reply(endpoint, payload, headers=sent, timeout=timeout)
        try:
            # The standard library reads lone surrogates, which pydantic's own reader does not.
            return endpoint.reply.model_validate(json.loads(body))
        except ValueError:  # pydantic's ValidationError is one
            raise InternalError("the worker answered with something else") from None


def _urls(servers: str | Sequence[str]) -> list[str]:
    """Return the URLs of servers; a host and a port are one, as for the nats CLI."""
    given = [each.strip() for each in (servers.split(",") if isinstance(servers, str) else servers)]
    urls = [each if "://" in each or not each else f"nats://{each}" for each in given]
    # Without any nats-py would never return, and let no other task run.
    if not urls or not all(each.lower().startswith(SCHEMES) for each in urls):
        raise ValueError("servers: expected nats:// URLs")
    return urls


def _authorization(token: str) -> dict[str, str]:
    return {bearer.HEADER: f"Bearer {token}"}
