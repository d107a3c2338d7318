"""The results as pictures (SVG)."""

# Written by hand: a few rectangles and lines are not worth a plotting library. The background is white
# so that they can be read on dark pages too.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log10
from pathlib import Path
from typing import Any

WIDTH, LEFT, BAR, GAP = 860, 190, 18, 7
COLOURS = {
    "responder": "#0072b2",
    "bun": "#e69f00",
    "node": "#009e73",
    "faststream": "#cc79a7",
    "tasks": "#d55e00",
    "echo": "#999999",
    "pgbench": "#56b4e9",
    "better-auth": "#e69f00",
}
PROCESSES = {"worker": "#0072b2", "postgres": "#999999", "nats": "#e69f00"}
LABELS = {"worker": "program", "postgres": "PostgreSQL", "nats": "nats-server"}
LOOKUPS = ("get", "by_email", "get_many", "org_list")


def draw(results: dict[str, Any], directory: Path) -> dict[str, str]:
    """Write what there are results for; return file names and titles."""
    found: dict[str, tuple[str, str]] = {}
    rows = [row for row in results.get("nats", ()) if row["connections"] == 1]
    for lookup in LOOKUPS:
        of_lookup = [row for row in rows if row["lookup"] == lookup and row["who"] != "pgbench"]
        if not of_lookup:
            continue
        most = max(row["outstanding"] for row in of_lookup)
        at_most = [row for row in of_lookup if row["outstanding"] == most]
        title = f"users.{lookup}, {most} outstanding: CPU per request, µs"
        found[f"cpu-{lookup}.svg"] = title, bars(title, at_most)
        title = f"users.{lookup}: requests/s by requests outstanding"
        found[f"rate-{lookup}.svg"] = title, lines(title, of_lookup, "rate")
        title = f"users.{lookup}: p99 in ms by requests outstanding"
        found[f"p99-{lookup}.svg"] = title, lines(title, of_lookup, "p99")
    if over_http := results.get("http"):
        most = max(row["outstanding"] for row in over_http)
        title = f"One user over HTTP, {most} connections: CPU per request, µs"
        found["cpu-http.svg"] = (
            title,
            bars(title, [row for row in over_http if row["outstanding"] == most]),
        )
    folder = directory / "plots"
    folder.mkdir(exist_ok=True)
    for name, (_, svg) in found.items():
        (folder / name).write_text(svg)
    return {f"plots/{name}": title for name, (title, _) in found.items()}


def bars(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw a bar for each contestant, made of the CPU of each process."""
    longest = max(sum(row["cpu"][name] for name in PROCESSES) for row in rows)
    scale = (WIDTH - LEFT - 90) / longest
    parts = []
    for number, row in enumerate(rows):
        y = 60 + number * (BAR + GAP)
        parts.append(_text(LEFT - 8, y + BAR - 5, row["who"], anchor="end"))
        x = float(LEFT)
        for name, colour in PROCESSES.items():
            width = row["cpu"][name] * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
            )
            x += width
        parts.append(_text(x + 6, y + BAR - 5, f"{(x - LEFT) / scale:,.1f}"))
    legend = [(LABELS[name], colour) for name, colour in PROCESSES.items()]
    return _svg(title, 70 + len(rows) * (BAR + GAP), [*_legend(legend), *parts])


def lines(title: str, rows: Sequence[Mapping[str, Any]], figure: str) -> str:
    """Draw a line for each contestant, on logarithmic axes."""
    height, top, bottom = 380, 60, 340
    right = WIDTH - 30
    loads = sorted({row["outstanding"] for row in rows})
    values = [row[figure] for row in rows]
    low, high = log10(min(values)), log10(max(values))
    low, high = low - 0.05, max(high + 0.05, low + 0.1)

    def x(load: int) -> float:
        return 80 + (right - 80) * loads.index(load) / max(len(loads) - 1, 1)

    def y(value: float) -> float:
        return bottom - (log10(value) - low) / (high - low) * (bottom - top)

    parts = [_text(x(load), bottom + 20, str(load), anchor="middle") for load in loads]
    for value in _ticks(low, high):
        parts.append(
            f'<line x1="80" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(72, y(value) + 4, f"{value:,g}", anchor="end"))
    who = list(dict.fromkeys(row["who"] for row in rows))
    for name in who:
        found = sorted((row["outstanding"], row[figure]) for row in rows if row["who"] == name)
        points = " ".join(f"{x(load):.1f},{y(value):.1f}" for load, value in found)
        width = 3 if name == "responder" else 1.5
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" '
            f'stroke-width="{width}"/>'
        )
        parts += [
            f'<circle cx="{x(load):.1f}" cy="{y(value):.1f}" r="3" fill="{COLOURS[name]}"/>'
            for load, value in found
        ]
    return _svg(title, height, [*_legend([(name, COLOURS[name]) for name in who]), *parts])


def _ticks(low: float, high: float) -> Iterator[float]:
    for power in range(int(low) - 2, int(high) + 2):
        for digit in (1, 2, 5):
            if low <= log10(digit) + power <= high:
                yield digit * 10.0**power


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (name, colour) in enumerate(entries):
        x = 80 + number * 120
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 17, 47, name)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="20" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
