"""Callers who do nothing wrong, and whose every answer has to be right, whatever others do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from responder.client import UsersClient
from responder.dev.tokens import Mint
from tests.fuzz.budget import Budget
from tests.raw_http import ask_once, get


@dataclass
class Honest:
    """Ask over NATS and HTTP, as a service and as a caller, and for health.

    What is right is what was answered before anything else happened.
    """

    users: UsersClient
    http: httpx.AsyncClient  # with kept connections
    admin: httpx.AsyncClient
    mint: Mint
    person: str
    organization: str
    right: dict[str, Any] = field(default_factory=dict)
    asked: int = 0

    async def begin(self) -> None:
        """Learn what is right."""
        self.right = await self._answers()
        assert self.person == self.right["service"].id == self.right["caller"].id
        assert self.right["list"]
        assert (self.right["new connection"], self.right["kept connection"]) == (200, 200)

    async def go_on(self, budget: Budget) -> None:
        """Ask, and compare, until the time is over."""
        while budget.left:
            assert self.right == await self._answers()
            self.asked += 1
            await asyncio.sleep(0)

    async def _list(self) -> list[Any]:
        return [each async for each in self.users.org_list(self.organization)]

    async def _answers(self) -> dict[str, Any]:
        token = self.mint.token(self.person)
        on_behalf, path = self.users.on_behalf_of(token), f"/api/v1/users/{self.person}"
        bearer = {"Authorization": f"Bearer {token}"}
        head = f"Host: x\r\nAuthorization: Bearer {token}\r\n".encode()
        asked: dict[str, Coroutine[Any, Any, Any]] = {
            "service": self.users.get(self.person),
            "caller": on_behalf.get(self.person),
            "many": self.users.get_many([self.person, "nobody"]),
            "list": self._list(),
            "new connection": ask_once(self.http.base_url, get(path, head)),
            "kept connection": self.http.get(path, headers=bearer),
            "/live": self.admin.get("/live"),
            "/ready": self.admin.get("/ready"),
        }
        answers = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
        for name in ("new connection", "kept connection"):
            reply = answers[name]
            body = reply.body if name == "new connection" else reply.content
            assert msgspec.json.decode(body)["id"] == self.person, body
            answers[name] = 200 if name == "new connection" else reply.status_code
        return answers | {each: answers[each].status_code for each in ("/live", "/ready")}
