"""Requests and replies over NATS as section 2 of the contract says, in every form and malformed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice, product

import httpx
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

SUBJECTS = ("get", "by_email", "org_list", "get_many")  # which services ask
EVERY_SUBJECT = pytest.mark.parametrize("subject", SUBJECTS)
HUGE = b"[" * 200_000


@pytest.fixture
def requests(cast):
    """A good request for each subject."""
    return {
        "get": {"id": cast.owner.id},
        "by_email": {"email": cast.owner.email},
        "org_list": {"organizationId": cast.second_organization.id},
        "get_many": {"ids": [cast.owner.id]},
    }


@asynccontextmanager
async def locked(service):
    """Keep PostgreSQL from answering any lookup."""
    async with service.database.acquire() as connection, connection.transaction():
        await connection.execute("lock table users in access exclusive mode")
        yield


def problem(answer):
    """Return the code of an error and its message."""
    return answer.code, answer.json["message"]


# The forms of a request.


@EVERY_SUBJECT
async def test_keys_may_be_in_snake_case(people_service, cast, requests, subject):
    """A request in snake_case is answered like the same in camelCase."""
    request = {**requests[subject], "organizationId": cast.second_organization.id}
    in_camel = await people_service.ask(f"users.{subject}", request)
    request["organization_id"] = request.pop("organizationId")
    in_snake = await people_service.ask(f"users.{subject}", request)

    assert (None, in_camel.json) == (in_snake.code, in_snake.json)


@EVERY_SUBJECT
async def test_keys_may_not_be_in_both_cases(people_service, requests, subject):
    """A key given in camelCase and in snake_case is refused, even with the same value."""
    request = {**requests[subject], "organizationId": "x", "organization_id": "x"}
    answer = await people_service.ask(f"users.{subject}", request)

    assert "invalid_request" == answer.code


@EVERY_SUBJECT
@pytest.mark.parametrize("key", ["ID", "organization", "organizationID", "limits", "", "user"])
async def test_unknown_keys_are_named(people_service, requests, subject, key):
    """A key that the request does not have is an error that names it."""
    answer = await people_service.ask(f"users.{subject}", {**requests[subject], key: "x"})

    code, message = problem(answer)
    assert "invalid_request" == code
    assert "unknown key" in message
    assert key in message


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param('{{"id": "{}"}}', id="json"),
        pytest.param(' \r\n\t{{"id": "{}"}}\n', id="json-after-blanks"),
        pytest.param('{{"\\u0069d": "{}", "organizationId": null}}', id="json-with-escapes"),
        pytest.param('{{"id": "nobody", "id": "{}"}}', id="json-with-a-key-twice"),
        pytest.param("{}", id="text"),
        pytest.param(" {}\r\n", id="text-with-blanks"),
        pytest.param("\t\n{}\n\n", id="text-after-lines"),
    ],
)
async def test_an_id_is_read_as_json_or_text(people_service, cast, payload):
    """users.get takes a JSON object, or the bare id with blanks around it."""
    answer = await people_service.ask("users.get", payload.format(cast.owner.id))

    assert cast.owner.id == answer.json["id"]


async def test_an_email_is_read_as_text(people_service, cast):
    """users.by_email takes the bare email."""
    answer = await people_service.ask("users.by_email", f" {cast.owner.email.upper()}\n")

    assert cast.owner.id == answer.json["id"]


async def test_an_organization_is_read_as_text(people_service, cast):
    """users.org_list takes the bare organization id."""
    answer = await people_service.ask("users.org_list", f"{cast.second_organization.id}\n")

    expected = await people_service.ask(
        "users.org_list", {"organizationId": cast.second_organization.id}
    )
    assert (None, expected.json) == (answer.code, answer.json)


@pytest.mark.parametrize("payload", ['"{}"', '["{}"]', "x{}", "{} {}", "id={}"])
async def test_text_is_the_id_itself(people_service, cast, payload):
    """Anything but an object is an id to the letter, quotes and brackets included."""
    answer = await people_service.ask("users.get", payload.replace("{}", cast.owner.id))

    assert "not_found" == answer.code


async def test_lists_of_ids_are_json_only(people_service, cast):
    """users.get_many takes no bare text."""
    answer = await people_service.ask("users.get_many", cast.owner.id)

    assert ("invalid_request", "the payload is not a JSON object") == problem(answer)


@EVERY_SUBJECT
@pytest.mark.parametrize("payload", ["", " ", "\r\n\t "])
async def test_an_empty_payload_is_invalid(people_service, subject, payload):
    """Nothing, or nothing but blanks, is no request."""
    answer = await people_service.ask(f"users.{subject}", payload)

    assert ("invalid_request", "the payload is empty") == problem(answer)


@EVERY_SUBJECT
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff\xfe", id="not-utf8"),
        pytest.param(b'{"id": "\xff"}', id="json-not-utf8"),
        pytest.param(b'{"id": "\xed\xa0\x80"}', id="json-with-an-encoded-surrogate"),
        pytest.param('{"id": "ü"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b"{", id="brace"),
        pytest.param(b"{}", id="nothing"),
        pytest.param(b" {id: 1}", id="not-json"),
        pytest.param(b"{'id': 'x'}", id="single-quotes"),
        pytest.param(b'{"id": "x",}', id="comma"),
        pytest.param(b'{"id": "x"} {"id": "x"}', id="two"),
        pytest.param(b'{"id": "a\nb"}', id="line-break-in-a-string"),
        pytest.param(b'{"id": ' + b"9" * 10_000 + b"}", id="endless-number"),
        pytest.param(b'{"id": ' + HUGE, id="deep"),
        pytest.param(b'{"x":' * 100_000 + b"1" + b"}" * 100_000, id="deep-objects"),
        pytest.param(
            b'{"id": "x", "x": ' + HUGE + HUGE.replace(b"[", b"]") + b"}", id="deep-closed"
        ),
        pytest.param(b'{"id": NaN}', id="nan"),
    ],
)
async def test_what_is_not_a_request_is_invalid(people_service, subject, payload):
    """A payload that cannot be read is invalid_request, on every subject."""
    answer = await people_service.ask(f"users.{subject}", payload)

    assert ("invalid_request", "400") == (answer.code, answer.headers["Nats-Service-Error-Code"])


@pytest.mark.parametrize(
    ("subject", "request_", "field"),
    [
        ("get", {"id": 7}, "id"),
        ("get", {"id": None}, "id"),
        ("get", {"id": {"id": "x"}}, "id"),
        ("get", {"organizationId": "x"}, "id"),
        ("get", {"id": "x", "organizationId": 1}, "organizationId"),
        ("get", {"id": "x", "organization_id": []}, "organizationId"),
        ("by_email", {"email": ["x"]}, "email"),
        ("by_email", {"organizationId": "x"}, "email"),
        ("by_email", {"email": "x", "organizationId": False}, "organizationId"),
        ("org_list", {"organizationId": None}, "organizationId"),
        ("org_list", {"limit": 1}, "organizationId"),
        ("org_list", {"organizationId": "x", "limit": 0}, "limit"),
        ("org_list", {"organizationId": "x", "limit": -1}, "limit"),
        ("org_list", {"organizationId": "x", "limit": 501}, "limit"),
        ("org_list", {"organizationId": "x", "limit": 10**30}, "limit"),
        ("org_list", {"organizationId": "x", "limit": True}, "limit"),
        ("org_list", {"organizationId": "x", "limit": 1.5}, "limit"),
        ("org_list", {"organizationId": "x", "limit": "1"}, "limit"),
        ("org_list", {"organization_id": "x", "limit": 501}, "limit"),
        ("org_list", {"organizationId": "x", "cursor": 1}, "cursor"),
        ("org_list", {"organizationId": "x", "cursor": "!"}, "cursor"),
        ("get_many", {"ids": "x"}, "ids"),
        ("get_many", {"ids": None}, "ids"),
        ("get_many", {"ids": {}}, "ids"),
        ("get_many", {"ids": []}, "ids"),
        ("get_many", {"ids": [1]}, "ids"),
        ("get_many", {"ids": ["x", None]}, "ids"),
        ("get_many", {"ids": [["x"]]}, "ids"),
        ("get_many", {"ids": ["x"] * 501}, "ids"),
        ("get_many", {"ids": ["x"], "organizationId": 1}, "organizationId"),
        ("get_many", {"organizationId": "x"}, "ids"),
    ],
)
async def test_a_wrong_value_is_invalid_and_its_field_is_named(
    people_service, subject, request_, field
):
    """A value of another type, missing, or over a limit is refused, and the message names it."""
    answer = await people_service.ask(f"users.{subject}", request_)

    code, message = problem(answer)
    assert "invalid_request" == code
    assert field in message.replace(":", "").replace("[", " ").split()


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_limits_are_kept(people_service, cast, limit):
    """A page holds as many users as asked for, while there are more."""
    answer = await people_service.ask(
        "users.org_list", {"organizationId": cast.organization.id, "limit": limit}
    )

    assert min(limit, 184) == len(answer.json["users"])


async def test_the_default_limit_is_100(people_service, cast):
    """Without a limit a page holds 100 users."""
    answer = await people_service.ask("users.org_list", {"organizationId": cast.organization.id})

    assert 100 == len(answer.json["users"])


@pytest.mark.parametrize(
    "request_",
    [
        lambda key: {"id": "x", key: 1},
        lambda key: {"email": "x", "organizationId": "x", key: {key: key}},
        lambda key: {**{f"{key}{n}": n for n in range(300)}, "id": "x"},
    ],
)
@pytest.mark.parametrize(
    "char", ["k", "\n", "\r", "\0", "\x1b", "\u202e", "ü", "\ud800", "🎸", "\x7f"]
)
async def test_what_an_error_echoes_is_short_and_printable(people_service, request_, char):
    """Of a request an error shows at most 64 characters, each of them printable."""
    plain = (await people_service.ask("users.get", {"k": 1})).json["message"].removesuffix("k")
    answer = await people_service.ask("users.get", request_(char * 100))

    message = answer.json["message"]
    assert "invalid_request" == answer.code
    assert len(message) <= len(plain) + 64
    assert message.isprintable()
    assert message == answer.headers["Nats-Service-Error"]


# Batches.


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


async def test_many_of_nobody(people_service):
    """Where none of the ids is anyone's, all are missing and there are no users."""
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
    """A user who does not fit even without the image is payload_too_large, and nobody else is."""
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


