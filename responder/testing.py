"""A stand-in for `UsersClient`, and people for it, for tests of applications that ask for users."""

# What stands in is the service, not the client: each call of the real client is encoded, answered
# from the people that the test has given, and decoded. So calls have the client's own signatures,
# and wrong use fails here as it would over NATS.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from responder import bearer, wire
from responder.asking import Asker
from responder.client import UsersClient
from responder.endpoints import ENDPOINTS, Endpoint
from responder.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    ResponderError,
    UnauthenticatedError,
)
from responder.models import (
    ByEmail,
    ById,
    ByIds,
    Identity,
    Membership,
    MembershipPage,
    MembershipsOf,
    Myself,
    OrgList,
    Reply,
    User,
    UserBatch,
    UserPage,
    WhoAmI,
)

ISSUER: Final = "https://issuer.test"
LIFETIME: Final = timedelta(minutes=15)


class UserFields(TypedDict, total=False):
    """What `a_user` takes besides an id: the attributes of a `User`."""

    email: str | None
    email_verified: bool
    name: str | None
    image: str | None
    is_anonymous: bool
    role: str
    banned: bool
    ban_reason: str | None
    ban_expires: datetime | None
    organization_id: str | None
    org_role: str | None
    manager_id: str | None
    department_id: str | None
    additional_fields: dict[str, Any] | None


def a_user(id: str = "ann", **fields: Unpack[UserFields]) -> User:  # noqa: A002 - the field's name
    """Return a user of whom a test says only what matters to it.

    The rest is that of a user who has just signed up: a name and an email made of the id, the role
    "user", no organization.

    Args:
        id: the user's id.
        fields: other attributes.

    Raises:
        TypeError: a user has no such attribute.
    """
    if unknown := fields.keys() - UserFields.__annotations__.keys():
        raise TypeError(f"a user has no {', '.join(sorted(unknown))}")
    usual: UserFields = {
        "email": f"{id}@example.com".lower(),
        "email_verified": True,
        "name": id,
        "image": None,
        "is_anonymous": False,
        "role": "user",
        "banned": False,
        "ban_reason": None,
        "ban_expires": None,
        "organization_id": None,
        "org_role": None,
        "manager_id": None,
        "department_id": None,
    }
    return User.model_validate({**usual, **fields, "id": id})


class StubUsers(UsersClient):
    """Has the methods of `UsersClient`, over people of the test's own; it needs no server.

        ann, ben = a_user("ann", role="admin"), a_user("ben")
        users = StubUsers(users=[ann, ben], me=ann)
        assert await users.get(ben.id) == ben

    All of them are seen, as by a service. With any token the caller is `me`.

    Args:
        users: who there is. Each has the organization fields that a lookup without an organization
            answers.
        memberships: of users, by their id, the earliest first. A user who is not named has the one
            of their organization fields, if there is one.
        me: the user whom tokens speak for; without one they do not verify.
    """

    def __init__(
        self,
        *,
        users: Sequence[User] = (),
        memberships: Mapping[str, Sequence[Membership]] | None = None,
        me: User | None = None,
    ) -> None:
        people = [*users, me] if me and me not in users else list(users)
        self._asker = Asker(transport=_Service(people, memberships or {}, me))
        self._headers = {}


