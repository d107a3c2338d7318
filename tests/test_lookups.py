"""Lookups answer from real tables what the contract says, over a real NATS server."""

from __future__ import annotations


async def test_a_user_is_found_by_id(people_service, cast):
    """users.get answers all 14 fields of the user."""
    answer = await people_service.ask("users.get", {"id": cast.owner.id})

    assert {
        "id": cast.owner.id,
        "email": cast.owner.email,
        "emailVerified": True,
        "name": cast.owner.name,
        "image": cast.owner.image,
        "isAnonymous": False,
        "role": "user",
        "banned": False,
        "banReason": None,
        "banExpires": None,
        "organizationId": cast.organization.id,
        "orgRole": "owner",
    }.items() <= answer.json.items()
    assert len(answer.json) == 14