async def test_a_row_that_cannot_be_read_is_internal(start_with, cast):
    """A bug says only that it is one, and spoils nobody else's answer."""
    service = await start_with(
        "alter table users rename to people",
        f"""create view users as select id, email, "emailVerified", "createdAt",
            case when id = '{cast.viewer.id}' then (1 / (length(name) * 0))::text else name end
            as name from people""",
        RESPONDER_USERS_TABLE="users",
    )
    people = [cast.owner, cast.viewer, cast.staff] * 10
    answers = await asyncio.gather(*(service.ask("users.get", person.id) for person in people))

    expected = ["internal" if person is cast.viewer else None for person in people]
    assert expected == [answer.code for answer in answers]
    assert {"code": "internal", "message": "internal error"} == answers[1].json
    assert "500" == answers[1].headers["Nats-Service-Error-Code"]


async def test_too_much_waiting_is_unavailable(start_with, cast):
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
        (lambda users: users.reply_bytes(GET, b""), InvalidRequestError),
        (lambda users: users.get("x" * 2_000_000), PayloadTooLargeError),
    ],
)
async def test_the_client_raises_the_errors_of_the_contract(people_service, ask, error):
    """UsersClient raises the class of the code that was answered."""
    with pytest.raises(error):
        await ask(people_service.users)


