"""Tokens that wait: for a turn to be verified, and apart from those, for a key not yet known."""

# Strategy: to check a signature costs as much as many lookups. So tokens wait in a queue, and in
# each turn of the loop some of them are verified, until TURN has passed; between two turns other
# requests are answered. What is verified in one turn is looked up together.
#
# A flood of tokens that do not verify must not keep other tokens waiting. Nothing that an
# unverified token says can be trusted, but a flood has to say something, and to come from
# somewhere:
#
# - The senders of tokens take turns. A sender is what the reply subjects of a connection to NATS
#   have in common: a client is one, and so is the HTTP bridge.
# - The users for whom the tokens of a sender claim to speak take turns. A flood that claims to be
#   one user makes each other user wait for one of its tokens, and not for all of them.
# - A sender may take as many places as are still free: a flood from one takes half of them. A user
#   may take as many as the sender still may.
# - Half of the turns, in a queue of their own, are for users of whom a token has verified before. A
#   flood that claims to be a new user with each token leaves that queue alone.
# - A token whose key is not known waits in no queue, and takes no place there: it waits apart, for
#   the download that may bring its key (see `key_source`). So does a token that its key has not
#   signed, because the key may have been replaced under its id; of those only a few wait, and the
#   others are refused at once. After the download a token whose key is still unknown, or still the
#   same, is refused without a look at its signature; where the download failed, an unknown key may
#   still be a good one, and the answer is `unavailable`.
# - A token of a shared secret waits in the queue, too, and never apart. To check its signature is
#   cheap (2 µs), but to read its header and claims costs as much as two lookups do, so that a flood
#   of such tokens would keep requests waiting all the same.
#
# What waits is bounded: a token takes a place for every PLACE bytes of its request. What finds no
# place is refused at once.

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, TypeAlias, TypeVar

from responder.alarm import Alarm
from responder.errors import ResponderError, UnauthenticatedError, UnavailableError
from responder.models import Identity
from responder.tokens.identity import Unverified
from responder.tokens.key_set import KeySet, StaleKeyError, UnknownKeyError
from responder.tokens.verifier import MAX_DOUBTED, TokenVerifier

# A lookup takes about five turns of the loop, which are so much longer in a flood of tokens. With
# half of it, a request whose token is new costs a fifth more; with twice as much, a tenth less.
TURN: Final = 0.001  # seconds in a turn of the loop for which tokens are verified
PLACE: Final = 2048  # bytes of a request
MAX_PLACES: Final = 64  # that one request takes, however large it is

# Half of them, for one sender, are verified in less than a second, while a request has two.
MAX_QUEUED: Final = 4096  # places in each of the two queues
# Half of them are enough for a flood from one sender of 2,000 tokens a second, each of which waits
# for the 2 s that a request has.
MAX_WITHOUT_KEY: Final = 8192  # places of tokens that wait for a key
MAX_PROVEN: Final = 65_536  # users who are known to have had a token that verified

LATE: Final = "the token could not be verified in time"
TOO_MANY: Final = "too many tokens wait to be verified"
TOO_MANY_WITHOUT_KEY: Final = "too many tokens wait for a key that is not known"

Waits = TypeVar("Waits")
# Called once, with the identity that a token states, or with why there is none.
Callback: TypeAlias = Callable[[Identity | Exception], None]


