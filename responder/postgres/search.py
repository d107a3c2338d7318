"""The search for one table among those that the catalog has."""

# What the operator has named is taken. Else the evidence decides (see `evidence`), and where it
# leaves several tables, the schema in which the application looks first. What is still ambiguous is
# an error, never a guess; so is a column whose type cannot hold what it is for. That our role may
# not read the right table is an error, too: another that it may read would answer for the right
# one, and be wrong.
#
# A table once found stays the one meant, whatever comes up beside it: what bears the name under
# which it was found, because that is the name by which the application reads it, else the same
# relation under another name. A migration keeps the old table, an operator makes a copy, and
# foreign keys follow the table that was renamed away: what is called a copy never stands in. While
# a table is gone nothing takes its place but what sessions and accounts refer to: an application's
# own users would fit as well and be wrong.

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from responder.errors import OperatorError, SchemaError
from responder.postgres.additional import fields_of
from responder.postgres.catalog import CatalogColumn
from responder.postgres.columns import as_table, holding, lacking, mapped, missing_column
from responder.postgres.evidence import CONTROL, Tables, Weighed, best
from responder.postgres.fields import MEMBER, USER, Description, plain
from responder.postgres.names import says_copy
from responder.postgres.near import setting
from responder.postgres.nearest import SHOWN, some
from responder.postgres.overrides import Overrides
from responder.postgres.quoting import shown
from responder.postgres.schema import Table, TableName, relation
from responder.terminal import visible


class Evidence(Protocol):
    """What speaks for each table of one kind, and against it."""

    def considered(self) -> list[Weighed]:
        """Return each table that could be meant."""

    def weigh(self, table: TableName) -> Weighed:
        """Say what speaks for a table and against it."""