# Subjects.


async def test_a_request_without_a_reply_subject_is_ignored(service, cast):
    """What nobody waits for is not answered and not counted, and the service lives on."""
    for subject in (*SUBJECTS, "nothing"):
        for payload in (b"", b"\xff", HUGE, json.dumps({"id": cast.owner.id}).encode()):
            await service.nc.publish(f"users.{subject}", payload)
            await service.nc.publish(f"users.{subject}", payload, headers={"X": "y"})
    answer = await service.ask("users.get", {"id": cast.owner.id})

    stats = (await service.ask("$SRV.STATS.users")).json
    assert cast.owner.id == answer.json["id"]
    assert {"get": 1, "by_email": 0, "org_list": 0, "get_many": 0, "whoami": 0} == {
        endpoint["name"]: endpoint["num_requests"] for endpoint in stats["endpoints"]
    }


async def test_the_prefix_is_a_setting(start_with, cast, requests):
    """With another prefix every subject moves, and the name of the service stays."""
    service = await start_with(RESPONDER_SUBJECT_PREFIX="acme.people")
    answers = {
        subject: (await service.ask(f"acme.people.{subject}", requests[subject])).code
        for subject in SUBJECTS
    }

    info = (await service.ask("$SRV.INFO.users")).json
    assert dict.fromkeys(SUBJECTS) == answers
    assert [f"acme.people.{subject}" for subject in (*SUBJECTS, "whoami")] == [
        endpoint["subject"] for endpoint in info["endpoints"]
    ]
    assert cast.owner.id == (await service.users.get(cast.owner.id)).id
    with pytest.raises(nats.errors.NoRespondersError):
        await service.ask("users.get", requests["get"])


