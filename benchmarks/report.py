"""The results as tables, and into the README."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
NAMES = {
    "responder": "**responder**",
    "bun": "Bun, Bun.sql",
    "go": "Go, nats.go, pgx",
    "node": "Node.js, pg",
    "faststream": "FastStream, asyncpg",
    "tasks": "nats-py, a task each",
    "echo": "nats-py echo",
    "pgbench": "pgbench, the same SQL",
    "better-auth": "Better Auth under Bun",
    "static": "uvicorn, a static answer",
}
TITLES = {
    "get": "`users.get`",
    "by_email": "`users.by_email`",
    "get_many": "`users.get_many` of 50",
    "org_list": "`users.org_list` of 100",
    "memberships": "`users.memberships` of 5",
    "http": "`GET /api/v1/users/:id` with a token, beside `admin/get-user`",
    "mix": "the mix, of which the latencies are those of `users.get`",
}
CALLERS = {
    "get": "services",
    "callers-1": "1 caller",
    "callers-100": "100 callers",
    "callers-10000": "10,000 callers",
    "callers-new": "each token new",
}
FIGURES = (
    *("requests/s", "p50 ms", "p99 ms", "p99.9 ms"),
    *("program µs", "PostgreSQL µs", "nats-server µs", "together µs", "load µs", "MB", "failures"),
)
PROCESSES = ("worker", "postgres", "nats")


def text(results: dict[str, Any]) -> str:
    """Return all results as Markdown."""
    return "\n".join(_lines(results))


def write(results: dict[str, Any], directory: Path) -> None:
    """Put the results between the marks in the README."""
    readme = directory / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{text(results)}\n\n{END}{after}")


def _lines(results: dict[str, Any]) -> Iterator[str]:
    yield from _machine(results)
    peers = _with_versions(results["machine"])
    rows = [*results.get("nats", ()), *results.get("http", ())]
    for lookup in dict.fromkeys(row["lookup"] for row in rows):
        yield from ("", f"### {TITLES[lookup]}", "")
        found = sorted(
            (row for row in rows if row["lookup"] == lookup),
            key=lambda row: (row["connections"], row["outstanding"]),
        )
        yield from _table(
            ("connections", "outstanding", "who", *FIGURES),
            (
                (row["connections"], row["outstanding"], NAMES[row["who"]], *_figures(row))
                for row in found
            ),
        )
        yield from _ratios(found, ("connections", "outstanding"), peers)
    if fields := results.get("fields"):
        yield from _fields(fields)
    if arrivals := results.get("open"):
        yield from _open(arrivals, peers)
    if callers := results.get("callers"):
        yield from ("", "### With a token, on behalf of ever more callers, 64 outstanding", "")
        yield from _callers(callers)
    if growth := results.get("growth"):
        yield from ("", "### With more users", "")
        yield from _table(
            ("lookup", "outstanding", "users", *FIGURES),
            (
                (row["lookup"], row["outstanding"], f"{row['users']:,}", *_figures(row))
                for row in growth
            ),
        )
    if walk := results.get("walk"):
        yield from _walk(walk)
    if isolation := results.get("isolation"):
        yield from _isolation(isolation)
    if memory := results.get("memory"):
        yield from ("", "### Memory of a worker", "")
        yield from _table(
            ("requests answered", "MB", "failures"),
            (
                (f"{row['requests']:,}", f"{row['memory']:.1f}", row.get("failures", 0))
                for row in memory
            ),
        )


def _isolation(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("", "### One connection beside the flood of another", "")
    yield from _table(
        ("outstanding", "who", "flood", "requests/s", "p50 ms", "p99 ms", "p99.9 ms"),
        (
            (
                *(row["outstanding"], NAMES[row["who"]], row["flood"] or "none"),
                *_figures(row)[:4],
            )
            for row in rows
        ),
    )


def _fields(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for lookup in dict.fromkeys(row["lookup"] for row in rows):
        found = [row for row in rows if row["lookup"] == lookup]
        yield from ("", f"### {TITLES[lookup]}, with two additional fields", "")
        yield from _table(
            ("outstanding", "who", *FIGURES),
            ((row["outstanding"], NAMES[row["who"]], *_figures(row)) for row in found),
        )
        yield from _ratios(found, ("outstanding",), NAMES)


def _open(rows: Sequence[dict[str, Any]], peers: Mapping[str, str]) -> Iterator[str]:
    for lookup in dict.fromkeys(row["lookup"] for row in rows):
        found = [row for row in rows if row["lookup"] == lookup]
        yield from ("", f"### Independent arrivals: {TITLES[lookup]}", "")
        yield from _table(
            ("rate of arrivals", "who", *FIGURES),
            ((row["rate of arrivals"], NAMES[row["who"]], *_figures(row)) for row in found),
        )
        yield from _ratios(found, ("rate of arrivals",), peers)


def _callers(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from _table(
        ("on behalf of", *FIGURES), ((CALLERS[row["callers"]], *_figures(row)) for row in rows)
    )
    by_kind = {row["callers"]: row for row in rows}
    few = by_kind.pop("callers-100")
    yield ""
    yield from _table(
        ("divided by 100 callers", *RATIOS),
        (
            (CALLERS[kind], *_compared(row["rounds"], few["rounds"]))
            for kind, row in by_kind.items()
        ),
    )


def _with_versions(machine: dict[str, Any]) -> dict[str, str]:
    """Return the names of peers, that of Go with the versions that Debian has."""
    go = ", ".join(f"{name} {version}" for name, version in machine.get("go", {}).items())
    return {**NAMES, "go": go or NAMES["go"]}


def _ratios(
    rows: Sequence[dict[str, Any]], names: Sequence[str], peers: Mapping[str, str]
) -> Iterator[str]:
    """Compare responder with each peer, round by round: the median, the least and the most."""
    ours = {tuple(row[name] for name in names): row for row in rows if row["who"] == "responder"}
    compared = [
        (key, ours[key], row)
        for row in rows
        if (key := tuple(row[name] for name in names)) in ours and row["who"] != "responder"
    ]
    if not compared:
        return
    yield ""
    yield from _table(
        (*names, "responder divided by", *RATIOS),
        (
            (*key, peers[row["who"]], *_compared(mine["rounds"], row["rounds"]))
            for key, mine, row in compared
        ),
    )


def _compared(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Iterator[str]:
    for value in RATIOS.values():
        ratios = [
            mine / other
            for a, b in zip(ours, theirs, strict=True)
            if (mine := value(a)) and (other := value(b))
        ]
        if not ratios:  # pgbench tells no quantiles
            yield "-"
        else:
            yield f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _together(row: dict[str, Any]) -> float:
    return float(sum(row["cpu"][name] for name in PROCESSES))


RATIOS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "requests/s": lambda row: row["rate"],
    "p50": lambda row: row["p50"],
    "p99": lambda row: row["p99"],
    "p99.9": lambda row: row["p999"],
    "together": _together,
}


def _machine(results: dict[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    packages = {
        "PostgreSQL": machine["postgres"],
        **machine["packages"],
        "Node.js": machine["node"],
        "Bun": machine["bun"],
        **machine["npm"],
        **machine.get("go", {}),
        "FastStream": machine["faststream"]["faststream"],
    }
    yield from _wrapped(
        f"{machine['processor']}, {machine['cores']} cores for everything, {machine['memory']}",
        f"GiB, {machine['system']}; {results['users']:,} users; "
        f"median of {results['rounds']} rounds of",
        f"{results['seconds']:g} s.",
    )
    yield from _wrapped(
        f"Python {machine['python']},",
        f"{', '.join(f'{name} {version}' for name, version in packages.items())}.",
    )


def _wrapped(*words: str) -> list[str]:
    return textwrap.wrap(" ".join(words), 100, break_on_hyphens=False)


def _walk(walk: dict[str, Any]) -> Iterator[str]:
    yield from (
        *("", f"### Page by page through an organization of {walk['members']:,}", ""),
        *(*_wrapped(f"With `{walk['index']}`; median of {walk['walks']} walks."), ""),
    )
    parts = len(walk["rows"])
    yield from _table(
        ("part of the way", "ms per page", "program µs", "PostgreSQL µs", "nats-server µs"),
        (
            (
                f"{100 * row['part'] // parts} % to {100 * (row['part'] + 1) // parts} %",
                f"{row['ms']:.2f}",
                *(f"{row[name]:,.0f}" for name in PROCESSES),
            )
            for row in walk["rows"]
        ),
    )


def _figures(row: dict[str, Any]) -> tuple[str, ...]:
    cpu = row["cpu"]
    return (
        f"{row['rate']:,.0f}",
        *("-" if row[name] is None else f"{row[name]:.2f}" for name in ("p50", "p99", "p999")),
        *(f"{cpu[name]:,.1f}" for name in PROCESSES),
        f"{_together(row):,.1f}",
        f"{cpu['load']:,.1f}" if row["p50"] else "-",
        f"{row['memory']:.0f}",
        str(row["failures"]),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'--:|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
