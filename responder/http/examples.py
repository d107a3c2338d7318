"""Values that the OpenAPI document shows: requests, and replies to them."""

# They are demo people, so that `responder dev` answers each example.

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from responder.models import (
    Identity,
    Membership,
    MembershipPage,
    Reply,
    User,
    UserBatch,
    UserPage,
    WhoAmI,
)

PARAMETERS: Final[dict[str, str | int]] = {
    "id": "KbO8WbOTItGbdi0KY5YfJyfimmurNJra",
    "email": "zoe.lindqvist@lumen.example.com",
    "organizationId": "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud",
    "role": "owner",
    "limit": 100,
}
PROBLEM: Final[dict[str, str | int]] = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "detail": "no such user",
    "code": "not_found",
}


def replies(additional: Sequence[str]) -> dict[str, Any]:
    """Return an example of each model of a reply, by its name.

    Args:
        additional: the keys of additional fields that a User has.
    """
    more = {"additional_fields": dict.fromkeys(additional)} if additional else {}
    user = User(
        id=str(PARAMETERS["id"]),
        email=str(PARAMETERS["email"]),
        email_verified=True,
        name="Zoë Lindqvist",
        image=None,
        is_anonymous=False,
        role="user",
        banned=False,
        ban_reason=None,
        ban_expires=None,
        organization_id=str(PARAMETERS["organizationId"]),
        org_role="owner",
        manager_id=None,
        department_id="engineering",
        **more,
    )
    models: list[Reply] = [
        user,
        UserPage(users=[user], next_cursor=None),
        UserBatch(users=[user], missing=["nobody"]),
        _MEMBERSHIP,
        MembershipPage(memberships=[_MEMBERSHIP], next_cursor=None),
        _IDENTITY,
        WhoAmI(identity=_IDENTITY, user=user),
    ]
    return {type(each).__name__: each.model_dump(mode="json", by_alias=True) for each in models}


_MEMBERSHIP: Final = Membership(
    organization_id=str(PARAMETERS["organizationId"]),
    organization_name="Lumen",
    organization_slug="lumen",
    org_role="owner",
    manager_id=None,
    department_id="engineering",
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
_IDENTITY: Final = Identity(
    user_id=str(PARAMETERS["id"]),
    email=str(PARAMETERS["email"]),
    name="Zoë Lindqvist",
    role="user",
    organization_id=str(PARAMETERS["organizationId"]),
    org_role="owner",
    issuer="https://app.example.com",
    audience=["https://app.example.com"],
    issued_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    expires_at=datetime(2026, 1, 2, 3, 19, 5, tzinfo=UTC),
)