async def test_nobody_listens(people_service):
    """UsersClient raises unavailable where no worker listens."""
    async with UsersClient.connect(people_service.nats.url, prefix="nobody") as users:
        with pytest.raises(UnavailableError, match="no worker"):
            await users.get("x")


# Headers.


@dataclass
class Raw:
    """A NATS client that sends what no library would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, subject, payload, block=None, *, reply):
        """Send a message, with these bytes as its headers."""
        if block is None:
            self.writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))
        else:
            size = len(block)
            self.writer.write(
                b"HPUB %b %b %d %d\r\n%b%b\r\n"
                % (subject, reply, size, size + len(payload), block, payload)
            )
        await self.writer.drain()

    async def ask(self, subject, payload, block=None, *, reply=b"_INBOX.raw"):
        """Send a request; return the headers of its reply and its body."""
        self.writer.write(b"SUB %b 1\r\nUNSUB 1 1\r\n" % reply)
        await self.send(subject, payload, block, reply=reply)
        while True:
            line = await self.reader.readline()
            if line.startswith((b"MSG ", b"HMSG ")):
                break
            assert not line.startswith(b"-ERR"), line
            assert line, "the server has closed the connection"
        verb, *_, size = line.split()
        content = await self.reader.readexactly(int(size) + 2)
        head = int(line.split()[-2]) if verb == b"HMSG" else 0
        return content[:head], content[head:-2]


@asynccontextmanager
async def raw(service):
    """Connect a raw client."""
    host, port = service.nats.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(
        b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,'
        b'"protocol":1}\r\n'
    )
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


UNDECODABLE = {
    "not-utf8": b"NATS/1.0\r\nX: \xff\r\n\r\n",
    "name-not-utf8": b"NATS/1.0\r\n\xff: x\r\n\r\n",
    "not-nats": b"HTTP/1.1\r\nX: y\r\n\r\n",
    "nats-2": b"NATS/2.0\r\nX: y\r\n\r\n",
    "garbage": b"\x00\x01\x02\xff",
    "no-version": b"X: y\r\n\r\n",
    "no-colon": b"NATS/1.0\r\nhello\r\n\r\n",
    "no-name": b"NATS/1.0\r\n: hello\r\n\r\n",
    "blank-before-the-colon": b"NATS/1.0\r\nAuthorization : Bearer x\r\n\r\n",
    "folded": b"NATS/1.0\r\nX: y\r\n Authorization: Bearer x\r\n\r\n",
    "empty": b"\r\n",
    "blank": b" ",
}


@pytest.mark.parametrize("block", UNDECODABLE.values(), ids=UNDECODABLE)
async def test_headers_that_cannot_be_decoded_are_invalid(people_service, cast, block):
    """A request whose headers cannot be decoded is invalid_request, whatever it asks for."""
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "invalid_request" == json.loads(body)["code"]


async def worker_connection(service):
    """Return the server's number of the worker's connection, which a reconnect would change."""
    ports = service.nats.directory / f"nats-server_{service.nats.pid}.ports"
    (url,) = json.loads(ports.read_text())["monitoring"]
    async with httpx.AsyncClient(trust_env=False) as client:
        connections = (await client.get(f"{url}/connz")).json()["connections"]
    (number,) = (each["cid"] for each in connections if each.get("name") == "responder")
    return number


async def test_headers_that_cannot_be_decoded_disturb_nobody(start_with, cast):
    """While such requests pour in, all others are answered, over the same connection."""
    service = await start_with(config='http: "127.0.0.1:-1"')
    before = await worker_connection(service)
    bad = list(product(SUBJECTS, UNDECODABLE.values(), range(20)))
    async with raw(service) as client:
        for subject, block, _ in bad:
            await client.send(f"users.{subject}".encode(), b"x", block, reply=b"_INBOX.nobody")
        answers = await asyncio.gather(
            *(service.ask("users.get", {"id": cast.owner.id}) for _ in range(300))
        )
        await client.ask(b"users.get", b"nobody")

    stats = (await service.ask("$SRV.STATS.users")).json
    assert [cast.owner.id] * 300 == [answer.json["id"] for answer in answers]
    assert len(bad) + 1 == sum(endpoint["num_errors"] for endpoint in stats["endpoints"])
    assert before == await worker_connection(service)


async def test_a_reply_subject_that_is_not_utf8_does_no_harm(start_with, cast):
    """Whoever wants the reply on a subject of odd bytes gets it there, and the service lives on."""
    service = await start_with(config='http: "127.0.0.1:-1"')
    before = await worker_connection(service)
    async with raw(service) as client:
        payload = cast.owner.id.encode()
        bare = await client.ask(b"users.get", payload, reply=b"_INBOX.\xff\xfe")
        block = b"NATS/1.0\r\nX: y\r\n\r\n"
        with_headers = await client.ask(b"users.get", payload, block, reply=b"_INBOX.\xc3\x28")

    assert [cast.owner.id] * 2 == [json.loads(body)["id"] for _, body in (bare, with_headers)]
    assert before == await worker_connection(service)


async def test_a_service_description_asked_for_on_odd_bytes_does_no_harm(people_service):
    """The same holds for $SRV."""
    async with raw(people_service) as client:
        _, body = await client.ask(
            b"$SRV.PING", b"", b"NATS/1.0\r\nX: \xff\r\n\r\n", reply=b"_INBOX.\xff\xfe"
        )

    assert "users" == json.loads(body)["name"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "rubbish",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ü" * 5_000,
    ],
)
async def test_traceparent_is_never_required(people_service, cast, value):
    """A trace that is absent, good or rubbish changes no answer."""
    headers = {"traceparent": value} if value is not None else None
    answer = await people_service.ask("users.get", {"id": cast.owner.id}, headers=headers)

    assert cast.owner.id == answer.json["id"]


async def test_other_headers_are_ignored(people_service, cast):
    """Headers of others, even repeated or empty or with a status, change no answer."""
    block = b"NATS/1.0 100 Idle\r\nX: 1\r\nx: 2\r\nNats-Service-Error-Code: 400\r\nEmpty:\r\n\r\n"
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert cast.owner.id == json.loads(body)["id"]


# Whoever sends a token asks on behalf of its user, and is never answered as a service.

TOKENS = {
    "bearer": ("Authorization: Bearer a.b.c", "unavailable"),
    "any-case-of-the-name": ("authorization: Bearer a.b.c", "unavailable"),
    "capitals": ("AUTHORIZATION: Bearer a.b.c", "unavailable"),
    "any-case-of-the-scheme": ("aUthOrization: bearer a.b.c", "unavailable"),
    "no-blank-after-the-colon": ("Authorization:Bearer a.b.c", "unavailable"),
    "empty": ("Authorization:", "unauthenticated"),
    "blank": ("authorization:   ", "unauthenticated"),
    "no-token": ("Authorization: Bearer", "unauthenticated"),
    "blank-token": ("Authorization: Bearer  ", "unauthenticated"),
    "no-scheme": ("Authorization: a.b.c", "unauthenticated"),
    "another-scheme": ("Authorization: Basic eDp5", "unauthenticated"),
    "a-longer-scheme": ("Authorization: BearerToken a.b.c", "unauthenticated"),
    "repeated": (
        "Authorization: Bearer a.b.c\r\nAuthorization: Bearer a.b.c",
        "unauthenticated",
    ),
    "repeated-in-other-cases": (
        "Authorization: Bearer a.b.c\r\nX: y\r\nauthorization: Bearer a.b.c",
        "unauthenticated",
    ),
    "repeated-and-empty": ("Authorization: Bearer a.b.c\r\nauthorization:", "unauthenticated"),
}


@pytest.mark.parametrize(("lines", "code"), TOKENS.values(), ids=TOKENS)
@EVERY_SUBJECT
async def test_a_caller_with_a_token_is_never_a_service(
    people_service, requests, subject, lines, code
):
    """A token in any form is refused while there are no keys to verify it with."""
    block = f"NATS/1.0\r\n{lines}\r\n\r\n".encode()
    payload = json.dumps(requests[subject]).encode()
    async with raw(people_service) as client:
        _, body = await client.ask(f"users.{subject}".encode(), payload, block)

    assert code == json.loads(body).get("code")
    assert "a.b.c" not in body.decode()


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\nAuthorization: Bearer a.b.c\n\n",
        b"NATS/1.0\nAuthorization: Bearer a.b.c\r\n\r\n",
        b"NATS/1.0\r\nX: y\nAuthorization: Bearer a.b.c\r\n\r\n",
    ],
)
async def test_a_token_behind_odd_line_ends_is_never_overlooked(people_service, cast, block):
    """Lines that end as other readers of headers allow are refused, not passed over."""
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "code" in json.loads(body)


# Timeouts.


async def test_a_caller_may_want_its_answer_sooner(start_with, cast):
    """The timeout a caller sends, in any case of its name, is when it is answered at the latest."""
    service = await start_with()
    names = ("Responder-Timeout-Ms", "responder-timeout-ms", "RESPONDER-TIMEOUT-MS")
    now = asyncio.get_running_loop().time
    async with locked(service):
        start = now()
        answers = await asyncio.gather(
            *(service.ask("users.get", cast.owner.id, headers={name: "100"}) for name in names)
        )
        elapsed = now() - start

    assert [("timeout", "504")] * 3 == [
        (answer.code, answer.headers["Nats-Service-Error-Code"]) for answer in answers
    ]
    assert 0.1 <= elapsed < 1


async def test_a_caller_may_not_wait_longer_than_the_worker_allows(start_with, cast):
    """A timeout beyond the worker's is cut to it."""
    service = await start_with(RESPONDER_TIMEOUT="0.3")
    now = asyncio.get_running_loop().time
    async with locked(service):
        start = now()
        answer = await service.ask(
            "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": "60000"}
        )
        elapsed = now() - start

    assert "timeout" == answer.code
    assert elapsed < 1.5


