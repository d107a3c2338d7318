"""Tokens wait for fair turns to be verified, and apart from those for a key not yet known."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest

from responder.errors import UnauthenticatedError, UnavailableError
from responder.models import Identity
from responder.tokens import verifying as verifying_module
from responder.tokens.issuer import TrustedIssuer
from responder.tokens.key_set import KeySet
from responder.tokens.shared_secret import SharedSecrets
from responder.tokens.verifier import MAX_DOUBTED, TokenVerifier
from responder.tokens.verifying import MAX_QUEUED, MAX_WITHOUT_KEY, PLACE, Verifying
from tests.signing import (
    CLAIMS,
    ED,
    GOOD,
    ISSUER,
    KEYS,
    KID,
    NOW,
    OTHER,
    claims,
    header,
    jwk,
    sign,
    sign_by_secret,
    trusted,
)
from tests.signing import key_set as keys_of

SECRET = "the secret of an application; not short"
ACCEPTED_BY_SECRET = trusted(secrets=SharedSecrets([SECRET]))
ACCEPTED = TrustedIssuer(key_set_url="", issuers=[ISSUER], audiences=[ISSUER], token_url="")
PATIENCE = 60.0  # seconds until the deadline of a token, where none is to pass


@dataclass
class Downloads:
    """A key source whose downloads end when a test says so."""

    key_set: KeySet | None = field(default_factory=lambda: KEYS)
    under_way: asyncio.Future[None] | None = None
    begun: int = 0

    def newer(self) -> asyncio.Future[None]:
        if self.under_way is None:
            self.under_way = asyncio.get_running_loop().create_future()
            self.begun += 1
        return self.under_way

    def known(self) -> KeySet:
        if self.key_set is None:
            raise UnavailableError("no keys")
        return self.key_set

    def verdict(self, refusal: UnauthenticatedError) -> UnauthenticatedError:
        return refusal

    def end(self, key_set: KeySet | None) -> None:
        assert self.under_way
        self.key_set = key_set
        self.under_way.set_result(None)
        self.under_way = None


class Asked:
    """Tokens that were given to be verified, and the answers in the order in which they came."""

    def __init__(
        self, keys: Downloads | None = None, accepted: TrustedIssuer | None = None
    ) -> None:
        self.keys = keys or Downloads()
        tokens = TokenVerifier(self.keys, accepted or ACCEPTED, clock=lambda: NOW)  # type: ignore[arg-type]  # what a connection is to it
        self.verifying = Verifying(tokens)
        self.answers: list[tuple[str, Identity | Exception]] = []

    def ask(
        self,
        token: str,
        name: str = "",
        *,
        sender: str = "flood",
        size: int = 0,
        patience: float = PATIENCE,
    ) -> None:
        self.verifying.add(
            token,
            sender=sender.encode(),
            size=size,
            deadline=asyncio.get_running_loop().time() + patience,
            callback=lambda answer: self.answers.append((name, answer)),
        )

    def flood(self, tokens: list[str], **options: str | int) -> int:
        """Ask for all; return how many found a place."""
        found = 0
        for each in tokens:
            try:
                self.ask(each, **options)  # type: ignore[arg-type]  # what a connection is to it
            except UnavailableError:
                continue
            found += 1
        return found

    async def all_answers(self) -> Counter[str]:
        """Wait for all, and count their kinds: user ids and messages.

        A download under way ends, and brings nothing new.
        """
        drained = asyncio.create_task(self.verifying.drained())
        async with asyncio.timeout(60):
            while not drained.done():
                if self.keys.under_way:
                    self.keys.end(self.keys.key_set)
                await asyncio.sleep(0)
        return Counter(
            each.user_id if isinstance(each, Identity) else str(each) for _, each in self.answers
        )

    def place_of(self, name: str) -> int:
        """Return how many were answered before the first of that name."""
        return [each for each, _ in self.answers].index(name)


_numbers = itertools.count()
_BODY, _, _SIGNATURE = GOOD.rpartition(".")


def forged(number: int, *, sub: str | None = None, kid: str = KID) -> list[str]:
    """Return tokens with a bad signature that costs as much as a good one; of one user, or many."""
    made = []
    for _ in range(number):
        at = next(_numbers)
        claimed = claims(sub=sub or f"forged {at}", jti=at)
        body, _, signature = sign(claimed, header(kid=kid)).rpartition(".")
        made.append(f"{body}.{'A' * 40}{signature[40:]}")
    return made


def good(number: int, prefix: str = "user") -> list[str]:
    return [sign(claims(sub=f"{prefix} {each}")) for each in range(number)]


BAD = "the signature does not verify"
UNKNOWN = "kid: no such key"


async def test_tokens_are_verified_in_turns_of_the_loop():
    """However many tokens wait, the loop has a turn for others every few tokens."""
    asked = Asked()
    for each in good(200):
        asked.ask(each)
    turns = 0
    while len(asked.answers) < 200:
        await asyncio.sleep(0)
        turns += 1

    assert {f"user {each}": 1 for each in range(200)} == await asked.all_answers()
    assert turns > 4


async def test_the_same_token_is_verified_once():
    """Requests with one token that arrive together share what its verification finds."""
    asked = Asked()
    for _ in range(300):
        asked.ask(GOOD)

    assert {CLAIMS["sub"]: 300} == await asked.all_answers()
    assert 1 == len({id(identity) for _, identity in asked.answers})


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param({"sub": "mallory"}, id="of one user"),
        pytest.param({"sub": CLAIMS["sub"]}, id="of the same user"),
        pytest.param({}, id="of many users"),
    ],
)
async def test_a_flood_of_another_sender_is_one_in_two(flood):
    """A token of another connection waits for a few of the flood's, and finds a place."""
    asked = Asked()
    asked.flood(forged(600, **flood))
    asked.ask(GOOD, "honest", sender="other")
    await asked.all_answers()

    assert asked.place_of("honest") <= 2


