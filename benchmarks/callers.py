"""Requests on behalf of distinct callers, each with a token of their own."""

# A caller asks for a colleague: another member of the one organization that both are in. So the
# rules of visibility are applied, and a platform admin's rights do not spare them.

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from data import People
from lookups import Judge, Lookup
from traffic import WARM_UP, Request, shuffled

from responder.dev.tokens import Mint

KINDS = {"callers-1": 1, "callers-100": 100, "callers-10000": 10_000, "callers-new": None}
# What Better Auth's jwt plugin puts into a token: the user's row.
CLAIMS = ("id", "email", "emailVerified", "name", "image", "role", "banned", "isAnonymous")
VARIETY = 20_000  # different requests, before they repeat
NEW = 12_000  # tokens for each second: more than can be verified


class Callers:
    """Callers among the users, and tokens for them.

    Args:
        people: the users.
        mint: signs tokens that the contestant accepts.
    """

    def __init__(self, people: People, mint: Mint) -> None:
        self._people = people
        self._mint = mint
        self._numbers = people.callers()
        random.shuffle(self._numbers)
        self._tokens: dict[int, bytes] = {}
        self._new = itertools.count()
        judge = Judge(people)
        self.lookup = Lookup(
            name="get", keys=[], head=b'{"id":"', tail=b'"}', is_right=judge.colleague
        )

    def requests(self, kind: str, seconds: float) -> Iterator[Request]:
        """Return the requests of so many callers; with `callers-new` each token is a new one.

        Of new tokens there are as many as anything could verify in these seconds.
        """
        count = KINDS[kind]
        if count is None:
            asking = itertools.cycle(self._numbers)
            several = round(NEW * (seconds + WARM_UP))
            return iter([self._request(next(asking), new=True) for _ in range(several)])
        if count > len(self._numbers):
            raise SystemExit(f"{kind} needs more --users")
        asking = itertools.cycle(self._numbers[:count])
        several = max(VARIETY, count)
        return shuffled([self._request(next(asking)) for _ in range(several)])

    def _request(self, caller: int, *, new: bool = False) -> Request:
        colleague = random.choice(self._people.colleagues(caller))
        if new:
            token = self._token(caller)
        elif caller in self._tokens:
            token = self._tokens[caller]
        else:
            token = self._tokens[caller] = self._token(caller)
        return self._people.id(colleague), token

    def _token(self, caller: int) -> bytes:
        user = self._people.user(caller)
        claims = {name: user[name] for name in CLAIMS}
        return self._mint.token(user["id"], **claims, jti=str(next(self._new))).encode()
