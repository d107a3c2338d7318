"""What one measurement found, and the middle of several."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import comb
from statistics import median

CONFIDENCE = 0.95
ENOUGH = 6  # values, for an interval of that confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Latencies are in ms, CPU in microseconds per request by process, memory in MB."""

    rate: float
    p50: float | None
    p99: float | None
    p999: float | None
    cpu: dict[str, float]
    memory: float
    failures: int

    @property
    def total(self) -> float:
        """CPU of all but the load."""
        return sum(value for name, value in self.cpu.items() if name != "load")


def of(
    latencies: array[float],
    *,
    seconds: float,
    cpu: Mapping[str, float],
    memory: float,
    failures: int,
    answers: int | None = None,
) -> Figures:
    """Return the figures of some seconds, with the CPU for each answer.

    `answers` is their number, if these latencies are not those of all.
    """
    ordered = sorted(latencies)
    return Figures(
        rate=len(ordered) / seconds,
        p50=quantile(ordered, 0.5),
        p99=quantile(ordered, 0.99),
        p999=quantile(ordered, 0.999),
        cpu={name: value / (answers or len(ordered)) for name, value in cpu.items()},
        memory=memory,
        failures=failures,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the ms below which a share of the seconds lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3


def middle(found: Sequence[Figures]) -> Figures:
    """Return the median of each figure, and all failures."""

    def of_all(name: str) -> float | None:
        values = [getattr(each, name) for each in found]
        return None if None in values else median(values)

    return Figures(
        rate=median(each.rate for each in found),
        p50=of_all("p50"),
        p99=of_all("p99"),
        p999=of_all("p999"),
        cpu={name: median(each.cpu[name] for each in found) for name in found[0].cpu},
        memory=median(each.memory for each in found),
        failures=sum(each.failures for each in found),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of a sample, and the ends of a 95 % confidence interval of the median.

    The ends are values of the sample, equally far from its least and its most. Nothing is assumed
    of the distribution: each value is below the true median with a probability of one half, so the
    number of values below is binomial. Fewer than six values have no such interval, because the
    true median is too often beyond all of them: the ends are then the least and the most.

    >>> median_interval([1.02, 0.98, 1.0, 1.03, 0.97, 1.01, 0.99, 1.04, 0.96])
    (1.0, 0.97, 1.03)
    >>> median_interval([1.02, 0.98, 1.0])
    (1.0, 0.98, 1.02)
    """
    ordered, count = sorted(values), len(values)
    # Of the 2**count equally likely cases: in which none, at most one, at most two … are below.
    at_most = accumulate(comb(count, below) for below in range(count))
    rank = sum(cases / 2**count <= (1 - CONFIDENCE) / 2 for cases in at_most)
    end = max(rank, 1) - 1
    return median(ordered), ordered[end], ordered[-1 - end]