async def test_a_user_waits_for_no_flood_in_the_name_of_another():
    """Within a sender, such as the HTTP bridge, users take turns."""
    asked = Asked()
    asked.flood(forged(600, sub="mallory"))
    for each in good(10):
        asked.ask(each, "honest")
    await asked.all_answers()

    places = [at for at, (name, _) in enumerate(asked.answers) if name == "honest"]
    assert 10 == len(places)
    assert places[-1] <= 20


async def test_a_user_who_is_known_waits_for_no_flood_in_the_names_of_many():
    """Half of the turns are for users of whom a token has verified before."""
    asked = Asked()
    asked.ask(sign(claims(jti="earlier")))
    await asked.all_answers()
    asked.answers.clear()
    asked.flood(forged(600))
    asked.ask(GOOD, "honest")
    await asked.all_answers()

    assert asked.place_of("honest") <= 2


async def test_the_places_of_a_queue_are_shared():
    """A sender takes half of the places that are free, and a user half of what the sender may."""
    asked = Asked()

    of_one = asked.flood([GOOD] * MAX_QUEUED)
    of_the_sender = of_one + asked.flood(good(MAX_QUEUED))
    of_another = asked.flood([GOOD] * MAX_QUEUED, sender="other")

    assert MAX_QUEUED // 3 <= of_one <= MAX_QUEUED // 3 + 1
    assert MAX_QUEUED // 2 == of_the_sender
    assert 0 < of_another <= MAX_QUEUED // 4
    assert of_the_sender + of_another == sum((await asked.all_answers()).values())
    assert of_one == asked.flood([GOOD] * MAX_QUEUED)  # the places are free again
    await asked.all_answers()


async def test_what_a_request_holds_takes_places():
    """A large request takes places for its size, and a huge one finds one all the same."""
    asked = Asked()

    assert MAX_QUEUED // 2 // 11 == asked.flood(good(MAX_QUEUED // 8), size=10 * PLACE)
    asked.ask(GOOD, sender="other", size=100 * 1024 * 1024)
    await asked.all_answers()


@pytest.mark.heavy
async def test_unknown_keys_take_no_place_in_a_queue():
    """While the places of those that wait for a key are taken, other tokens are verified."""
    asked = Asked()
    stranger = sign(header=header(kid="new"), key=OTHER)
    senders = "abcdefghijklmn"
    waiting = sum(asked.flood([stranger] * MAX_WITHOUT_KEY, sender=each) for each in senders)
    assert MAX_WITHOUT_KEY == waiting
    with pytest.raises(UnavailableError, match="key that is not known"):
        asked.ask(stranger, sender="o")
    for each in good(300):
        asked.ask(each, "honest", sender="a")
    while len(asked.answers) < 300:
        await asyncio.sleep(0)

    assert {"honest": 300} == Counter(name for name, _ in asked.answers)
    assert 1 == asked.keys.begun
    asked.keys.end(KEYS)
    assert waiting == (await asked.all_answers())[UNKNOWN]


async def test_one_sender_leaves_others_places_to_wait_for_a_key():
    """A flood of unknown keys from one sender takes half of the places."""
    asked = Asked()
    stranger = sign(header=header(kid="new"), key=OTHER)

    assert MAX_WITHOUT_KEY // 2 == asked.flood([stranger] * MAX_WITHOUT_KEY)
    asked.ask(stranger, sender="other")
    asked.keys.end(KEYS)
    await asked.all_answers()


async def test_queued_tokens_overtake_those_whose_download_has_ended():
    """After a download, tokens that waited for it take turns with those that arrive."""
    asked = Asked()
    asked.flood([sign(header=header(kid="new"), key=OTHER)] * 2000)
    asked.keys.end(KEYS)
    for each in good(50):
        asked.ask(each, "honest")
    await asked.all_answers()

    places = [at for at, (name, _) in enumerate(asked.answers) if name == "honest"]
    assert places[-1] <= 150


async def test_a_download_that_brings_the_key_verifies_all_that_waited():
    """No token of a new key is refused, although there are more than a queue has places."""
    asked = Asked()
    new = [sign(claims(sub=f"{each}"), header(kid="new"), key=OTHER) for each in range(3000)]
    assert 3000 == asked.flood(new)
    asked.keys.end(keys_of(jwk(ED, kid=KID), jwk(OTHER, kid="new")))

    assert {str(each): 1 for each in range(3000)} == await asked.all_answers()