class Search:
    """The search for one table among those there are."""

    def __init__(
        self,
        description: Description,
        evidence: Evidence,
        tables: Tables,
        overrides: Overrides,
        search_path: Sequence[str],
    ) -> None:
        self.description = description
        self.evidence = evidence
        self.tables: dict[TableName, list[CatalogColumn]] = tables.columns
        self.overrides = overrides
        named = {USER.name: overrides.users, MEMBER.name: overrides.members}
        self.named: tuple[str, ...] | None = named[description.name]
        self.by_hand: Mapping[str, str | None] = overrides.columns.get(description.name, {})
        self.search_path = search_path

    def find(self, before: Table | None, *, heirs: Collection[TableName] = ()) -> Table | None:
        """Find the table.

        Where it was found before, only the same one will do, or one of its heirs. A copy is taken
        by hand only.
        """
        tables, required = self._considered()
        if self.named and not tables:
            raise self._unknown_table(self.named)
        complete = [name for name in tables if not self._lacking(name, required)]
        fitting = [name for name in complete if self._is_legible(name)]
        same = None
        if before:
            same = self._same(before, fitting)
            heirs = fitting if self.named else heirs
            fitting = [same] if same else [n for n in fitting if n in heirs and self._may_stand(n)]
        weighed = [self.evidence.weigh(name) for name in fitting]
        known = bool(self.named or before)
        candidates = best([each for each in weighed if known or each.is_candidate])
        if not candidates:
            if not all(map(self._is_legible, complete)):
                raise self._illegible(complete)
            self._check_none_was_meant(tables, required)
            if before:
                raise self._gone(before)
            return None
        chosen = self._in_path([each.table for each in candidates])
        if len(chosen) > 1:
            first = setting(self.overrides, self.description, table=min(chosen))
            raise OperatorError(
                f"several tables could be Better Auth's: {some(map(str, chosen))}; "
                f"{self.description.setting} decides: {first}, for one"
            )
        return self._table(chosen[0], home=before.home if before and same else chosen[0])

    def _in_path(self, names: list[TableName]) -> list[TableName]:
        """Return the tables in the first schema of the search path that has any."""
        for schema in self.search_path:
            if there := [name for name in names if name.schema == schema]:
                return there
        return names

    def follow(self, before: Table) -> Table | None:
        """Return the table found before as it is now; None if it is not there."""
        tables, required = self._considered()
        complete = [name for name in tables if not self._lacking(name, required)]
        name = self._same(before, list(filter(self._is_legible, complete)))
        return self._table(name, home=before.home) if name else None

    def _considered(self) -> tuple[list[TableName], Sequence[str]]:
        """Return the tables that could be meant, and the fields that the one meant must have."""
        if self.named is None:
            return list(self.tables), self.description.known_by
        named = [name for name in self.tables if name[-len(self.named) :] == self.named]
        return named, self.description.needs

    def _same(self, before: Table, fitting: Collection[TableName]) -> TableName | None:
        """Return the table found before: what bears that name, else the same under another."""
        if before.home in fitting:
            return before.home
        renamed = (
            name
            for name in fitting
            if relation(self.tables[name][0].version) == before.relation and self._may_stand(name)
        )
        return next(renamed, None)

    def _may_stand(self, name: TableName) -> bool:
        """Tell whether a table may stand for another: one that is called a copy only by hand."""
        return self.named is not None or not any(map(says_copy, name))

    def _is_legible(self, name: TableName) -> bool:
        """Tell whether a name has no control characters, but for what the operator has named.

        No application calls a table `member`, LINE FEED, `x`: such a name is made to be misread.
        """
        return all(part in (self.named or ()) or not CONTROL.search(part) for part in name)

    def _illegible(self, names: Iterable[TableName]) -> OperatorError:
        refused = some(str(name) for name in names if not self._is_legible(name))
        return OperatorError(
            f"{refused} could be Better Auth's, but a name with control characters is not taken: "
            f"rename it, or say by {self.description.setting} which table is meant"
        )

    def _gone(self, table: Table) -> SchemaError:
        return SchemaError(
            f"{table.home or table} is gone, or no longer has the columns of a table of "
            f"{self.description.name}s: if that is meant to stay so, a restart looks for another, "
            f"and {self.description.setting} names it"
        )

    def _lacking(self, name: TableName, required: Iterable[str]) -> list[str]:
        return lacking(self.tables[name], required, self.by_hand)

    def _unknown_table(self, named: tuple[str, ...]) -> OperatorError:
        names = {plain(name.name): name for name in self.tables}
        near_it = difflib.get_close_matches(plain(named[-1]), names, n=SHOWN)
        return OperatorError(
            f"{self.description.setting}: there is no table {shown(*named)}"
            + (f"; near it: {', '.join(str(names[each]) for each in near_it)}" if near_it else "")
        )

    def _check_none_was_meant(self, tables: Sequence[TableName], required: Sequence[str]) -> None:
        """Raise OperatorError if nothing was found although the operator has named something."""
        said = [field for field in required if self.by_hand.get(field)]
        if not self.named and not said:
            return
        for each in [] if self.named else self.evidence.considered():
            if not each.missing:
                line = setting(self.overrides, self.description, table=each.table)
                raise OperatorError(
                    f"{each.table} has the columns, but {each.against[0]}; "
                    f"if it is meant, set {line}"
                )
        unsaid = set(required) - set(said)
        for name in tables:
            if self.named or not self._lacking(name, unsaid):
                missing = self._lacking(name, required)[0]
                columns = self.tables[name]
                raise missing_column(name, columns, self.description, missing, self.by_hand)
        wanted = ", ".join(visible(self.by_hand.get(field) or field) for field in required)
        raise OperatorError(f"RESPONDER_COLUMNS: no table has the columns {wanted}")

    def _table(self, name: TableName, *, home: TableName | None) -> Table:
        columns = self.tables[name]
        asked = fields_of(self.description, self.overrides.additional)
        found = mapped(name, columns, self.description, self.by_hand, asked)
        unreadable = {shown(*name, each.name) for each in found.values() if not each.readable}
        if unreadable:
            raise SchemaError(
                f"the role of DATABASE_URL may not read {some(unreadable)}: "
                f"`responder grants` prints what it needs{self._instead()}"
            )
        return as_table(name, columns, found, home=home)

    def _instead(self) -> str:
        """Say which tables the role may read, if one of them was made for it to read."""
        readable = [
            each.table
            for each in self.evidence.considered()
            if each.is_candidate
            and all(
                column.readable
                for field in self.description.known_by
                for column in holding(self.tables[each.table], field, self.by_hand)
            )
        ]
        if not readable:
            return ""
        line = setting(self.overrides, self.description, table=min(readable))
        return f"; it may read {some(map(str, readable))}: {line} takes that, if it is meant"
