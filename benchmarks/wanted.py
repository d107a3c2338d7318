"""What is wanted of responder, and how near it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

OURS, ECHO, PGBENCH, ELSEWHERE = "responder", "echo", "pgbench", "better-auth"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A figure that has to be at least, or at most, something."""

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def total(row: Row) -> float:
    """CPU of all processes but the load."""
    return float(sum(value for name, value in row["cpu"].items() if name != "load"))


def wishes(results: dict[str, Any]) -> Iterator[Wish]:
    """Return all for which there are results."""
    rows = _Rows([*results.get("nats", ()), *results.get("http", ())])
    yield from _users_get(rows)
    yield from _alone(rows)
    yield from _pages(rows)
    yield from _http(rows)
    yield from _tails(rows)
    yield from _isolation(results.get("isolation", []))
    yield from _growth(results)
    if found := results.get("memory"):
        yield Wish(
            what=f"memory after {found[-1]['requests']:,} requests, MB",
            value=found[-1]["memory"],
            limit=80,
        )
        yield Wish(
            what=f"the same / after {found[1]['requests']:,}",
            value=found[-1]["memory"] / found[1]["memory"],
            limit=1.02,
        )


class _Rows:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = {
            (row["lookup"], row["connections"], row["outstanding"], row["who"]): row for row in rows
        }

    def get(self, lookup: str, outstanding: int, who: str, *, connections: int = 1) -> Row | None:
        return self._rows.get((lookup, connections, outstanding, who))

    def peers(self, lookup: str, outstanding: int) -> list[Row]:
        """Those that look something up, and are not responder."""
        return [
            row
            for (asked, connections, load, who), row in self._rows.items()
            if (asked, connections, load) == (lookup, 1, outstanding)
            and who not in (OURS, ECHO, PGBENCH)
        ]

    def beside_best(
        self, lookup: str, outstanding: int, key: Callable[[Row], float]
    ) -> tuple[Row, Row] | None:
        ours, peers = self.get(lookup, outstanding, OURS), self.peers(lookup, outstanding)
        return (ours, min(peers, key=key)) if ours and peers else None


def _users_get(rows: _Rows) -> Iterator[Wish]:
    ours = rows.get("get", 256, OURS)
    if ours is None:
        return
    for who, faster, cheaper in (("bun", 1.5, 0.6), ("faststream", 8, 0.1)):
        if other := rows.get("get", 256, who):
            name = f"users.get, 256 outstanding: %s / {who}'s"
            yield Wish(
                what=name % "requests/s",
                value=ours["rate"] / other["rate"],
                limit=faster,
                at_least=True,
            )
            yield Wish(what=name % "all CPU", value=total(ours) / total(other), limit=cheaper)
    if echo := rows.get("get", 256, ECHO):
        yield Wish(
            what="users.get, 256 outstanding: program's CPU / the echo's",
            value=ours["cpu"]["worker"] / echo["cpu"]["worker"],
            limit=1.75,
        )
    if bench := rows.get("get", 8, PGBENCH, connections=8):
        both = [row["cpu"]["worker"] + row["cpu"]["postgres"] for row in (ours, bench)]
        yield Wish(
            what="users.get, 256 outstanding: CPU of program and PostgreSQL / pgbench's, 8 clients",
            value=both[0] / both[1],
            limit=1,
        )


def _alone(rows: _Rows) -> Iterator[Wish]:
    for lookup in ("get", "by_email", "get_many", "org_list"):
        if found := rows.beside_best(lookup, 1, lambda row: row["p50"]):
            ours, best = found
            yield Wish(
                what=f"users.{lookup}, 1 outstanding: p50 / {best['who']}'s",
                value=ours["p50"] / best["p50"],
                limit=1.1,
            )


def _pages(rows: _Rows) -> Iterator[Wish]:
    for outstanding in (64, 256):
        if found := rows.beside_best("org_list", outstanding, lambda row: -row["rate"]):
            ours, best = found
            name = f"users.org_list, {outstanding} outstanding: %s / {best['who']}'s"
            yield Wish(
                what=name % "requests/s",
                value=ours["rate"] / best["rate"],
                limit=1.3,
                at_least=True,
            )
            yield Wish(what=name % "all CPU", value=total(ours) / total(best), limit=0.75)


def _http(rows: _Rows) -> Iterator[Wish]:
    ours = rows.get("http", 64, OURS, connections=64)
    other = rows.get("http", 64, ELSEWHERE, connections=64)
    if ours and other:
        name = "HTTP, 64 connections: %s / Better Auth's"
        yield Wish(
            what=name % "requests/s", value=ours["rate"] / other["rate"], limit=6, at_least=True
        )
        theirs = other["cpu"]["worker"] + other["cpu"]["postgres"]
        yield Wish(what=name % "all CPU", value=total(ours) / theirs, limit=1 / 6)


def _tails(rows: _Rows) -> Iterator[Wish]:
    for lookup in ("get", "by_email", "get_many", "org_list"):
        if found := rows.beside_best(lookup, 64, lambda row: row["p99"]):
            ours, best = found
            yield Wish(
                what=f"users.{lookup}, 64 outstanding: p99 / {best['who']}'s",
                value=ours["p99"] / best["p99"],
                limit=1,
            )


def _isolation(found: list[Row]) -> Iterator[Wish]:
    of = {(row["outstanding"], bool(row["flood"])): row for row in found if row["who"] == OURS}
    for outstanding in dict.fromkeys(outstanding for outstanding, _ in of):
        beside, alone = of[outstanding, True], of[outstanding, False]
        yield Wish(
            what=f"p99 of {outstanding} outstanding beside a flood of {beside['flood']} / alone",
            value=beside["p99"] / alone["p99"],
            limit=2,
        )


def _growth(results: dict[str, Any]) -> Iterator[Wish]:
    of = {
        (row["lookup"], row["outstanding"], row["users"]): row for row in results.get("growth", ())
    }
    few, many = (choose((key[2] for key in of), default=0) for choose in (min, max))
    for lookup, outstanding, users in of:
        if users == few:
            ratio = total(of[lookup, outstanding, many]) / total(of[lookup, outstanding, few])
            yield Wish(
                what=f"users.{lookup}, {outstanding} outstanding: "
                f"all CPU with {many:,} users / with {few:,}",
                value=ratio,
                limit=1.15,
            )
    if walk := results.get("walk"):
        costs = [row["worker"] + row["postgres"] for row in walk["rows"]]
        yield Wish(
            what=f"{walk['members']:,} members page by page: dearest part of the way / cheapest",
            value=max(costs) / min(costs),
            limit=1.2,
        )
