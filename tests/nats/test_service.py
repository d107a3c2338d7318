"""The service describes itself as ADR-32 says, with figures that are right."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from contextlib import asynccontextmanager

import jsonschema
import pytest

from responder.app import serving
from responder.errors import BY_CODE
from responder.settings import Settings
from tests.markdown import ROOT, rows

USER = rows((ROOT / "subjects.md").read_text(), "key")
OFF = {"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_ADMIN_LISTEN": "off"}
NAME = "^[a-zA-Z0-9_-]+$"
SEMVER = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)
TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
METADATA = {
    "anyOf": [
        {"type": "null"},
        {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    ]
}
COUNT = {"type": "integer", "minimum": 0}
SUBJECT = {"type": "string", "pattern": r"^[^\s]+$"}


def schema(verb, required=(), **properties):
    """What ADR-32 says of a reply to a verb."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["type", "name", "id", "version", *required],
        "properties": {
            "type": {"const": f"io.nats.micro.v1.{verb}_response"},
            "name": {"type": "string", "pattern": NAME},
            "id": {"type": "string", "minLength": 1},
            "version": {"type": "string", "pattern": SEMVER},
            "metadata": METADATA,
            **properties,
        },
        "additionalProperties": False,
    }


def endpoints(required=(), **properties):
    return {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "subject", *required],
            "properties": {
                "name": {"type": "string", "pattern": NAME},
                "subject": SUBJECT,
                "queue_group": {"type": "string"},
                **properties,
            },
            "additionalProperties": False,
        },
    }


FIGURES = {
    "num_requests": COUNT,
    "num_errors": COUNT,
    "last_error": {"type": "string"},
    "processing_time": COUNT,
    "average_processing_time": COUNT,
}
SCHEMAS = {
    "PING": schema("ping"),
    "INFO": schema(
        "info",
        ["description", "endpoints"],
        description={"type": "string", "minLength": 1},
        endpoints=endpoints(metadata=METADATA),
    ),
    "STATS": schema(
        "stats",
        ["started", "endpoints"],
        started={"type": "string", "pattern": TIME},
        endpoints=endpoints(FIGURES, **FIGURES, data={}),
    ),
}
ENDPOINTS = ["get", "by_email", "org_list", "get_many", "memberships", "whoami"]


async def stats(service, id_=""):
    """Return what STATS says of each endpoint of one instance."""
    subject = f"$SRV.STATS.users.{id_}" if id_ else "$SRV.STATS.users"
    answer = await service.ask(subject)
    return {endpoint["name"]: endpoint for endpoint in answer.json["endpoints"]}


@asynccontextmanager
async def collected(service, subject):
    """Subscribe to an inbox, publish to a subject, and yield what arrives."""
    inbox = service.nc.new_inbox()
    subscription = await service.nc.subscribe(inbox)
    await service.nc.publish(subject, b"", reply=inbox)
    yield subscription
    await subscription.unsubscribe()


async def replies(service, subject, count):
    """Return so many replies to one request, and whether any more are there."""
    async with collected(service, subject) as subscription:
        found = [json.loads((await subscription.next_msg(timeout=30)).data) for _ in range(count)]
        await service.ask("$SRV.PING.users")  # whatever was sent before this is here now
        return found, subscription.pending_msgs


@pytest.mark.parametrize("verb", SCHEMAS)
@pytest.mark.parametrize("address", ["", ".users", ".users.{id}"])
async def test_every_subject_answers_as_adr_32_says(people_service, verb, address):
    """PING, INFO and STATS answer to all, by name and by id, in the form the nats CLI reads."""
    instance = (await people_service.ask("$SRV.PING")).json["id"]
    answer = await people_service.ask(f"$SRV.{verb}{address.format(id=instance)}")

    jsonschema.validate(answer.json, SCHEMAS[verb])
    assert {} == answer.headers
    assert ("users", instance) == (answer.json["name"], answer.json["id"])


