"""Several measurements in turn, again and again."""

# Measurements are interleaved, every other round in the opposite order, so that whatever else the
# machine does meanwhile meets all contestants alike.

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from figures import Figures, middle

Row = dict[str, Any]
Measurements = Mapping[tuple[Any, ...], Callable[[], Awaitable[Figures]]]


async def run(names: tuple[str, ...], measurements: Measurements, count: int) -> list[Row]:
    """Measure everything so many times; return the median of each figure under its key's names.

    Under `rounds` is what was found in each, because only figures of one round are to be compared.
    """
    found: dict[tuple[Any, ...], list[Figures]] = {key: [] for key in measurements}
    for number in range(count):
        print(f"round {number + 1} of {count}", file=sys.stderr)
        for key in reversed(found) if number % 2 else found:
            found[key].append(await measurements[key]())
    return [
        {
            **dict(zip(names, key, strict=True)),
            **asdict(middle(each)),
            "rounds": [asdict(one) for one in each],
        }
        for key, each in found.items()
    ]
