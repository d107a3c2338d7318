"""What the Python peers are asked and what they answer, as pydantic models."""

import base64
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer

Instant = Annotated[
    datetime,
    PlainSerializer(
        lambda value: value.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        when_used="json-unless-none",
    ),
]


class ById(BaseModel):
    """Ask for a user."""

    id: str


class ByEmail(BaseModel):
    """Ask for the user with an email."""

    email: str


class ByIds(BaseModel):
    """Ask for many users."""

    ids: list[str]


class OrgList(BaseModel):
    """Ask for the first page of an organization's members."""

    organizationId: str
    limit: int = 100


class User(BaseModel):
    """A user, with the organization context of one membership."""

    id: str
    email: str
    emailVerified: bool
    name: str
    image: str | None
    isAnonymous: bool
    role: str
    banned: bool
    banReason: str | None
    banExpires: Instant | None
    organizationId: str | None
    orgRole: str | None
    managerId: str | None
    departmentId: str | None


class UserBatch(BaseModel):
    """The users found, in request order, and the ids that were not."""

    users: list[User]
    missing: list[str]


class UserPage(BaseModel):
    """The first members of an organization."""

    users: list[User]
    nextCursor: str | None


class MembershipsOf(BaseModel):
    """Ask for the memberships of a user."""

    id: str
    limit: int = 100


class Membership(BaseModel):
    """A membership, with its organization's name."""

    organizationId: str
    organizationName: str | None
    organizationSlug: str | None
    orgRole: str | None
    managerId: str | None
    departmentId: str | None
    createdAt: Instant | None


class MembershipPage(BaseModel):
    """The first memberships of a user."""

    memberships: list[Membership]
    nextCursor: str | None


def memberships(request: MembershipsOf, rows: list[Any]) -> MembershipPage:
    """Make a page of the rows, of which one has no organization where there is no membership."""
    rows = [row for row in rows if row["organizationId"] is not None]
    cursor = None
    if len(rows) > request.limit:
        rows = rows[: request.limit]
        place = [request.id, str(rows[-1]["createdAt"]), rows[-1]["memberId"]]
        cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    return MembershipPage(memberships=[Membership(**row) for row in rows], nextCursor=cursor)


def batch(ids: list[str], rows: list[Any]) -> UserBatch:
    """Put the rows into the order of the request."""
    found = {row["id"]: row for row in rows}
    unique = dict.fromkeys(ids)
    return UserBatch(
        users=[User(**found[id_]) for id_ in unique if id_ in found],
        missing=[id_ for id_ in unique if id_ not in found],
    )


def page(request: OrgList, rows: list[Any]) -> UserPage:
    """Make a page of the rows, of which one too many says that there is another page."""
    cursor = None
    if len(rows) > request.limit:
        rows = rows[: request.limit]
        place = [request.organizationId, rows[-1]["memberSince"], rows[-1]["memberId"]]
        cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    return UserPage(users=[User(**row) for row in rows], nextCursor=cursor)