@pytest.mark.parametrize("verb", SCHEMAS)
async def test_a_description_needs_no_empty_payload(people_service, verb):
    """What is sent along with a request for a description does not matter."""
    answer = await people_service.ask(f"$SRV.{verb}", b"\xff{", headers={"X": "y"})

    jsonschema.validate(answer.json, SCHEMAS[verb])


@pytest.mark.parametrize(
    "subject", ["$SRV.PING.others", "$SRV.INFO.users.other", "$SRV.STATS.USERS"]
)
async def test_descriptions_of_others_are_left_to_them(people_service, subject):
    """A request for another service, or another instance, is not ours to answer."""
    with pytest.raises(Exception, match="no responders"):
        await people_service.ask(subject)


async def test_info_names_the_endpoints(people_service):
    """INFO lists every lookup with its subject and the queue group that shares the load."""
    info = (await people_service.ask("$SRV.INFO.users")).json

    assert [(name, f"users.{name}", "responder") for name in ENDPOINTS] == [
        (endpoint["name"], endpoint["subject"], endpoint["queue_group"])
        for endpoint in info["endpoints"]
    ]


async def test_info_says_what_to_send(people_service):
    """Of each subject INFO has the keys of request and reply that subjects.md has."""
    info = (await people_service.ask("$SRV.INFO.users")).json
    told = {each["subject"]: each["metadata"] for each in info["endpoints"]}
    documented = {
        subject: re.findall('"(.*?)"', request)
        for subject, request, _ in rows((ROOT / "subjects.md").read_text(), "subject")
    }

    assert {"contract": "responder asyncapi"} == info["metadata"]
    assert documented == {
        subject: re.findall('"(.*?)"', each["request"]) for subject, each in told.items()
    }
    assert {
        "summary": "a user by id",
        "request": '{"id", "organizationId"?}, or the bare id',
        "reply": "{" + ", ".join(f'"{each[0]}"' for each in USER[:14]) + "}",
        "token": "optional",
    } == told["users.get"]
    assert "required" == told["users.whoami"]["token"]


async def test_info_says_where_a_token_is_required(start_with):
    """With RESPONDER_NATS_AUTH=required it is on every subject."""
    service = await start_with(
        empty=True, RESPONDER_NATS_AUTH="required", BETTER_AUTH_URL="http://127.0.0.1:1"
    )
    info = (await service.ask("$SRV.INFO.users")).json

    assert {"required"} == {each["metadata"]["token"] for each in info["endpoints"]}


async def test_each_reply_says_the_same_of_the_instance(people_service):
    """Name, id and version are the same in all three."""
    answers = [(await people_service.ask(f"$SRV.{verb}")).json for verb in SCHEMAS]

    assert 1 == len({(each["name"], each["id"], each["version"]) for each in answers})


async def test_a_description_is_not_counted_as_a_request(service):
    """Figures are of lookups alone, and all zero at first."""
    for verb in SCHEMAS:
        await service.ask(f"$SRV.{verb}")
    found = await stats(service)

    nothing = {**dict.fromkeys(FIGURES, 0), "last_error": ""}
    assert dict.fromkeys(ENDPOINTS, nothing) == {
        name: {key: endpoint[key] for key in FIGURES} for name, endpoint in found.items()
    }


async def test_figures_are_right_after_known_requests(service, cast):
    """Requests and errors are counted where they belong, with the code of the last error."""
    asked = [
        ("get", cast.owner.id),
        ("get", "nobody@example.com"),
        ("get", cast.viewer.id),
        ("by_email", cast.owner.email),
        ("by_email", b"\xff"),
        ("by_email", "nobody@example.com"),
        ("org_list", cast.organization.id),
        ("get_many", {"ids": []}),
        ("memberships", "nobody"),
        ("whoami", ""),
    ]
    for name, payload in asked:
        await service.ask(f"users.{name}", payload)
    found = await stats(service)

    assert {
        "get": (3, 1, "not_found"),
        "by_email": (3, 2, "not_found"),
        "org_list": (1, 0, ""),
        "get_many": (1, 1, "invalid_request"),
        "memberships": (1, 1, "not_found"),
        "whoami": (1, 1, "unauthenticated"),
    } == {
        name: (endpoint["num_requests"], endpoint["num_errors"], endpoint["last_error"])
        for name, endpoint in found.items()
    }
    for endpoint in found.values():
        average = endpoint["processing_time"] / endpoint["num_requests"]
        assert 0 < endpoint["processing_time"] < 5e9
        assert abs(average - endpoint["average_processing_time"]) <= 1


