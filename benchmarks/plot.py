"""Draw curves and points on logarithmic axes, as SVG."""

# One picture of a few dozen points is less than what a library for it would bring along.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
STYLE = (
    "text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}"
    "path{fill:none;stroke-width:2}.dashed{stroke-dasharray:5 4}"
)
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind, joined by a line or not."""

    name: str
    points: Sequence[Point]
    colour: str
    joined: bool = False
    dashed: bool = False


def svg(series: Sequence[Series], *, title: str, x: str, y: str) -> str:
    """Return a picture of all series, with the names of both axes."""
    every = [point for each in series for point in each.points]
    along, up = _scale([each[0] for each in every]), _scale([each[1] for each in every])

    def place(point: Point) -> Point:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * along.share(point[0]),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up.share(point[1]),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{STYLE}</style><title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">{title}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{x}</text>',
        f'<text x="8" y="{TOP - 6}">{y}</text>',
    ]
    for value in along.ticks():
        at, _ = place((value, up.least))
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 16, f"{value:,g}", "middle"))
    for value in up.ticks():
        _, at = place((along.least, value))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, at + 4, f"{value:g}", "end"))
    for number, each in enumerate(series):
        parts += _drawn(each, [place(point) for point in each.points])
        parts += _named(each, TOP + 14 + 18 * number)
    return "\n".join([*parts, "</svg>", ""])


def _drawn(series: Series, places: Sequence[Point]) -> list[str]:
    if series.joined:
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        kind = ' class="dashed"' if series.dashed else ""
        return [f'<path{kind} stroke="{series.colour}" d="M{line}"/>']
    fill = "#fff" if series.dashed else series.colour
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{series.colour}" fill="{fill}"/>'
        for x, y in places
    ]


def _named(series: Series, y: float) -> list[str]:
    places = [(LEFT + 12.0, y), (LEFT + 36.0, y)]
    return [*_drawn(series, places), _text(LEFT + 46, y + 4, series.name, "start")]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


@dataclass(frozen=True)
class _Scale:
    least: float
    most: float

    def share(self, value: float) -> float:
        """How far along the axis a value is."""
        return log10(value / self.least) / log10(self.most / self.least)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each power of ten."""
        powers = range(floor(log10(self.least)), ceil(log10(self.most)) + 1)
        every = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
        return [each for each in every if self.least <= each <= self.most]


def _scale(values: Sequence[float]) -> _Scale:
    return _Scale(min(values) / 1.2, max(values) * 1.2)
