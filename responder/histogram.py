"""How values are spread: how many there were up to each of a few bounds."""

# prometheus_client's own histogram takes a lock for each value, for threads that are not here.

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

# Of requests, in seconds: the bounds that OpenTelemetry recommends for messaging, and lower ones.
SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075),
    *(0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
)


class Histogram:
    """Counts values by the least bound that is not below them.

    Args:
        bounds: in ascending order; what is above the last is counted, too.

    Attributes:
        sum: of all values.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum: float = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, so many times; its sum is counted once for each of them."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def cumulated(self) -> Iterator[tuple[str, int]]:
        """Yield each bound, as Prometheus writes it, with how many values were not above it."""
        total = 0
        for bound, count in zip((*map(float, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield str(bound), total