async def test_an_answer_is_counted_with_the_time_it_took(service, cast):
    """A request that waited for PostgreSQL took as long as its caller waited."""
    async with service.database.acquire() as connection, connection.transaction():
        await connection.execute("lock table users in access exclusive mode")
        await service.ask("users.get", cast.owner.id, headers={"Responder-Timeout-Ms": "200"})
    found = (await stats(service))["get"]

    assert 0.19e9 <= found["processing_time"] < 2e9
    assert (1, "timeout") == (found["num_errors"], found["last_error"])


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("get", {"secret-person": "secret-person"}),
        ("get", "secret-person"),
        ("by_email", "secret-person@example.com"),
        ("org_list", {"organizationId": "secret-person", "cursor": "secret-person"}),
    ],
)
async def test_figures_hold_nothing_personal(people_service, subject, payload):
    """The last error is a code: nothing of what was asked for, or by whom."""
    await people_service.ask(f"users.{subject}", payload, headers={"X": "secret-person"})
    answer = await people_service.ask("$SRV.STATS")

    assert b"secret-person" not in answer.body
    assert {"", *BY_CODE} >= {endpoint["last_error"] for endpoint in answer.json["endpoints"]}


# Several workers.


@pytest.fixture
async def two(template, create_database, start):
    """Two services on the same NATS and PostgreSQL."""
    service = await start(await create_database(template=template[0]), **OFF)
    settings = Settings.read(
        {
            "DATABASE_URL": service.url,
            "NATS_URL": service.nats.url,
            **OFF,
        }
    )
    async with serving(settings):
        yield service


async def test_every_instance_describes_itself(two):
    """Descriptions are answered by each of two instances once, each with an id of its own."""
    found = {}
    for subject in (f"$SRV.{verb}{name}" for verb in SCHEMAS for name in ("", ".users")):
        answers, more = await replies(two, subject, 2)
        found[subject] = (len({each["id"] for each in answers}), more)

    assert {(2, 0)} == set(found.values())


async def test_two_instances_share_the_load(two, cast):
    """Each of many requests is answered exactly once, and both instances answer some."""
    inbox = two.nc.new_inbox()
    subscription = await two.nc.subscribe(f"{inbox}.*")
    for n in range(200):
        await two.nc.publish("users.get", cast.owner.id.encode(), reply=f"{inbox}.{n}")
    answered = Counter([(await subscription.next_msg(timeout=30)).subject for _ in range(200)])
    instances, _ = await replies(two, "$SRV.STATS.users", 2)

    shares = [each["endpoints"][0]["num_requests"] for each in instances]
    assert {f"{inbox}.{n}": 1 for n in range(200)} == answered
    assert 0 == subscription.pending_msgs
    assert 200 == sum(shares)
    assert min(shares) > 0


@pytest.mark.parametrize("group", ["responder", "people"])
async def test_the_queue_group_is_shared_with_all_that_join_it(
    template, create_database, start, cast, group
):
    """The queue group is `responder`, or that of the setting: a member of it takes its share."""
    variables = {} if group == "responder" else {"RESPONDER_QUEUE_GROUP": group}
    service = await start(
        await create_database(template=template[0]),
        **OFF,
        **variables,
    )

    async def answer(message):
        await message.respond(b'"theirs"')

    await service.nc.subscribe("users.get", queue=group, cb=answer)
    answers = await asyncio.gather(*(service.ask("users.get", cast.owner.id) for _ in range(200)))

    theirs = sum(each.body == b'"theirs"' for each in answers)
    assert 0 < theirs < 200
    assert 200 - theirs == (await stats(service))["get"]["num_requests"]