async def test_a_generous_timeout_is_fine(people_service, cast):
    """A timeout of many years is one of the worker."""
    answer = await people_service.ask(
        "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": "9" * 12}
    )

    assert cast.owner.id == answer.json["id"]


@pytest.mark.parametrize("value", ["0", "00"])
async def test_a_caller_who_has_given_up_is_told_so(people_service, cast, value):
    """With no time left the answer is timeout."""
    answer = await people_service.ask(
        "users.get", {"id": cast.owner.id}, headers={"Responder-Timeout-Ms": value}
    )

    assert "timeout" == answer.code


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-1", "+1", "1.5", "1e3", "0x10", "1_000", "1 000", "٣", "²", "9" * 400, "NaN"],
)
async def test_a_timeout_that_is_no_number_is_invalid(people_service, cast, value):
    """Anything but a whole number of milliseconds is invalid_request, and names the header."""
    block = f"NATS/1.0\r\nresponder-timeout-ms: {value}\r\n\r\n".encode()
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    answer = json.loads(body)
    assert "invalid_request" == answer.get("code")
    assert "Responder-Timeout-Ms" in answer["message"]


async def test_two_timeouts_are_invalid(people_service, cast):
    """A repeated timeout is invalid_request, even with the same value and in another case."""
    block = b"NATS/1.0\r\nResponder-Timeout-Ms: 1000\r\nresponder-timeout-ms: 1000\r\n\r\n"
    async with raw(people_service) as client:
        _, body = await client.ask(b"users.get", cast.owner.id.encode(), block)

    assert "invalid_request" == json.loads(body).get("code")


LOG_EVERYTHING = """
do $$ begin
    execute format('alter database %I set log_min_duration_statement = 0', current_database());
end $$
"""


async def test_work_whose_caller_has_given_up_never_reaches_postgresql(start_with, cast, postgres):
    """What has expired while it waited for a connection is not looked up any more."""
    service = await start_with(LOG_EVERYTHING, RESPONDER_CONNECTIONS="1")
    async with locked(service):
        first = asyncio.create_task(service.ask("users.get", "the first in line"))
        await service.nc.flush()
        sooner = {"Responder-Timeout-Ms": "50"}
        given_up = await asyncio.gather(
            service.ask("users.get", "given-up-at-once", {"Responder-Timeout-Ms": "0"}),
            service.ask("users.by_email", "given-up@example.com", sooner),
            service.ask("users.org_list", "given-up-list", sooner),
            service.ask("users.get_many", {"ids": ["given-up-many"]}, sooner),
        )
    await first
    last = await service.ask("users.get", "the last in line")

    log = postgres.log.read_text()
    assert ["timeout"] * 4 == [answer.code for answer in given_up]
    assert "not_found" == last.code
    assert "the last in line" in log
    assert "given-up" not in log
