"""What is answered: many users in one reply, errors, and on which subjects."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import islice

import nats.errors
import pytest

from responder import UsersClient
from responder.endpoints import GET
from responder.errors import (
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UnavailableError,
)
from tests.walks import in_order

SUBJECTS = ("get", "by_email", "org_list", "get_many")  # which services ask
HUGE = b"[" * 200_000


def problem(answer):
    """Return the code of an error and its message."""
    return answer.code, answer.json["message"]


# Many users in one reply.


async def test_many_answer_in_the_order_of_the_request(people_service, cast):
    """Users and missing ids are in the order of the request, and duplicates are answered once."""
    viewer, owner, guest = cast.viewer.id, cast.owner.id, cast.guest.id
    asked = [viewer, "z", owner, "a", viewer, "z", guest, owner, "m"]
    answer = await people_service.ask("users.get_many", {"ids": asked})

    assert ([viewer, owner, guest], ["z", "a", "m"]) == (
        [user["id"] for user in answer.json["users"]],
        answer.json["missing"],
    )
    assert {"users", "missing"} == set(answer.json)


async def test_many_unknown_ids(people_service):
    """Where no user has one of the ids, all are missing and there are no users."""
    answer = await people_service.ask("users.get_many", {"ids": ["a", "b"]})

    assert {"users": [], "missing": ["a", "b"]} == answer.json


async def test_500_ids_are_answered(people_service, cast):
    """The limit itself is allowed."""
    ids = [f"nobody {n}" for n in range(499)]
    answer = await people_service.ask("users.get_many", {"ids": [*ids, cast.owner.id]})

    assert ([cast.owner.id], ids) == (
        [user["id"] for user in answer.json["users"]],
        answer.json["missing"],
    )


async def test_the_client_asks_for_any_number_of_ids(people_service, cast):
    """UsersClient.get_many splits what is too much for one request, and keeps the order."""
    ids = [f"nobody {n}" for n in range(1_100)]
    asked = [cast.viewer.id, *ids[:700], cast.owner.id, *ids, cast.viewer.id]
    batch = await people_service.users.get_many(asked)

    assert ([cast.viewer.id, cast.owner.id], ids) == (
        [user.id for user in batch.users],
        batch.missing,
    )


async def test_the_client_asks_for_no_ids(people_service):
    """No ids are no users, without a request."""
    batch = await people_service.users.get_many([])

    assert ([], []) == (batch.users, batch.missing)


@pytest.fixture(params=[4_000, 20_000], ids=["small-images", "images"])
async def crowded(request, start_with):
    """A service whose 400 users fit into many messages only, and all of their ids."""
    service = await start_with(config="max_payload: 65536")
    await service.database.execute("update users set image = repeat('A', $1)", request.param)
    rows = await service.database.fetch("select id from users order by id")
    return service, [row["id"] for row in rows]


async def test_more_users_than_fit_into_a_message(crowded):
    """users.get_many says so where the users do not fit, and advises to ask for fewer."""
    service, ids = crowded
    answer = await service.ask("users.get_many", {"ids": ids})

    code, message = problem(answer)
    assert ("payload_too_large", "413") == (code, answer.headers["Nats-Service-Error-Code"])
    assert "ask for fewer ids" in message


async def test_the_client_splits_what_does_not_fit_into_a_message(crowded):
    """UsersClient.get_many answers all the same, in order and complete."""
    service, ids = crowded
    batch = await service.users.get_many(ids[:60])

    assert (ids[:60], []) == ([user.id for user in batch.users], batch.missing)
    assert {len(batch.users[0].image)} == {len(user.image) for user in batch.users}


async def test_a_page_never_exceeds_a_message(crowded, cast):
    """users.org_list answers fewer users than asked for, and a cursor, where more do not fit."""
    service, _ = crowded
    request = {"organizationId": cast.organization.id, "limit": 500, "cursor": None}
    found = []
    while True:
        answer = await service.ask("users.org_list", request)
        found.append((len(answer.body), len(answer.json["users"])))
        cursor = answer.json["nextCursor"]
        assert cursor != request["cursor"] or cursor is None, "the walk has no end"
        request["cursor"] = cursor
        if cursor is None:
            break

    assert max(size for size, _ in found) <= 65_536
    assert 184 == sum(count for _, count in found)
    assert min(count for _, count in found) >= 1


async def test_a_record_too_large_for_a_message(start_with, cast):
    """A user who does not fit even without the image is payload_too_large, and no other is."""
    service = await start_with(config="max_payload: 65536")
    await service.database.execute(
        "update users set name = repeat('A', 70000) where id = $1", cast.viewer.id
    )
    answers = await asyncio.gather(
        service.ask("users.get", {"id": cast.owner.id}),
        service.ask("users.get", {"id": cast.viewer.id}),
        service.ask("users.by_email", {"email": cast.viewer.email}),
        service.ask("users.get_many", {"ids": [cast.viewer.id]}),
        service.ask("users.by_email", {"email": cast.owner.email}),
    )

    too_large = "payload_too_large"
    assert [None, too_large, too_large, too_large, None] == [answer.code for answer in answers]


async def test_a_page_ends_before_a_record_too_large_for_a_message(start_with, cast):
    """A page has the users before one that does not fit; a page that begins with it is
    payload_too_large.
    """
    service = await start_with(config="max_payload: 65536")
    ids = await in_order(service, cast.organization.id)
    await service.database.execute(
        "update users set name = repeat('A', 70000) where id = $1", ids[3]
    )
    request = {"organizationId": cast.organization.id, "limit": 100}

    before = (await service.ask("users.org_list", request)).json
    answer = await service.ask("users.org_list", {**request, "cursor": before["nextCursor"]})

    assert ids[:3] == [user["id"] for user in before["users"]]
    assert "payload_too_large" == answer.code


# Errors.


async def test_an_error_is_in_headers_and_body(people_service):
    """An error reply says the same in ADR-32's headers and in its body, and nothing else."""
    answer = await people_service.ask("users.get", {"id": "nobody"})

    message = answer.json["message"]
    assert {"code": "not_found", "message": message} == answer.json
    assert {"Nats-Service-Error": message, "Nats-Service-Error-Code": "404"} == answer.headers


