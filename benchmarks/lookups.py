"""What is asked of every contestant, and whether an answer is right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data import People

MANY = 50  # ids in a `get_many`
VARIETY = 20_000  # different `get_many`


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Requests of one kind: a key between a head and a tail, and what answers it."""

    name: str
    keys: Sequence[bytes]
    head: bytes
    tail: bytes
    is_right: Callable[[bytes, bytes], bool]  # the key, the answer
    holds: bytes | None = None  # what every answer holds, if not the end of its key

    def payload(self, key: bytes) -> bytes:
        """Return the request for a key."""
        return self.head + key + self.tail


def lookups(people: People) -> dict[str, Lookup]:
    """Return every lookup on these people, by name."""
    judge = Judge(people)
    ids = people.ids()
    many = [b'","'.join(random.sample(ids, MANY)) for _ in range(VARIETY)]
    every = (
        Lookup(name="get", keys=ids, head=b'{"id":"', tail=b'"}', is_right=judge.get),
        Lookup(
            name="by_email",
            keys=people.emails(),
            head=b'{"email":"',
            tail=b'"}',
            is_right=judge.by_email,
        ),
        Lookup(name="get_many", keys=many, head=b'{"ids":["', tail=b'"]}', is_right=judge.get_many),
        Lookup(
            name="org_list",
            keys=people.large_organizations(),
            head=b'{"organizationId":"',
            tail=b'","limit":100}',
            is_right=judge.org_list,
        ),
        Lookup(
            name="memberships",
            keys=[people.id(n) for n in people.club_members()],
            head=b'{"id":"',
            tail=b'"}',
            is_right=judge.memberships,
            holds=b'"organizationName"',
        ),
    )
    return {each.name: each for each in every}


class Judge:
    """Tells right answers from wrong ones, by the rules that made the tables."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._memberships = {people.id(n): people.memberships(n) for n in people.club_members()}
        self._organizations = {
            key.decode(): n
            for n, key in zip(
                (n for n in range(people.organizations) if n % 10),
                people.large_organizations(),
                strict=True,
            )
        }

    def get(self, key: bytes, answer: bytes) -> bool:
        """Whether this is the user with that id, with all fields and no others."""
        return self._is_user(json.loads(answer), id=key.decode())

    def colleague(self, key: bytes, answer: bytes) -> bool:
        """Whether this is the user with that id, as another member may see them."""
        user = json.loads(answer)
        right = self._claimed(user)
        return right is not None and user == {**right, "banReason": None, "id": key.decode()}

    def by_email(self, key: bytes, answer: bytes) -> bool:
        """Whether this is the user with that email."""
        return self._is_user(json.loads(answer), email=key.decode())

    def get_many(self, key: bytes, answer: bytes) -> bool:
        """Whether these are the users with those ids, in their order."""
        ids = key.decode().split('","')
        batch = json.loads(answer)
        users = batch.get("users", ())
        return (
            batch.keys() == {"users", "missing"}
            and batch["missing"] == []
            and len(users) == len(ids)
            and all(self._is_user(user, id=id_) for user, id_ in zip(users, ids, strict=True))
        )

    def org_list(self, key: bytes, answer: bytes) -> bool:
        """Whether this is the first page of that organization, and says that there is another."""
        page = json.loads(answer)
        return (
            page.keys() == {"users", "nextCursor"}
            and bool(page["nextCursor"])
            and page["users"] == self._people.page(self._organizations[key.decode()])
        )

    def memberships(self, key: bytes, answer: bytes) -> bool:
        """Whether these are the memberships of that user, each with its organization's name."""
        right = self._memberships[key]
        return bool(json.loads(answer) == {"memberships": right, "nextCursor": None})

    def _is_user(self, user: dict[str, Any], **asked: str) -> bool:
        return user == self._claimed(user) and asked.items() <= user.items()

    def _claimed(self, user: dict[str, Any]) -> dict[str, Any] | None:
        # The name says which user it claims to be, so that a million answers need not be kept.
        number = str(user.get("name", "")).rpartition(" ")[-1]
        return self._people.user(int(number)) if number.isdecimal() else None
