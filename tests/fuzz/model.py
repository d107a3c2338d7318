"""The contract a second time: what each endpoint answers, from rows that are held in memory."""

# Written from subjects.md, The User and On behalf of a user, and not from the code. It knows no
# SQL, no batches and no wire: a State is all rows at one moment, a Question what is asked of it,
# and the answer a reply as JSON has it, or the code of an error.
#
# A new endpoint is a method of Model that has its name. A new field of the User is a column of a
# row here, and a key in `Model._record`. A new rule is a field of Rules.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

Answer: TypeAlias = dict[str, Any] | str  # a reply, or the code of an error
Request: TypeAlias = Mapping[str, Any]  # by its keys as JSON has them

FORBIDDEN, NOT_FOUND, UNAUTHENTICATED = "forbidden", "not_found", "unauthenticated"


@dataclass(frozen=True)
class UserRow:
    """A row of the users."""

    id: str
    email: str | None
    created_at: datetime
    email_verified: bool = True
    name: str = "x"
    image: str | None = None
    is_anonymous: bool | None = None
    role: str | None = None
    banned: bool | None = None
    ban_reason: str | None = None
    ban_expires: datetime | None = None


@dataclass(frozen=True)
class MemberRow:
    """A row of the members."""

    id: str
    organization_id: str
    user_id: str
    role: str
    created_at: datetime | None
    manager_id: str | None = None
    department_id: str | None = None

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """What decides which is the earliest: createdAt, nulls last, then id."""
        return self.created_at is None, self.created_at or datetime.max.replace(tzinfo=UTC), self.id


@dataclass(frozen=True)
class State:
    """All rows at one moment."""

    users: Mapping[str, UserRow] = field(default_factory=dict)
    members: Mapping[str, MemberRow] = field(default_factory=dict)

    def with_user(self, row: UserRow) -> State:
        return replace(self, users={**self.users, row.id: row})

    def with_member(self, row: MemberRow) -> State:
        return replace(self, members={**self.members, row.id: row})

    def without_member(self, id_: str) -> State:
        return replace(self, members={k: v for k, v in self.members.items() if k != id_})

    def without_user(self, id_: str) -> State:
        """Without a user and, as the foreign key has it, without their memberships."""
        return State(
            {k: v for k, v in self.users.items() if k != id_},
            {k: v for k, v in self.members.items() if v.user_id != id_},
        )

    def memberships(self, user_id: str) -> list[MemberRow]:
        """Return those of a user, the earliest first."""
        own = [each for each in self.members.values() if each.user_id == user_id]
        return sorted(own, key=lambda each: each.order)

    def organizations(self, user_id: str) -> set[str]:
        return {each.organization_id for each in self.memberships(user_id)}


class Caller(NamedTuple):
    """Who a token speaks for, and the organization that it names."""

    user_id: str
    organization_id: str | None = None


@dataclass(frozen=True)
class Rules:
    """What the operator has set."""

    visible_to_all: bool = False
    admin_roles: frozenset[str] = frozenset({"admin", "superadmin"})
    organization_roles: frozenset[str] | None = None  # None is every role


@dataclass(frozen=True)
class Question:
    """What is asked: an endpoint, the keys of its request, and by whom (None: a service)."""

    endpoint: str
    request: Request
    caller: Caller | None = None


