"""A request is read in every form that subjects.md, Requests, allows, and in no other."""

from __future__ import annotations

import pytest

SUBJECTS = ("get", "by_email", "org_list", "get_many")  # which services ask
EVERY_SUBJECT = pytest.mark.parametrize("subject", SUBJECTS)
HUGE = b"[" * 200_000


def problem(answer):
    """Return the code of an error and its message."""
    return answer.code, answer.json["message"]


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
