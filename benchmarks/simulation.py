"""Simulate the batching queue: processes that take all that waits, on a few cores."""

# A request is handled in a chain: the program that asks, the NATS server (a thread that reads
# requests, another that reads replies), the worker, a connection to PostgreSQL, and back. Each
# of them sleeps until there is something in its inbox, waits for a core, and then handles all that
# has come meanwhile in one go. Such a step costs something for its own sake (it is woken, it reads
# and writes) and something for each request in it. That alone makes batches: the busier a machine
# is, the more has come by the time a process gets a core, and the less a request costs.
#
# The worker shares what waits among free connections by the rule of `responder.batching`. What a
# step costs is what the benchmark measured (see `capacity.py`), and nothing here is measured or
# read from a clock. A step may take longer than it costs: by chance, a little always, and a lot now
# and then, when the machine does something else.
#
# A core runs a step until it is over: it takes a millisecond or less, and the system's turns are
# longer. A process that is woken goes to a core that is idle, or often it stays with the core of
# who woke it, as Linux has it: when one step wakes two processes, they may run one after the other.

from __future__ import annotations

import heapq
import random
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, exp
from typing import Any, NamedTuple

from figures import quantile

from responder.room import CROWD

MAX_BATCH = 256
CONNECTIONS = 3
CORES = 2
MICROSECOND = 1e-6


class Cost(NamedTuple):
    """Microseconds of a processor: for a step, and for each request in it."""

    step: float
    each: float


class Chance(NamedTuple):
    """How much longer than it costs a step may take.

    Args:
        spread: how much steps differ, as the standard deviation of their logarithm.
        pauses: how often a second of work is interrupted.
        pause: for how many microseconds, on average.
        stay: how often a process waits for the core of who woke it, though another is idle.
    """

    spread: float
    pauses: float
    pause: float
    stay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What each process costs, and how much longer than that a step may take.

    Args:
        load: the program that asks.
        nats: the server, of which each request takes two steps.
        worker: of which it takes two as well, with the query between them.
        postgres: a query.
        chance: what makes steps longer.
    """

    load: Cost
    nats: Cost
    worker: Cost
    postgres: Cost
    chance: Chance

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Costs:
        """Return costs that were written as JSON."""
        names = ("load", "nats", "worker", "postgres")
        costs = {name: Cost(*found[name]) for name in names}
        return cls(**costs, chance=Chance(*found["chance"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a simulation found: requests a second, latencies in ms, the mean size of a batch, and
    how many cores each kind of process kept busy.
    """

    rate: float
    p50: float
    p99: float
    batch: float
    cores: Mapping[str, float]


class Machine:
    """Cores, the processes that wait for each, and the time."""

    def __init__(self, chance: Chance, *, cores: int, seed: int) -> None:
        self.now = 0.0
        self._queues: list[deque[Process]] = [deque() for _ in range(cores)]
        self._idle = set(range(cores))
        self._current: int | None = None  # the core whose step ends just now
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._random = random.Random(seed)
        self._chance = chance

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, happens))

    def run(self, until: float) -> None:
        """Let all happen that happens until then."""
        while self._events and self._events[0][0] <= until:
            self.now, _, happens = heapq.heappop(self._events)
            happens()

    def wake(self, process: Process) -> None:
        """Let a process wait for a core: that of who woke it, or one that has less to do."""
        core = self._current
        if core is None or self._random.random() >= self._chance.stay:
            core = min(
                range(len(self._queues)),
                key=lambda each: (each not in self._idle, len(self._queues[each])),
            )
        self._queues[core].append(process)
        if core in self._idle:
            self._go_on(core)

    def _go_on(self, core: int) -> None:
        """Run the next process of a core, or one that waits for another."""
        queue = self._queues[core] or max(self._queues, key=len)
        if not queue:
            self._idle.add(core)
            return
        self._idle.discard(core)
        process = queue.popleft()
        cost, then = process.step()
        process.busy += cost * MICROSECOND
        self.at(self.now + self._takes(cost), partial(self._end, core, process, then))

    def _end(self, core: int, process: Process, then: Callable[[], None]) -> None:
        self._current = core
        then()
        process.rest()
        self._current = None
        self._go_on(core)

    def _takes(self, cost: float) -> float:
        drawn, chance = self._random, self._chance
        seconds = cost * exp(drawn.gauss(-(chance.spread**2) / 2, chance.spread)) * MICROSECOND
        if drawn.random() < seconds * chance.pauses:
            seconds += drawn.expovariate(1 / chance.pause) * MICROSECOND
        return seconds


class Process:
    """A process that handles all that has come for it in one step.

    `handle` takes what has come, and returns the cost of that and what happens at its end.

    Attributes:
        busy: seconds that its steps have cost.
    """

    def __init__(
        self,
        machine: Machine,
        handle: Callable[[list[Message]], tuple[float, Callable[[], None]]],
    ) -> None:
        self._machine = machine
        self._handle = handle
        self._inbox: list[Message] = []
        self._awake = False
        self.busy = 0.0

    def put(self, *messages: Message) -> None:
        """Let something come for it."""
        self._inbox += messages
        if not self._awake:
            self._awake = True
            self._machine.wake(self)

    def step(self) -> tuple[float, Callable[[], None]]:
        """Begin to handle all that has come."""
        inbox, self._inbox = self._inbox, []
        return self._handle(inbox)

    def rest(self) -> None:
        """Sleep, or go on with what has come meanwhile."""
        if self._inbox:
            self._machine.wake(self)
        else:
            self._awake = False