@dataclass(frozen=True)
class Model:
    """What a service with these rows and rules answers."""

    state: State
    rules: Rules = Rules()

    def answer(self, question: Question) -> Answer:
        answer: Answer = getattr(self, question.endpoint)(question.caller, question.request)
        return answer

    # Endpoints

    def get(self, caller: Caller | None, request: Request) -> Answer:
        if self._is_refused(caller):
            return FORBIDDEN
        return self._seen(caller, request["id"], request) or NOT_FOUND

    def by_email(self, caller: Caller | None, request: Request) -> Answer:
        if self._is_refused(caller):
            return FORBIDDEN
        email = request["email"].lower()
        found = [each for each in self.state.users.values() if each.email == email]
        if not found:
            return NOT_FOUND
        first = min(found, key=lambda each: (each.created_at, each.id))
        return self._seen(caller, first.id, request) or NOT_FOUND

    def get_many(self, caller: Caller | None, request: Request) -> Answer:
        if self._is_refused(caller):
            return FORBIDDEN
        seen = {each: self._seen(caller, each, request) for each in request["ids"]}
        return {
            "users": [each for each in seen.values() if each],
            "missing": [id_ for id_, each in seen.items() if not each],
        }

    def org_list(self, caller: Caller | None, request: Request) -> Answer:
        """Answer the whole list; of walks through its pages see `listed`."""
        if self._is_refused(caller):
            return FORBIDDEN
        organization = request["organizationId"]
        if not self._may_list(caller, organization):
            return NOT_FOUND
        users = [self._record(caller, each) for each in self.listed(organization)]
        return {"users": users, "nextCursor": None}

    def memberships(self, caller: Caller | None, request: Request) -> Answer:
        """Answer the whole list: of each organization the earliest membership."""
        user_id = request["id"]
        if self._is_refused(caller):
            return FORBIDDEN
        if user_id not in self.state.users or not self._sees(caller, user_id):
            return NOT_FOUND
        earliest: dict[str, MemberRow] = {}
        for each in self._visible_memberships(caller, user_id):
            earliest.setdefault(each.organization_id, each)
        return {
            "memberships": [
                {
                    "organizationId": each.organization_id,
                    "organizationName": f"name of {each.organization_id}",
                    "organizationSlug": f"slug of {each.organization_id}",
                    "orgRole": each.role,
                    "managerId": each.manager_id,
                    "departmentId": each.department_id,
                    "createdAt": _written(each.created_at),
                }
                for each in earliest.values()
            ],
            "nextCursor": None,
        }

    def whoami(self, caller: Caller | None, request: Request) -> Answer:
        """Answer what the tables say; what the token says is no matter of them."""
        if caller is None:
            return UNAUTHENTICATED
        return {"user": self._seen(caller, caller.user_id, request)}

    # What they rest on

    def listed(self, organization_id: str) -> list[MemberRow]:
        """Return the memberships that speak in a list, in its order: of each user the earliest."""
        members = [
            each for each in self.state.members.values() if each.organization_id == organization_id
        ]
        earliest: dict[str, MemberRow] = {}
        for each in sorted(members, key=lambda each: each.order):
            earliest.setdefault(each.user_id, each)
        return list(earliest.values())

    def _is_refused(self, caller: Caller | None) -> bool:
        """Tell whether a caller is banned now, or has no row."""
        if caller is None:
            return False
        row = self.state.users.get(caller.user_id)
        if row is None:
            return True
        return bool(row.banned) and (row.ban_expires is None or row.ban_expires > datetime.now(UTC))

    def _is_admin(self, caller: Caller) -> bool:
        row = self.state.users.get(caller.user_id)
        if row is None or row.is_anonymous:
            return False
        return bool(self.rules.admin_roles & set((row.role or "user").split(",")))

    def _is_guest(self, caller: Caller) -> bool:
        return bool(self.state.users[caller.user_id].is_anonymous)

    def _own(self, caller: Caller) -> set[str]:
        """Return the organizations in which a caller sees others."""
        earliest: dict[str, MemberRow] = {}
        for each in self.state.memberships(caller.user_id):
            earliest.setdefault(each.organization_id, each)
        roles = self.rules.organization_roles
        return {
            organization
            for organization, each in earliest.items()
            if roles is None or roles & set(each.role.split(","))
        }

    def _may_list(self, caller: Caller | None, organization_id: str) -> bool:
        if caller is None or self._is_admin(caller):
            return True
        return not self._is_guest(caller) and organization_id in self._own(caller)

    def _sees(self, caller: Caller | None, user_id: str) -> bool:
        if caller is None or caller.user_id == user_id or self._is_admin(caller):
            return True
        if self._is_guest(caller):
            return False
        shared = self._own(caller) & self.state.organizations(user_id)
        return self.rules.visible_to_all or bool(shared)

    def _seen(self, caller: Caller | None, user_id: str, request: Request) -> dict[str, Any] | None:
        """Return a user as a caller sees them, None where there is none or none to be seen."""
        row = self.state.users.get(user_id)
        if row is None or not self._sees(caller, user_id):
            return None
        named = request.get("organizationId")
        candidates = self._visible_memberships(caller, user_id)
        if named is not None:
            candidates = [each for each in candidates if each.organization_id == named]
        home = caller and caller.organization_id
        at_home = [each for each in candidates if named is None and each.organization_id == home]
        return self._record(caller, next(iter(at_home or candidates), None), row)

    def _visible_memberships(self, caller: Caller | None, user_id: str) -> Iterable[MemberRow]:
        memberships = self.state.memberships(user_id)
        if caller is None or caller.user_id == user_id or self._is_admin(caller):
            return memberships
        own = self._own(caller)
        return [each for each in memberships if each.organization_id in own]

    def _record(
        self, caller: Caller | None, member: MemberRow | None, row: UserRow | None = None
    ) -> dict[str, Any]:
        """Return a User: a row, and the membership that speaks for it."""
        row = row or self.state.users[member.user_id if member else ""]
        secrets = caller is None or caller.user_id == row.id or self._is_admin(caller)
        return {
            "id": row.id,
            "email": row.email,
            "emailVerified": row.email_verified,
            "name": row.name,
            "image": row.image,
            "isAnonymous": bool(row.is_anonymous),
            "role": row.role or "user",
            "banned": bool(row.banned),
            "banReason": row.ban_reason if secrets else None,
            "banExpires": _written(row.ban_expires),
            "organizationId": member and member.organization_id,
            "orgRole": member and member.role,
            "managerId": member and member.manager_id,
            "departmentId": member and member.department_id,
        }


def _written(time: datetime | None) -> str | None:
    """Return a time as JavaScript writes it."""
    return None if time is None else time.isoformat(timespec="milliseconds")[:-6] + "Z"
