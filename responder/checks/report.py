"""What the checks have found, as text for a person and as JSON for a program."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from responder.postgres.quoting import shown
from responder.terminal import visible

Severity: TypeAlias = Literal["broken", "warning", "note"]

BROKEN: Final = "broken"  # lookups fail or answer wrongly
WARNING: Final = "warning"  # lookups may become slow or unsafe
NOTE: Final = "note"  # good to know
LABEL: Final = 10  # characters before what a line says, a candidate's included
MOST: Final = 20  # candidates that a person is shown: a schema for each tenant makes thousands
_WORST_FIRST: Final[tuple[Severity, ...]] = (BROKEN, WARNING, NOTE)


@dataclass(frozen=True, slots=True)
class Line:
    """A line for a person.

    Its first `hang` characters are a label: where the rest does not fit, it goes on below itself.
    `kind` is what the label says, or the line that has none.
    """

    text: str
    hang: int = 0
    kind: Severity | Literal["heading", "good", ""] = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found, how bad it is, and the remedy: a setting, a statement, a command."""

    check: str
    severity: Severity
    message: str
    remedy: str = ""

    def lines(self) -> list[Line]:
        """Return a line with the message, and one with the remedy if there is one."""
        message = Line(visible(f"{self.severity:<{LABEL}}{self.message}"), LABEL, self.severity)
        remedy = Line(visible(f"{'':<{LABEL}}{self.remedy}"), LABEL)
        return [message, remedy] if self.remedy else [message]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A field and the column it is read from; a field without a column is null in each answer.

    `by_hand` says whether the operator has named the column.
    """

    table: str
    field: str
    column: str | None
    type: str | None
    by_hand: bool

    def as_text(self) -> str:
        """Return a line of the table of fields."""
        column = shown(self.column) if self.column is not None else "-"
        type_ = shown(self.type) if self.type is not None else ""
        set_by_hand = "set by hand" if self.by_hand else ""
        return f"  {self.field:<16}{column:<24}{type_:<14}{set_by_hand}".rstrip()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table that could be one of Better Auth's: what speaks for it, and what against it."""

    role: str  # "user" or "member"
    table: str
    taken: bool
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]

    def as_text(self) -> str:
        """Return a line of the table of candidates."""
        why = [f"for: {'; '.join(self.speaks_for)}"] if self.speaks_for else []
        why += [f"against: {'; '.join(self.speaks_against)}"] if self.speaks_against else []
        taken = "taken" if self.taken else "not taken"
        return f"  {self.role:<8}{self.table:<24}{taken:<11}{' - '.join(why)}".rstrip()


@dataclass(slots=True)
class Report:
    """What all checks have found.

    `servers` has a line about each thing that was reached, by its name. `candidates` are the tables
    that could be meant, and `mapping` has the fields of each that was found.
    """

    servers: dict[str, str] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    mapping: list[Mapped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is broken."""
        return all(finding.severity != BROKEN for finding in self.findings)

    def as_text(self) -> str:
        """Return the report for a person, each thing on a line of its own."""
        return "\n".join(line.text for line in self.lines())

    def lines(self) -> list[Line]:
        """Return the findings, the worst first, the servers, which tables and why, the fields."""
        worst_first = sorted(self.findings, key=lambda each: _WORST_FIRST.index(each.severity))
        lines = [line for finding in worst_first for line in finding.lines()]
        lines += [Line("")] if lines else []
        lines += [Line(visible(f"{name:<10}{what}"), LABEL) for name, what in self.servers.items()]
        if self.candidates:
            lines += [Line(""), Line("which tables", kind="heading")]
            lines += [Line(visible(each.as_text()), LABEL) for each in self.candidates[:MOST]]
        if len(self.candidates) > MOST:
            lines.append(Line(f"  and {len(self.candidates) - MOST} more, all of them in --json"))
        for table in dict.fromkeys(each.table for each in self.mapping):
            lines += [Line(""), Line(visible(table), kind="heading")]
            lines += [Line(each.as_text(), 18) for each in self.mapping if each.table == table]
        return [*lines, Line(""), self._verdict()]

    def _verdict(self) -> Line:
        """Return the last line, which is what a terminal still shows of a long report."""
        if not self.findings:
            return Line("nothing to mend", kind="good")
        counts = Counter(finding.severity for finding in self.findings)
        worst = min(counts, key=_WORST_FIRST.index)
        counted = [f"{each}: {counts[each]}" for each in _WORST_FIRST if counts[each]]
        return Line(f"{', '.join(counted)} (see above)", kind=worst)

    def as_json(self) -> dict[str, Any]:
        """Return the report for a program, as `json` encodes it."""
        return {"good": self.good, **asdict(self)}