class Message(NamedTuple):
    """Requests that travel together, by when they were sent; `connection` has answered them."""

    sent: Sequence[float]
    connection: Process | None = None


class System:
    """The chain, from the program that asks and back to it."""

    def __init__(self, costs: Costs, *, cores: int = CORES, seed: int = 1) -> None:
        self.machine = Machine(costs.chance, cores=cores, seed=seed)
        self.latencies = array("d")
        self.again = False  # whether each answer is followed by another request
        self.batches = 0
        self._costs = costs
        self._waiting: deque[float] = deque()
        self._free = [Process(self.machine, self._query) for _ in range(CONNECTIONS)]
        self.load = Process(self.machine, self._ask)
        self._requests = Process(self.machine, self._pass_to_worker)
        self._worker = Process(self.machine, self._work)
        self._replies = Process(self.machine, self._pass_back)
        self._kinds = {
            "worker": [self._worker],
            "postgres": [*self._free],
            "nats": [self._requests, self._replies],
        }

    def busy(self) -> dict[str, float]:
        """Return the seconds of work of each kind of process so far."""
        return {kind: sum(each.busy for each in every) for kind, every in self._kinds.items()}

    def _ask(self, inbox: list[Message]) -> tuple[float, Callable[[], None]]:
        """Take answers, which a connection has given; send requests."""
        answers = [sent for each in inbox if each.connection for sent in each.sent]
        requests = [sent for each in inbox if not each.connection for sent in each.sent]
        self.latencies.extend(self.machine.now - sent for sent in answers)

        def end() -> None:
            now = self.machine.now
            sent = [*requests, *([now] * len(answers) if self.again else ())]
            if sent:
                self._requests.put(Message(sent))

        cost = self._costs.load
        count = len(answers) + (len(answers) if self.again else len(requests))
        return cost.step + cost.each / 2 * count, end

    def _pass_to_worker(self, inbox: list[Message]) -> tuple[float, Callable[[], None]]:
        return self._cost(self._costs.nats, inbox), lambda: self._worker.put(*inbox)

    def _pass_back(self, inbox: list[Message]) -> tuple[float, Callable[[], None]]:
        return self._cost(self._costs.nats, inbox), lambda: self.load.put(*inbox)

    def _cost(self, cost: Cost, inbox: list[Message]) -> float:
        """Of a step of two that each request takes."""
        return cost.step + cost.each / 2 * sum(len(each.sent) for each in inbox)

    def _work(self, inbox: list[Message]) -> tuple[float, Callable[[], None]]:
        answered = []
        for each in inbox:
            if each.connection:
                answered.append(each)
                self._free.append(each.connection)
            else:
                self._waiting.extend(each.sent)
        batches = []
        while self._waiting and self._free:
            connection = self._free.pop()
            size = max(ceil(len(self._waiting) / (1 + len(self._free))), CROWD)
            size = min(size, len(self._waiting), MAX_BATCH)
            batches.append((connection, [self._waiting.popleft() for _ in range(size)]))
        self.batches += len(batches)

        def end() -> None:
            for connection, batch in batches:
                connection.put(Message(batch, connection))
            if answered:
                self._replies.put(*answered)

        return self._cost(self._costs.worker, inbox), end

    def _query(self, inbox: list[Message]) -> tuple[float, Callable[[], None]]:
        (message,) = inbox
        cost = self._costs.postgres
        return cost.step + cost.each * len(message.sent), lambda: self._worker.put(message)


def closed(costs: Costs, *, outstanding: int, seconds: float = 2.0) -> Answered:
    """Keep so many requests outstanding."""
    system = System(costs)
    system.again = True
    system.load.put(Message([0.0] * outstanding))
    return _measured(system, seconds)


def opened(costs: Costs, *, rate: float, seconds: float = 4.0, cores: int = CORES) -> Answered:
    """Send requests at random moments, so many a second, whatever is answered."""
    system = System(costs, cores=cores)
    chance = random.Random(2)

    def arrive() -> None:
        now = system.machine.now
        system.load.put(Message([now]))
        system.machine.at(now + chance.expovariate(rate), arrive)

    system.machine.at(0.0, arrive)
    return _measured(system, seconds)


def _measured(system: System, seconds: float) -> Answered:
    warm = 0.1 * seconds
    system.machine.run(warm)
    del system.latencies[:]
    system.batches, before = 0, system.busy()
    system.machine.run(warm + seconds)
    ordered = sorted(system.latencies)
    return Answered(
        rate=len(ordered) / seconds,
        p50=quantile(ordered, 0.5),
        p99=quantile(ordered, 0.99),
        batch=len(ordered) / system.batches,
        cores={kind: (busy - before[kind]) / seconds for kind, busy in system.busy().items()},
    )