class Verifying:
    """Verifies tokens in turns, and answers each by a call.

    Args:
        tokens: verifies them, and remembers those that are good.
    """

    def __init__(self, tokens: TokenVerifier) -> None:
        self._tokens = tokens
        self._proven = OrderedDict[int, None]()  # users, by the hash of their id
        self._proven_queue, self._new_queue = _Queue(), _Queue()
        self._queues = [self._proven_queue, self._new_queue]  # the second has the next turn
        self._without_key = _Room(MAX_WITHOUT_KEY)
        self._doubted = _Room(MAX_DOUBTED)
        # The tokens that wait for a download, and those whose download has ended.
        self._downloads: dict[asyncio.Future[None], list[_Waiter]] = {}
        self._again: deque[_Waiter] = deque()
        self._turn_is_due = False
        self._waiting: dict[_Waiter, None] = {}  # in order of arrival
        self._alarm = Alarm(self._waiting.keys, self._expire)
        self._idle = asyncio.Event()
        self._idle.set()

    def add(
        self, token: str, *, sender: bytes, size: int, deadline: float, callback: Callback
    ) -> None:
        """Let a token wait until it is verified.

        Args:
            token: the token.
            sender: what the tokens of one connection to NATS have in common.
            size: bytes of its request besides the token.
            deadline: the loop's time until which the answer is wanted.
            callback: called once, soon after `deadline` at the latest, and never from here. It must
                not raise.

        Raises UnauthenticatedError for what no key can make a good token, and UnavailableError if
        too much is waiting already, or if no more keys will come.
        """
        unverified = self._tokens.parse(token)
        places = min(1 + (len(token) + size) // PLACE, MAX_PLACES)
        waiter = _Waiter(unverified, sender, places, deadline, callback)
        if self._tokens.has_key_for(unverified):
            if not self._enqueue(waiter):
                raise UnavailableError(TOO_MANY)
        else:
            download = self._tokens.key_source.newer()
            if not self._without_key.admit(waiter):
                raise UnavailableError(TOO_MANY_WITHOUT_KEY)
            waiter.refusal = UnknownKeyError("kid: no such key")
            self._await(download, waiter)
        self._waiting[waiter] = None
        self._idle.clear()
        if deadline < self._alarm.at:
            self._alarm.set(deadline)

    async def drained(self) -> None:
        """Wait until every token has its answer."""
        await self._idle.wait()

    def fail(self, error: ResponderError) -> None:
        """Give this error to every token that waits."""
        for waiter in list(self._waiting):
            self._answer(waiter, error)

    def _answer(self, waiter: _Waiter, answer: Identity | Exception) -> None:
        """Answer a token, if it has no answer yet, and let go of it."""
        callback = waiter.callback
        if callback is None:
            return
        waiter.callback = waiter.token = waiter.refusal = None
        waiter.leave()
        del self._waiting[waiter]
        if not self._waiting:
            self._idle.set()
        callback(answer)

    def _expire(self, waiter: _Waiter) -> None:
        """Answer a token whose deadline has passed."""
        stale = isinstance(waiter.refusal, StaleKeyError)
        late = UnavailableError(LATE)
        self._answer(waiter, waiter.refusal if stale and waiter.refusal else late)

    # In a queue.

    def _enqueue(self, waiter: _Waiter) -> bool:
        """Let a token wait in its queue; tell whether it found a place there."""
        queue = self._proven_queue if waiter.user in self._proven else self._new_queue
        if not queue.admit(waiter):
            return False
        self._have_turn()
        return True

    def _have_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Verify tokens for a while, and look again at those whose download has ended."""
        self._turn_is_due = False
        end = perf_counter() + TURN
        while True:
            waiter = self._next_in_queue()
            if waiter is not None:
                self._verify(waiter)
            # One of each at a time: queued tokens wait for no flood of those.
            looked_again = bool(self._again) and self._look_again()
            if waiter is None and not looked_again:
                return
            if perf_counter() >= end:
                self._have_turn()
                return

    def _next_in_queue(self) -> _Waiter | None:
        """Return the next token of the queue whose turn it is, or of the other one."""
        self._queues.reverse()
        first, second = self._queues
        return first.take() or second.take()

    def _verify(self, waiter: _Waiter) -> None:
        if waiter.token is None:
            return  # its deadline has passed
        try:
            identity = self._tokens.verify_parsed(waiter.token)
        except UnknownKeyError as refusal:
            self._doubt(waiter, refusal, self._without_key)
        except StaleKeyError as refusal:
            self._doubt(waiter, refusal, self._doubted)
        except Exception as error:  # noqa: BLE001 - every token is answered
            self._answer(waiter, error)
        else:
            user = hash(identity.user_id)
            if user not in self._proven:
                self._proven[user] = None
                if len(self._proven) > MAX_PROVEN:
                    self._proven.popitem(last=False)
            self._answer(waiter, identity)

    # Apart.

    def _doubt(self, waiter: _Waiter, refusal: UnauthenticatedError, room: _Room) -> None:
        """Let a token wait for newer keys, once, if there is room; else refuse it."""
        if waiter.refusal is not None:
            self._answer(waiter, refusal)
            return
        waiter.refusal = refusal.with_traceback(None)  # which would hold on to this very call
        waiter.tried = self._tokens.key_source.key_set
        try:
            download = self._tokens.key_source.newer()
        except UnavailableError:
            self._answer(waiter, refusal)
            return
        if room.admit(waiter):
            self._await(download, waiter)
        else:
            self._answer(waiter, refusal)

    def _await(self, download: asyncio.Future[None], waiter: _Waiter) -> None:
        if download not in self._downloads:
            self._downloads[download] = []
            download.add_done_callback(self._downloaded)
        self._downloads[download].append(waiter)

    def _downloaded(self, download: asyncio.Future[None]) -> None:
        self._again.extend(self._downloads.pop(download))
        self._have_turn()

    def _look_again(self) -> bool:
        """Refuse a token whose download has ended, or queue it if there is a key now.

        Returns False if the queue has no place, so that the token waits for one.
        """
        waiter = self._again.popleft()
        if waiter.token is None or waiter.refusal is None:
            return True
        try:
            keys = self._tokens.key_source.known()
        except UnavailableError as error:
            self._answer(waiter, error)
            return True
        if keys is waiter.tried or not self._tokens.has_key_for(waiter.token):
            self._answer(waiter, self._tokens.key_source.verdict(waiter.refusal))
            return True
        if self._enqueue(waiter):
            return True
        self._again.appendleft(waiter)
        return False


class _Waiter:
    """A token that waits, and what it takes."""

    __slots__ = (
        "callback",
        "deadline",
        "places",
        "refusal",
        "room",
        "sender",
        "token",
        "tried",
        "user",
    )

    def __init__(
        self, token: Unverified, sender: bytes, places: int, deadline: float, callback: Callback
    ) -> None:
        self.token: Unverified | None = token  # None once it has its answer
        self.sender = hash(sender)
        self.user = hash(token.claimed_subject())  # as long as the text of a forged claim may be
        self.places = places
        self.deadline = deadline  # the loop's time
        self.callback: Callback | None = callback  # None once it has its answer
        self.room: _Room | None = None  # in which it has its places
        self.refusal: UnauthenticatedError | None = None  # if no newer key helps
        self.tried: KeySet | None = None  # which did not help

    def leave(self) -> None:
        """Give its places back."""
        if self.room is not None:
            self.room.release(self)


class _Room:
    """Places for tokens that wait."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._taken: dict[int, int] = {}  # by sender

    def left_to(self, sender: int) -> int:
        """Return how many places a sender may still take: half of what all others leave it."""
        return self._free - self._taken.get(sender, 0)

    def admit(self, waiter: _Waiter) -> bool:
        """Give a token its places, instead of those it has; tell whether there are so many."""
        sender = waiter.sender
        if waiter.places > self.left_to(sender):
            return False
        waiter.leave()
        self._free -= waiter.places
        self._taken[sender] = self._taken.get(sender, 0) + waiter.places
        waiter.room = self
        return True

    def release(self, waiter: _Waiter) -> None:
        """Take the places of a token back."""
        self._free += waiter.places
        self._taken[waiter.sender] -= waiter.places
        if not self._taken[waiter.sender]:
            del self._taken[waiter.sender]
        waiter.room = None


class _Queue:
    """Tokens of which the next is verified: their senders take turns, and the users of each."""

    def __init__(self) -> None:
        self._room = _Room(MAX_QUEUED)
        self._senders = OrderedDict[int, OrderedDict[int, deque[_Waiter]]]()

    def admit(self, waiter: _Waiter) -> bool:
        """Let a token wait, and tell whether there is a place for it."""
        users = self._senders.get(waiter.sender)
        waiting = users.get(waiter.user) if users is not None else None
        if waiting is not None and len(waiting) >= self._room.left_to(waiter.sender):
            return False
        if not self._room.admit(waiter):
            return False
        if users is None:
            users = self._senders[waiter.sender] = OrderedDict()
        if waiting is None:
            waiting = users[waiter.user] = deque()
        waiting.append(waiter)
        return True

    def take(self) -> _Waiter | None:
        """Return the next token, of the user and sender whose turn it is; None if none waits."""
        if not self._senders:
            return None
        sender, users = _first(self._senders)
        user, waiting = _first(users)
        waiter = waiting.popleft()
        _end_turn(users, user, over=not waiting)
        _end_turn(self._senders, sender, over=not users)
        return waiter


def _first(turns: OrderedDict[int, Waits]) -> tuple[int, Waits]:
    """Return which has the next turn."""
    return next(iter(turns.items()))


def _end_turn(turns: OrderedDict[int, Any], first: int, *, over: bool) -> None:
    """Let the first have its next turn after all others, or none if it is over."""
    if over:
        del turns[first]
    else:
        turns.move_to_end(first)
