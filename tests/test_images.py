"""An image inside a row is answered if it fits into a message (subjects.md, The User)."""

from __future__ import annotations

import asyncio

import pytest


async def images_omitted(service):
    """Return the counter of images left out, from the admin listener."""
    lines = (await service.admin.get("/metrics")).text.splitlines()
    (line,) = (each for each in lines if each.startswith("responder_images_omitted_total "))
    return float(line.split()[1])


async def test_an_image_in_the_row_is_answered(people_service, cast):
    """An image that fits into a message is answered as it is."""
    answer = await people_service.ask("users.get", {"id": cast.painted.id})

    assert cast.painted.image == answer.json["image"]


async def test_an_image_in_the_row_is_answered_among_others(people_service, cast):
    """An image is the same whether its user is asked for alone or with a hundred others."""
    many = [cast.owner, cast.painted, cast.viewer] * 40
    answers = await asyncio.gather(
        *(people_service.ask("users.get", {"id": person.id}) for person in many)
    )

    assert [person.image for person in many] == [answer.json["image"] for answer in answers]


async def test_an_image_in_the_row_is_in_lists(people_service, cast):
    """users.get_many and users.org_list answer an image in the row, too."""
    batch = await people_service.users.get_many([cast.painted.id, cast.owner.id])
    members = [user async for user in people_service.users.org_list(cast.organization.id)]

    assert cast.painted.image == batch.users[0].image
    assert [cast.painted.image] == [user.image for user in members if user.id == cast.painted.id]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(70_000, id="larger-than-a-message"),
        pytest.param(65_500, id="larger-with-the-rest-of-its-record"),
    ],
)
async def test_an_image_too_large_for_a_message_is_null_and_counted(start_with, cast, size):
    """An image that would push the record over the limit answers as null, and is counted once."""
    service = await start_with(RESPONDER_ADMIN_LISTEN="127.0.0.1:0", config="max_payload: 65536")
    person, organization = cast.second_owner, cast.second_organization.id
    await service.database.execute(
        "update users set image = repeat('A', $2) where id = $1", person.id, size
    )
    answers = [
        await service.ask("users.get", {"id": person.id}),
        await service.ask("users.by_email", {"email": person.email}),
        await service.ask("users.get_many", {"ids": [person.id]}),
        await service.ask("users.org_list", {"organizationId": organization, "limit": 1}),
    ]

    users = [user for answer in answers for user in answer.json.get("users", [answer.json])]
    expected = [(person.id, person.name, None, "owner")] * 4
    assert expected == [(u["id"], u["name"], u["image"], u["orgRole"]) for u in users]
    assert 4 == await images_omitted(service)


async def test_images_too_large_are_null_among_others(start_with, cast):
    """One user's huge image changes no other user who is asked for at the same time."""
    service = await start_with(config="max_payload: 65536")
    await service.database.execute(
        "update users set image = repeat('A', 70000) where id = $1", cast.painted.id
    )
    many = [cast.owner, cast.painted, cast.viewer] * 30
    answers = await asyncio.gather(
        *(service.ask("users.get", {"id": person.id}) for person in many)
    )

    expected = [None if person is cast.painted else person.image for person in many]
    assert expected == [answer.json["image"] for answer in answers]
