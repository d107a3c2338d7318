"""Requests and replies: what callers send and see."""

# These models are the contract in Python: the client sends and returns them, and OpenAPI is made
# from them. Replies of a worker are not built from them (see the encoder in `wire`, which a
# property test holds equal to them), and reading a reply ignores keys that a newer worker may have
# added.

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    SkipValidation,
    WithJsonSchema,
    model_serializer,
)
from pydantic.alias_generators import to_camel

MAX_PAGE: Final = 500  # users that a page may have
MAX_IDS: Final = 500  # ids that a request may have
MAX_ROLES: Final = 20  # likewise roles
ADDITIONAL: Final = "additionalFields"  # the key of a User that is there only if it is asked for


# Requests


class Request(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a caller asks for: snake_case in Python, either case as JSON."""


class ById(Request, frozen=True, omit_defaults=True):
    """The request of `users.get`."""

    id: str
    organization_id: str | None = None


class ByEmail(Request, frozen=True, omit_defaults=True):
    """The request of `users.by_email`."""

    email: str
    organization_id: str | None = None


class OrgList(Request, frozen=True, omit_defaults=True):
    """The request of `users.org_list`."""

    organization_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None
    roles: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_ROLES)] | None = None


class ByIds(Request, frozen=True, omit_defaults=True):
    """The request of `users.get_many`."""

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS)]
    organization_id: str | None = None


class MembershipsOf(Request, frozen=True, omit_defaults=True):
    """The request of `users.memberships`; without an id it is about the caller."""

    id: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None


class Myself(Request, frozen=True, omit_defaults=True):
    """The request of `users.whoami`."""

    organization_id: str | None = None


# Replies


def as_javascript(value: datetime) -> str:
    """Write a time as JavaScript does: RFC 3339 in UTC, with milliseconds and Z."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[
    datetime,
    PlainSerializer(as_javascript, return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Reply(BaseModel):
    """A value that a worker answers with: frozen, camelCase as JSON, snake_case in Python."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore"
    )


class User(Reply):
    """A user as Better Auth stores it now, with the organization context of one membership."""

    id: str
    email: str | None
    email_verified: bool
    name: str | None
    image: str | None = Field(
        description="null also where a data URL would push the record over the message limit"
    )
    is_anonymous: bool
    role: str = Field(description="platform roles, comma-separated as Better Auth stores them")
    banned: bool = Field(
        description="as stored: stays true after banExpires has passed, until the next sign-in"
    )
    ban_reason: str | None
    ban_expires: Instant | None = Field(description="null is a ban without end")
    organization_id: str | None
    org_role: str | None = Field(description="the role in that organization, as stored")
    manager_id: str | None
    department_id: str | None
    additional_fields: dict[str, Any] | None = Field(
        default=None,
        description="custom columns, by the keys of RESPONDER_ADDITIONAL_FIELDS; absent where that "
        "is not set, null where they would push the record over the message limit",
    )

    def __hash__(self) -> int:
        """Return a hash, which is the same of equal users: additional fields have none."""
        return hash(self.id)

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, write: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a type here would be taken for that of the JSON
        written = write(self)
        if "additional_fields" not in self.model_fields_set:
            written.pop(ADDITIONAL, None)
            written.pop("additional_fields", None)
        return written

    def is_banned(self, at: datetime) -> bool:
        """Tell whether the ban is in force at a time (Better Auth: banExpires null or ahead)."""
        return self.banned and (self.ban_expires is None or self.ban_expires > at)


class UserPage(Reply):
    """A page of an organization's members; `next_cursor` is None on the last."""

    users: list[User]
    next_cursor: str | None


class UserBatch(Reply):
    """The users found among the ids asked for, and the ids that were not, in request order."""

    users: list[User]
    # Unchecked: an id that no user has may be no proper text at all (a lone surrogate).
    missing: list[Annotated[str, SkipValidation]]


class Membership(Reply):
    """What a user is in one organization."""

    organization_id: str
    organization_name: str | None = Field(description="null also where it may not be read")
    organization_slug: str | None
    org_role: str | None = Field(description="as stored")
    manager_id: str | None
    department_id: str | None
    created_at: Instant | None


class MembershipPage(Reply):
    """A page of a user's memberships; `next_cursor` is None on the last."""

    memberships: list[Membership]
    next_cursor: str | None


class Identity(Reply):
    """Who a token speaks for, from the token alone: it may be older than the tables."""

    user_id: str = Field(description="the claim sub, or userId in a token of a shared secret")
    email: str | None
    name: str | None
    role: str | None
    organization_id: str | None = Field(description="the organization that the token names")
    org_role: str | None = Field(description="the role there, as the token says")
    issuer: str | None = Field(description="null where the token has none")
    audience: list[str]
    issued_at: Instant | None
    expires_at: Instant


class WhoAmI(Reply):
    """The caller: what the token says, and the user as stored now, if there is one."""

    identity: Identity
    user: User | None
