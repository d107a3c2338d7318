"""A walk, page by page, through an organization of which every user is a member."""

# The members have the index that `responder check` recommends. Pages are asked for one at a time,
# so that what is spent between one page and the next is that page's cost. A tenth of the way is the
# shortest part whose cost the clock can resolve.

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import nats
from arena import servers
from contestants import RESPONDER, ready, running
from nats.aio.client import Client
from processes import spent, usages

ORGANIZATION = hashlib.md5(b"largest").hexdigest()
LIMIT = 100
PARTS = 10
WALKS = 20


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a page costs, by its place on the way."""
    async with servers() as shared:
        url = await shared.filled(arguments.users, largest=True)
        messages = shared.messages
        index = await _recommended(url, messages.url, messages.directory)
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(index)
            await connection.execute("vacuum analyze")
        finally:
            await connection.close()
        pages = arguments.users // LIMIT
        async with (
            running(RESPONDER, url, messages.url, directory=messages.directory) as worker,
            await nats.connect(messages.url) as client,
        ):
            await ready(client, RESPONDER, b'{"id":"none"}')
            pids = shared.processes(worker)
            await _walk(client, pids, pages)  # a first time, to warm up
            found = [await _walk(client, pids, pages) for _ in range(WALKS)]
    return {
        "index": index,
        "members": arguments.users,
        "walks": WALKS,
        "rows": [
            {
                "part": part,
                **{name: median(each[part][name] for each in found) for name in found[0][part]},
            }
            for part in range(PARTS)
        ],
    }


async def _walk(client: Client, pids: dict[str, int], pages: int) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(PARTS):
        before, began = usages(pids), time.perf_counter()
        for _ in range(pages // PARTS):
            request = {"organizationId": ORGANIZATION, "limit": LIMIT, "cursor": cursor}
            answer = await client.request(
                f"{RESPONDER.prefix}.org_list", json.dumps(request).encode(), timeout=5
            )
            page = json.loads(answer.data)
            seen.update(user["id"] for user in page["users"])
            cursor = page["nextCursor"]
        after, ended = usages(pids), time.perf_counter()
        cost = {name: spent(before[name], after[name]) * PARTS / pages for name in pids}
        found.append({"ms": (ended - began) * 1e3 * PARTS / pages, **cost})
    if cursor is not None or len(seen) != pages * LIMIT:
        raise SystemExit(f"{len(seen)} members seen in {pages} pages of {LIMIT}")
    return found


async def _recommended(url: str, nats_url: str, directory: Path) -> str:
    """Return the statement that `responder check` prints for the order of the members."""
    process = await asyncio.create_subprocess_exec(
        RESPONDER.command[0],
        "check",
        cwd=directory,
        env={**os.environ, "DATABASE_URL": url, "NATS_URL": nats_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    statement = re.search(r"create index [^;]*members[^;]*createdAt[^;]*;", said, re.IGNORECASE)
    if statement is None:
        raise SystemExit(f"responder check recommends no index for the members:\n{said}")
    return " ".join(statement[0].split())
