"""Whatever is asked for over HTTP, the answer is one that the OpenAPI document describes."""

# Requests are made from the document itself: each of its operations, with parameters that are
# there, missing, repeated, unknown or of any text, and with tokens of every kind. A route or a
# parameter that is added to the document is asked for without a change here.

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from responder.dev.tokens import Mint
from tests.fuzz.budget import SECONDS, SEED, TIMEOUT
from tests.raw_http import Answer, connected, get

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(TIMEOUT)]

REQUESTS = 8  # of an example, which are sent at once
EXAMPLES = max(1, int(SECONDS * 20))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PLAIN = st.sampled_from(["", "0", "1", "-1", "500", "501", "null", "true", "a,b", ".", "..", "\0"])


@pytest.fixture(scope="module")
async def site(template, create_database, start_for_module, tmp_path_factory, cast) -> Any:
    """A service, its document, and tokens of every kind."""
    mint = Mint()
    service = await start_for_module(
        await create_database(template=template[0]),
        **mint.publish(tmp_path_factory.mktemp("keys") / "jwks.json"),
        RESPONDER_HTTP_AUTH="required",
    )
    tokens = {
        "of a member": mint.token(cast.viewer.id),
        "of nobody": mint.token("nobody"),
        "expired": mint.token(cast.viewer.id, exp=1),
        "no token": "a.b.c",
    }
    texts = [cast.viewer.id, cast.viewer.email, cast.organization.id, "nobody"]
    return service, (await service.http.get("/openapi.json")).json(), tokens, texts


@st.composite
def questions(draw: st.DrawFn, document: Any, tokens: Any, texts: list[str]) -> tuple[Any, ...]:
    """Draw an operation, and a request for it: what the document has of it, and the bytes."""
    path, method = draw(
        st.sampled_from([(path, each) for path, item in document["paths"].items() for each in item])
    )
    operation = document["paths"][path][method]
    value = st.sampled_from(texts) | PLAIN | TEXT
    target, query = path, []
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            written = draw(value.filter(bool))  # a path has no empty segment
            target = target.replace(
                f"{{{parameter['name']}}}", quote_plus(written).replace("+", "%20")
            )
        else:
            query += [
                (parameter["name"], draw(value)) for _ in range(draw(st.sampled_from([0, 1, 1, 2])))
            ]
    if draw(st.integers(0, 9)) == 0:
        query.append((draw(TEXT), draw(value)))
    if query:
        target += f"?{urlencode(query)}"
    token = draw(st.sampled_from([*tokens.values(), tokens["of a member"], None]))
    head = b"Host: x\r\nConnection: close\r\n"
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n".encode()
    return operation, method, get(target, head, method=method.upper())


def look(document: Any, operation: Any, method: str, request: bytes, answer: Answer) -> None:
    """Make sure that an answer is one that an operation may have."""
    shown = (request, answer)
    assert answer.status != 500, shown
    responses = operation["responses"]
    described = responses.get(str(answer.status)) or responses.get("default")
    assert described, shown
    if method == "head":
        assert answer.body == b"", shown
        return
    content = described["content"][answer.header("content-type")]
    schema = {"components": document["components"], **content["schema"]}
    formats = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(schema, format_checker=formats).validate(answer.json)
    if answer.status >= 400:
        assert answer.status == answer.json["status"], shown
    for name in described.get("headers", ()):
        if name != "Link":  # only where Better Auth's address is known
            assert answer.header(name.lower()) is not None, shown


async def answers(url: object, drawn: list[tuple[Any, ...]]) -> list[Answer]:
    """Send requests at once, each on a connection of its own."""

    async def one(method: str, request: bytes) -> Answer:
        async with connected(url) as client:
            await client.send(request)
            answer = await client.answer(bodiless=method == "head")
            assert await client.rest() == b"", (request, answer)
            return answer

    return await asyncio.gather(*(one(method, request) for _, method, request in drawn))


# The service runs in another thread meanwhile, and uses `random`, of which Hypothesis would warn.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
async def test_every_answer_is_one_that_the_document_describes(site):
    """Status, type, headers and body of each answer are those of the document, and none is 500."""
    service, document, tokens, texts = site
    asked = set[tuple[str, int]]()

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(questions(document, tokens, texts), min_size=REQUESTS, max_size=REQUESTS))
    def ask(drawn: list[tuple[Any, ...]]) -> None:
        asking = asyncio.run_coroutine_threadsafe(answers(service.http.base_url, drawn), loop)
        for (operation, method, request), answer in zip(drawn, asking.result(), strict=True):
            look(document, operation, method, request, answer)
            asked.add((operation["operationId"], answer.status))

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(ask)

    print(f"{EXAMPLES * REQUESTS} requests, {len(asked)} kinds of answers")
    assert {operation for operation, _ in asked} == {
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    }
