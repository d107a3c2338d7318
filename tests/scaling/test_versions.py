"""Two versions in one queue group, as in a rolling upgrade: ours, and one before.

The one before is that of the newest tag; RESPONDER_TEST_BESIDE=<revision> is another.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import nats as nats_py
import pytest
from nats.aio.client import Client

from responder.dev import nats
from responder.models import User
from tests.markdown import ROOT
from tests.scaling.workers import program

pytestmark = pytest.mark.heavy

TIMES = 30  # each request: that one of two workers gets none of them is a chance of 2 in 2 ** 30


def git(*arguments: str) -> bytes:
    """Return what git prints, nothing if it fails."""
    found = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    return found.stdout


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The source of the other version."""
    newest = git("describe", "--tags", "--abbrev=0", "HEAD^").decode().strip()
    revision = os.environ.get("RESPONDER_TEST_BESIDE", newest)
    if not revision:
        pytest.skip("no tag yet")
    directory = tmp_path_factory.mktemp("other")
    archive = git("archive", revision, "responder")
    assert archive, f"there is no {revision}"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module")
async def client(other, people_service, tmp_path_factory) -> AsyncIterator[Client]:
    """A program that asks, with a worker of each version in one queue group."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats.running())
        for source in (other, ROOT):
            await stack.enter_async_context(
                program(
                    directory=tmp_path_factory.mktemp("service"),
                    PYTHONPATH=str(source),
                    DATABASE_URL=people_service.url,
                    NATS_URL=server.url,
                )
            )
        yield await stack.enter_async_context(await nats_py.connect(server.url))


async def ask(client: Client, subject: str, payload: object) -> tuple[Any, str | None]:
    """Return an answer, and the code of an error."""
    reply = await client.request(subject, json.dumps(payload).encode(), timeout=10)
    return json.loads(reply.data), (reply.headers or {}).get("Nats-Service-Error-Code")


async def test_both_answer_alike(client, cast):
    """Each answer has what the contract had before, whichever of the two gives it."""
    asked = [
        ("users.get", {"id": cast.owner.id}),
        ("users.by_email", {"email": cast.owner.email}),
        ("users.get_many", {"ids": [cast.owner.id, "nobody"]}),
        ("users.get", {"id": "nobody"}),
        ("users.get", {"unknown": 1}),
    ]
    required = {field.alias for field in User.model_fields.values()} - {"additionalFields"}
    for subject, payload in asked:
        answers = [await ask(client, subject, payload) for _ in range(TIMES)]
        known = []
        for value, code in answers:
            user = value["users"][0] if "users" in value else value
            assert code or required <= user.keys()
            known.append((code, json.dumps({key: user.get(key) for key in required})))
        assert 1 == len(Counter(known)), known

    stats = [json.loads(each)["endpoints"] for each in await every(client, "$SRV.STATS.users")]
    assert 2 == len(stats)
    assert all(endpoint["num_requests"] > 0 for endpoint in stats[0][:1] + stats[1][:1])


async def every(client: Client, subject: str) -> list[bytes]:
    """Return the replies of both workers."""
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(subject, reply=inbox)
    found = [(await replies.next_msg(timeout=10)).data for _ in range(2)]
    await replies.unsubscribe()
    return found


async def test_a_cursor_of_one_is_good_for_the_other(client, cast):
    """A walk, whose pages come from either, shows each member once."""
    seen: list[str] = []
    request: dict[str, Any] = {"organizationId": cast.organization.id, "limit": 3}
    for _ in itertools.count():
        page, code = await ask(client, "users.org_list", request)
        assert code is None, page
        seen += [user["id"] for user in page["users"]]
        if page["nextCursor"] is None:
            break
        request["cursor"] = page["nextCursor"]
    whole, _ = await ask(client, "users.org_list", {**request, "cursor": None, "limit": 500})

    assert [user["id"] for user in whole["users"]] == seen
