"""The one table of what can be asked: over NATS, and over HTTP where there is a route."""

# Data only. `wire` makes a decoder of a row, the worker answers each row with the method of
# `Directory` that has its name, `check` tries to subscribe to each, and what describes the service
# to others ($SRV, OpenAPI) is made from the rows: an endpoint that is added here is known
# everywhere.

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from msgspec import structs

from responder.models import (
    ADDITIONAL,
    ByEmail,
    ById,
    ByIds,
    MembershipPage,
    MembershipsOf,
    Myself,
    OrgList,
    Reply,
    Request,
    User,
    UserBatch,
    UserPage,
    WhoAmI,
)

Asked = TypeVar("Asked", bound=Request)
Answered = TypeVar("Answered", bound=Reply)

SERVICE: Final = "users"  # the name of the service, whatever the prefix of its subjects is
DESCRIPTION: Final = "Better Auth users, live from their tables"
CONTRACT: Final = "responder asyncapi"  # the command that prints all of it
IN_PATH: Final = re.compile(r"\{(\w+)\}")  # a key of the request, in a route


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Generic[Asked, Answered]):
    """Something that can be asked.

    `bare` is the key that a payload of bare text stands for; `route` is the path of a GET, in which
    a name in braces is a key of the request, and the other keys are parameters of the query; where
    two routes fit, the first is meant. With `needs_token` it is only answered on behalf of a
    caller. Where its payload `may_be_empty`, it is about the caller then.

    `begins` is what each reply begins with, in every version: what a program that is no worker has
    sent is told by that, and by that alone. So the first field of a reply model never moves.
    """

    name: str
    summary: str
    request: type[Asked]
    reply: type[Answered]
    bare: str | None = None
    route: str | None = None
    needs_token: bool = False
    may_be_empty: bool = False
    begins: bytes = field(init=False)

    def __post_init__(self) -> None:
        first = next(iter(self.reply.model_fields.values())).alias
        object.__setattr__(self, "begins", f'{{"{first}":'.encode())

    def metadata(self, *, token_required: bool) -> dict[str, str]:
        """Return what $SRV.INFO says of it to a person who has the nats CLI and no document.

        Args:
            token_required: whether a request without a token is refused on every subject.
        """
        asked = structs.fields(self.request)
        keys = (f'"{each.encode_name}"{"" if each.required else "?"}' for each in asked)
        forms = [f"{{{', '.join(keys)}}}"]
        forms += [f"the bare {self.bare}"] if self.bare else []
        forms += ["nothing, for the caller"] if self.may_be_empty else []
        answered = (field.alias for field in self.reply.model_fields.values())
        replied = (f'"{each}"' for each in answered if each != ADDITIONAL)
        return {
            "summary": self.summary,
            "request": ", or ".join(forms),
            "reply": f"{{{', '.join(replied)}}}",
            "token": "required" if token_required or self.needs_token else "optional",
        }

    def subject(self, prefix: str) -> str:
        """Return the subject on which it is asked."""
        return f"{prefix}.{self.name}"


GET: Final = Endpoint(
    name="get",
    summary="a user by id",
    request=ById,
    reply=User,
    bare="id",
    route="/api/v1/users/{id}",
)
BY_EMAIL: Final = Endpoint(
    name="by_email",
    summary="a user by email, in any case",
    request=ByEmail,
    reply=User,
    bare="email",
    route="/api/v1/users/email/{email}",
)
ORG_LIST: Final = Endpoint(
    name="org_list",
    summary="the users of an organization, a page at a time",
    request=OrgList,
    reply=UserPage,
    bare="organizationId",
    route="/api/v1/organizations/{organizationId}/users",
)
GET_MANY: Final = Endpoint(
    name="get_many",
    summary="users by their ids",
    request=ByIds,
    reply=UserBatch,
    route="/api/v1/users",
)
MEMBERSHIPS: Final = Endpoint(
    name="memberships",
    summary="the organizations of a user, a page at a time",
    request=MembershipsOf,
    reply=MembershipPage,
    bare="id",
    route="/api/v1/users/{id}/memberships",
    may_be_empty=True,
)
WHOAMI: Final = Endpoint(
    name="whoami",
    summary="the caller",
    request=Myself,
    reply=WhoAmI,
    route="/api/v1/me",
    needs_token=True,
    may_be_empty=True,
)

ENDPOINTS: Final = (GET, BY_EMAIL, ORG_LIST, GET_MANY, MEMBERSHIPS, WHOAMI)


class Write(NamedTuple):
    """A write that this service does not do, and Better Auth's endpoint that does it."""

    method: str
    path: str  # with and without /api/v1 before it
    verb: str
    successor: str  # below the base of Better Auth's HTTP API


WRITES: Final = (
    Write("POST", "/users", "create", "admin/create-user"),
    Write("PATCH", "/users/{id}", "change", "admin/set-role"),
    Write("DELETE", "/users/{id}", "remove", "admin/remove-user"),
)
