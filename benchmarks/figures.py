"""What one measurement found, and the middle of several."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


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
) -> Figures:
    """Return the figures of the answers of some seconds, and the CPU that all of them took."""
    ordered = sorted(latencies)
    return Figures(
        rate=len(ordered) / seconds,
        p50=quantile(ordered, 0.5),
        p99=quantile(ordered, 0.99),
        p999=quantile(ordered, 0.999),
        cpu={name: value / len(ordered) for name, value in cpu.items()},
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