async def test_a_replaced_key_verifies_the_token_that_waited():
    """A token that its key has not signed verifies, if a download brings another under the id."""
    asked = Asked()
    asked.ask(sign(key=OTHER))
    while not asked.keys.begun:
        await asyncio.sleep(0)
    assert not asked.answers
    asked.keys.end(keys_of(jwk(OTHER, kid=KID)))

    assert {CLAIMS["sub"]: 1} == await asked.all_answers()


async def test_a_flood_of_bad_signatures_is_refused_at_once():
    """Only a few of them wait for the download; the others are refused without it."""
    asked = Asked()
    assert 600 == asked.flood(forged(600))
    while len(asked.answers) < 600 - MAX_DOUBTED // 2:
        await asyncio.sleep(0)
    assert 1 == asked.keys.begun

    assert {BAD: 600} == await asked.all_answers()
    assert 1 == asked.keys.begun  # a token waits once


async def test_a_token_of_a_secret_waits_for_no_key():
    """While no key set is known, a token of a secret is verified, or refused, without a wait."""
    asked = Asked(Downloads(None), ACCEPTED_BY_SECRET)
    asked.ask(GOOD, "key")
    asked.ask(sign_by_secret({**CLAIMS, "sub": "ann"}, SECRET), "good")
    asked.ask(sign_by_secret(CLAIMS, f"not {SECRET}"), "bad")

    while len(asked.answers) < 2:
        await asyncio.sleep(0)
    (_, good), (_, bad) = asked.answers

    assert isinstance(good, Identity)
    assert "ann" == good.user_id
    assert "the signature does not verify with RESPONDER_JWT_SECRET" == str(bad)
    await asked.all_answers()


async def test_without_any_keys_tokens_are_unavailable():
    """While no key set is known every token waits; if none comes, all are `unavailable`."""
    asked = Asked(Downloads(key_set=None))
    asked.ask(GOOD)
    asked.ask(sign(key=OTHER))
    asked.keys.end(None)

    assert {"no keys": 2} == await asked.all_answers()


async def test_a_token_that_no_key_helps_does_not_wait():
    """What is refused for its form or its header is refused at once."""
    asked = Asked()
    for token in ("session", "x" * 17_000, sign(header=header(alg="none")), f"e30.{_BODY}"):
        with pytest.raises(UnauthenticatedError):
            asked.ask(token)

    assert {} == await asked.all_answers()


async def test_a_token_is_answered_at_its_deadline():
    """An unknown key is `unavailable` then, a bad signature `unauthenticated`; others wait on."""
    asked = Asked()
    asked.ask(sign(header=header(kid="new"), key=OTHER), patience=0.05)
    asked.ask(sign(header=header(kid="new"), key=OTHER), patience=0.15)
    asked.ask(sign(key=OTHER), patience=0.1)
    asked.ask(sign(header=header(kid="other"), key=OTHER), "patient")
    async with asyncio.timeout(60):
        while len(asked.answers) < 3:
            await asyncio.sleep(0.01)
    kinds = {type(answer) for name, answer in asked.answers if not name}

    assert {"the token could not be verified in time": 2, BAD: 1} == Counter(
        str(answer) for name, answer in asked.answers
    )
    assert UnavailableError in kinds
    assert not any(name for name, _ in asked.answers)
    asked.keys.end(KEYS)
    await asked.all_answers()


async def test_a_queued_token_is_answered_at_its_deadline(monkeypatch):
    """A token whose deadline passes before its turn is `unavailable`, and is not verified."""
    monkeypatch.setattr(verifying_module, "TURN", 0.0)
    asked = Asked()
    asked.flood(good(1000))
    asked.ask(GOOD, "late", patience=-1)
    for each in good(5, "later"):
        asked.ask(each)
    answers = await asked.all_answers()

    assert 1 == answers["the token could not be verified in time"]
    assert asked.place_of("late") < 10
    assert 1006 == len(asked.answers) == sum(answers.values())


async def test_tokens_that_wait_can_be_failed():
    """Whatever a token waits for, it gets the error that ends the wait, and only that."""
    asked = Asked()
    asked.ask(sign(header=header(kid="new"), key=OTHER))
    asked.ask(sign(key=OTHER))
    while not asked.keys.begun:
        await asyncio.sleep(0)
    asked.ask(GOOD)
    asked.verifying.fail(UnavailableError("shutting down"))
    asked.keys.end(KEYS)

    assert {"shutting down": 3} == await asked.all_answers()


async def test_tokens_that_have_their_answer_are_let_go():
    """Nothing of a token that was refused stays in memory, nor waits for the garbage collector."""
    asked = Asked()
    gc.collect()
    gc.disable()
    try:
        asked.flood(forged(300))
        await asked.all_answers()
        asked.answers.clear()
        await asyncio.sleep(0)
        left = [each for each in gc.get_objects() if type(each).__name__ == "_Waiter"]
    finally:
        gc.enable()

    assert [] == left