async def test_an_error_says_nothing_of_the_key(people_service):
    """What does not exist is not found in the same words, whatever was asked for."""
    answers = await asyncio.gather(
        people_service.ask("users.get", {"id": "nobody"}),
        people_service.ask("users.get", {"id": "\0"}),
        people_service.ask("users.by_email", {"email": "nobody@example.com"}),
    )

    assert 1 == len({answer.body for answer in answers})


async def test_a_row_that_cannot_be_read_is_unavailable(start_with, cast):
    """A view that fails for one user says only that it does, and spoils no other answer."""
    service = await start_with(
        "alter table users rename to people",
        f"""create view users as select id, email, "emailVerified", "createdAt",
            case when id = '{cast.viewer.id}' then (1 / (length(name) * 0))::text else name end
            as name from people""",
        RESPONDER_USERS_TABLE="users",
    )
    people = [cast.owner, cast.viewer, cast.staff] * 10
    answers = await asyncio.gather(*(service.ask("users.get", person.id) for person in people))

    expected = ["unavailable" if person is cast.viewer else None for person in people]
    assert expected == [answer.code for answer in answers]
    message = "a view or a policy of the database fails"
    assert {"code": "unavailable", "message": message} == answers[1].json
    assert "503" == answers[1].headers["Nats-Service-Error-Code"]


async def test_too_much_waiting_is_unavailable(start_with, cast, locked):
    """Load is shed at once where too much is waiting already."""
    service = await start_with(RESPONDER_MAX_PENDING="5")
    async with locked(service):
        asked = [asyncio.create_task(service.ask("users.get", cast.owner.id)) for _ in range(30)]
        refused = [await each for each in islice(asyncio.as_completed(asked), 25)]
    answers = await asyncio.gather(*asked)

    assert {("unavailable", "503")} == {
        (answer.code, answer.headers.get("Nats-Service-Error-Code")) for answer in refused
    }
    assert {"unavailable": 25, None: 5} == Counter(answer.code for answer in answers)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda users: users.get("nobody"), NotFoundError),
        (lambda users: users.by_email("nobody@example.com"), NotFoundError),
        (lambda users: anext(users.org_list("x", page=501)), InvalidRequestError),
        (lambda users: users._asker.reply(GET, b"", headers={}), InvalidRequestError),
        (lambda users: users.get("x" * 2_000_000), PayloadTooLargeError),
    ],
)
async def test_the_client_raises_the_errors_of_the_contract(people_service, ask, error):
    """UsersClient raises the class of the code that was answered."""
    with pytest.raises(error):
        await ask(people_service.users)


# Subjects.


async def test_a_request_without_a_reply_subject_is_ignored(service, cast):
    """A request that wants no reply is not answered and not counted, and the service lives on."""
    for subject in (*SUBJECTS, "nothing"):
        for payload in (b"", b"\xff", HUGE, json.dumps({"id": cast.owner.id}).encode()):
            await service.nc.publish(f"users.{subject}", payload)
            await service.nc.publish(f"users.{subject}", payload, headers={"X": "y"})
    answer = await service.ask("users.get", {"id": cast.owner.id})

    stats = (await service.ask("$SRV.STATS.users")).json
    assert cast.owner.id == answer.json["id"]
    assert {
        "get": 1,
        "by_email": 0,
        "org_list": 0,
        "get_many": 0,
        "memberships": 0,
        "whoami": 0,
    } == {endpoint["name"]: endpoint["num_requests"] for endpoint in stats["endpoints"]}


async def test_the_prefix_is_a_setting(start_with, cast, requests):
    """With another prefix every subject moves, and the name of the service stays."""
    service = await start_with(RESPONDER_SUBJECT_PREFIX="acme.people")
    answers = {
        subject: (await service.ask(f"acme.people.{subject}", requests[subject])).code
        for subject in SUBJECTS
    }

    info = (await service.ask("$SRV.INFO.users")).json
    assert dict.fromkeys(SUBJECTS) == answers
    assert [f"acme.people.{subject}" for subject in (*SUBJECTS, "memberships", "whoami")] == [
        endpoint["subject"] for endpoint in info["endpoints"]
    ]
    assert cast.owner.id == (await service.users.get(cast.owner.id)).id
    with pytest.raises(nats.errors.NoRespondersError):
        await service.ask("users.get", requests["get"])


async def test_no_worker_listens(people_service):
    """UsersClient raises unavailable where no worker listens."""
    async with UsersClient.connect(people_service.nats.url, prefix="nobody") as users:
        with pytest.raises(UnavailableError, match="no worker"):
            await users.get("x")