class _Service:
    """Answers as a worker does; a `Transport`."""

    def __init__(
        self,
        users: Sequence[User],
        memberships: Mapping[str, Sequence[Membership]],
        me: User | None,
    ) -> None:
        self._users = {user.id: user for user in users}
        self._memberships = memberships
        self._me = me
        self._answers: dict[str, Callable[[Any, User | None], Reply]] = {
            "get": self._get,
            "by_email": self._by_email,
            "org_list": self._org_list,
            "get_many": self._get_many,
            "memberships": self._memberships_of,
            "whoami": self._whoami,
        }
        self._rows: dict[str, Endpoint[Any, Any]] = {
            endpoint.subject("users"): endpoint for endpoint in ENDPOINTS
        }

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ARG002 - it answers at once
        begins: bytes,  # noqa: ARG002 - nothing else answers
    ) -> tuple[bytes, bytes]:
        """Answer a request (see `Transport`)."""
        endpoint = self._rows[subject]
        try:
            caller = self._caller(headers)
            if caller and caller.is_banned(datetime.now(UTC)) and not endpoint.needs_token:
                raise ForbiddenError("the caller is banned, or exists no more")
            request = wire.decoder(endpoint)(payload)
            reply = self._answers[endpoint.name](request, caller)
        except ResponderError as error:
            return wire.encode_error(error)
        return b"", reply.model_dump_json(by_alias=True).encode()

    def _caller(self, headers: Mapping[str, str]) -> User | None:
        given = [headers[bearer.HEADER]] if bearer.HEADER in headers else []
        if bearer.read(given) is None:
            return None
        if self._me is None:
            raise UnauthenticatedError("the token does not verify: the stub has no `me`")
        return self._me

    def _get(self, request: ById, _: User | None) -> User:
        user = self._users.get(request.id)
        if user is None:
            raise NotFoundError("no such user")
        return self._in(user, request.organization_id)

    def _by_email(self, request: ByEmail, _: User | None) -> User:
        email = request.email.lower()
        for user in self._users.values():
            if user.email == email:
                return self._in(user, request.organization_id)
        raise NotFoundError("no such user")

    def _get_many(self, request: ByIds, _: User | None) -> UserBatch:
        ids = dict.fromkeys(request.ids)
        return UserBatch(
            users=[
                self._in(self._users[each], request.organization_id)
                for each in ids
                if each in self._users
            ],
            missing=[each for each in ids if each not in self._users],
        )

    def _org_list(self, request: OrgList, _: User | None) -> UserPage:
        found = [
            self._in(user, request.organization_id)
            for user in self._users.values()
            if (membership := self._membership(user, request.organization_id))
            and (request.roles is None or _holds(membership, request.roles))
        ]
        page, cursor = _page(found, request.limit, request.cursor)
        return UserPage(users=page, next_cursor=cursor)

    def _memberships_of(self, request: MembershipsOf, caller: User | None) -> MembershipPage:
        id_ = request.id if request.id is not None else caller and caller.id
        if id_ is None:
            raise InvalidRequestError("id: required, unless a token says who asks")
        if id_ not in self._users:
            raise NotFoundError("no such user")
        found = self._all(self._users[id_])
        page, cursor = _page(found, request.limit, request.cursor)
        return MembershipPage(memberships=page, next_cursor=cursor)

    def _whoami(self, request: Myself, caller: User | None) -> WhoAmI:
        if caller is None:
            raise UnauthenticatedError(bearer.NO_TOKEN)
        now = datetime.now(UTC)
        identity = Identity(
            user_id=caller.id,
            email=caller.email,
            name=caller.name,
            role=caller.role,
            organization_id=caller.organization_id,
            org_role=caller.org_role,
            issuer=ISSUER,
            audience=[ISSUER],
            issued_at=now,
            expires_at=now + LIFETIME,
        )
        return WhoAmI(identity=identity, user=self._in(caller, request.organization_id))

    def _all(self, user: User) -> Sequence[Membership]:
        if user.id in self._memberships:
            return self._memberships[user.id]
        if user.organization_id is None:
            return []
        return [
            Membership(
                organization_id=user.organization_id,
                organization_name=None,
                organization_slug=None,
                org_role=user.org_role,
                manager_id=user.manager_id,
                department_id=user.department_id,
                created_at=None,
            )
        ]

    def _membership(self, user: User, organization_id: str) -> Membership | None:
        found = (each for each in self._all(user) if each.organization_id == organization_id)
        return next(found, None)

    def _in(self, user: User, organization_id: str | None) -> User:
        """Return a user with the organization fields of the organization named, if one is."""
        if organization_id is None:
            return user
        membership = self._membership(user, organization_id)
        return user.model_copy(
            update={
                "organization_id": membership and organization_id,
                "org_role": membership and membership.org_role,
                "manager_id": membership and membership.manager_id,
                "department_id": membership and membership.department_id,
            }
        )


def _holds(membership: Membership, roles: Sequence[str]) -> bool:
    held = {each.strip() for each in (membership.org_role or "").split(",")}
    return bool(held & set(roles))


def _page(found: Sequence[Any], limit: int, cursor: str | None) -> tuple[list[Any], str | None]:
    """Return a page, and the cursor of the next; cursors are places in the list."""
    if cursor is not None and not cursor.isdecimal():
        raise InvalidRequestError("cursor: not one that this stub gave")
    start = int(cursor or 0)
    end = start + limit
    return list(found[start:end]), str(end) if end < len(found) else None
