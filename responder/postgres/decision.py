"""Which of the tables that the catalog has are Better Auth's."""

# Names are compared without case and underscores, column by column, because a table may mix
# camelCase and snake_case (generators, ORMs and years of migrations leave such tables behind). A
# table is Better Auth's users if it has the columns every version has had. An application may keep
# a `users` of its own beside them: then the one that Better Auth's sessions and accounts reference
# is taken, and of several members the one that references these users. What the operator has named
# comes before all that, and what our role cannot read comes last. What is still ambiguous is an
# error, never a guess; so is a column whose type cannot hold what it is for.
#
# A table once found stays the one meant, whatever comes up beside it: what bears the name under
# which it was found, because that is the name by which the application reads it, else the same
# relation under another name. A migration keeps the old table, an operator makes a copy, and
# foreign keys follow the table that was renamed away: what is called a copy never stands in. While
# a table is gone nothing takes its place but what sessions and accounts refer to: an application's
# own users would fit as well and be wrong.

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from responder.errors import OperatorError, SchemaError
from responder.postgres.catalog import Catalog, CatalogColumn
from responder.postgres.fields import ACCOUNT, MEMBER, SESSION, USER, Description, plain
from responder.postgres.names import says_copy
from responder.postgres.overrides import NO_OVERRIDES, Overrides
from responder.postgres.quoting import shown
from responder.postgres.schema import Column, Schema, Table, TableName, relation
from responder.terminal import visible

SHOWN: Final = 5  # how many candidates an error names: a schema for each tenant makes thousands
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def find(
    catalog: Catalog, overrides: Overrides = NO_OVERRIDES, *, before: Schema | None = None
) -> Schema:
    """Find Better Auth's tables; `before` is what was found in this database last.

    Raises SchemaError if there are no users or if a table is gone that was there before,
    OperatorError for what only the operator can decide.
    """
    tables: dict[TableName, list[CatalogColumn]] = {}
    for column in catalog.columns:
        tables.setdefault(TableName(column.schema, column.table), []).append(column)
    keys = [(TableName(*each[:2]), TableName(*each[2:4])) for each in catalog.references]
    owners = {
        target
        for source, target in keys
        if _fits(its := tables.get(source, []), SESSION) or _fits(its, ACCOUNT)
    }
    path = overrides.search_path or catalog.search_path
    users = _Search(USER, tables, overrides, overrides.users, path).find(
        before.users if before else None, preferred=owners, heirs=owners
    )
    if users is None:
        raise SchemaError(
            "no table has the columns id, email and emailVerified: "
            "has Better Auth's migration run in this database?"
        )
    if overrides.no_members:
        return Schema(users, None, _formers(users, tables))
    its_own = {source for source, target in keys if target == (users.schema, users.name)}
    members = _Search(MEMBER, tables, overrides, overrides.members, path).find(
        before.members if before else None, preferred=its_own
    )
    formers = _formers(users, tables)
    if members:
        _check_alike(users, members)
        formers += _formers(members, tables)
    return Schema(users, members, formers)


class _Search:
    """The search for one table among those there are."""

    def __init__(
        self,
        description: Description,
        tables: Mapping[TableName, Sequence[CatalogColumn]],
        overrides: Overrides,
        named: tuple[str, ...] | None,
        search_path: Sequence[str],
    ) -> None:
        self.description = description
        self.tables = tables
        self.named = named
        self.by_hand = overrides.columns.get(description.name, {})
        self.search_path = search_path

    def find(
        self,
        before: Table | None,
        *,
        preferred: Collection[TableName],
        heirs: Collection[TableName] = (),
    ) -> Table | None:
        """Find the table; where several fit, prefer one of these.

        Where it was found before, only the same one will do, or one of its heirs. A copy is taken
        by hand only.
        """
        tables, required = list(self.tables), self.description.known_by
        if self.named:
            tables = [name for name in tables if name[-len(self.named) :] == self.named]
            required = self.description.needs
            if not tables:
                raise self._unknown_table(self.named)
        complete = [name for name in tables if self._fits(name, required)]
        fitting = [name for name in complete if self._is_legible(name)]
        same = None
        if before:
            same = self._same(before, fitting)
            heirs = fitting if self.named else heirs
            fitting = [same] if same else [n for n in fitting if n in heirs and self._may_stand(n)]
        if not fitting:
            if not all(map(self._is_legible, complete)):
                raise self._illegible(complete)
            self._check_none_was_meant(tables, required)
            if before:
                raise self._gone(before)
            return None
        schemas = {name.schema for name in fitting}
        first = next((each for each in self.search_path if each in schemas), None)
        in_schema = [name for name in fitting if name.schema == first]
        readable = [name for name in fitting if self._readable(name, required)]
        for better in (preferred, in_schema, readable):
            if len(fitting) > 1:
                fitting = [name for name in fitting if name in better] or fitting
        if len(fitting) > 1:
            raise OperatorError(
                f"several tables could be Better Auth's: {some(map(str, fitting))}; "
                f"{self.description.setting} decides"
            )
        return self._table(fitting[0], home=before.home if before and same else fitting[0])

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
        return all(part in (self.named or ()) or not _CONTROL.search(part) for part in name)

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

    def _fits(self, name: TableName, required: Iterable[str]) -> bool:
        return _fits(self.tables[name], required, self.by_hand)

    def _readable(self, name: TableName, required: Iterable[str]) -> bool:
        return all(
            column.readable
            for field in required
            for column in _same(self.tables[name], field, self.by_hand)
        )

    def _unknown_table(self, named: tuple[str, ...]) -> OperatorError:
        names = {plain(name.name): name for name in self.tables}
        near = difflib.get_close_matches(plain(named[-1]), names, n=SHOWN)
        return OperatorError(
            f"{self.description.setting}: there is no table {shown(*named)}"
            + (f"; near it: {', '.join(str(names[each]) for each in near)}" if near else "")
        )

    def _check_none_was_meant(self, tables: Sequence[TableName], required: Sequence[str]) -> None:
        """Raise OperatorError if nothing was found although the operator has named something."""
        said = [field for field in required if self.by_hand.get(field)]
        if not self.named and not said:
            return
        unsaid = set(required) - set(said)
        for name in tables:
            if self.named or self._fits(name, unsaid):
                missing = next(field for field in required if not self._fits(name, [field]))
                raise self._missing_column(name, missing)
        columns = ", ".join(visible(self.by_hand.get(field) or field) for field in required)
        raise OperatorError(f"RESPONDER_COLUMNS: no table has the columns {columns}")

    def _missing_column(self, table: TableName, missing: str) -> OperatorError:
        wanted = self.by_hand.get(missing) or missing
        names = [column.name for column in self.tables[table]]
        plainly = {plain(name): name for name in names}
        near = difflib.get_close_matches(plain(wanted), plainly, n=SHOWN)
        listed = [plainly[each] for each in near] or names
        return OperatorError(
            f"{table} has no column {visible(wanted)}: "
            f"RESPONDER_COLUMNS={self.description.name}.{missing}=… says what it is called there; "
            f"{'near it' if near else 'it has'}: {some(map(shown, listed))}"
        )

    def _table(self, name: TableName, *, home: TableName | None) -> Table:
        columns = self.tables[name]
        found: dict[str, Column] = {}
        unreadable: list[str] = []
        for each, kind in self.description.fields.items():
            column = self._column(name, each)
            if column is None:
                continue
            if column.type not in kind.types and column.category not in kind.categories:
                raise OperatorError(
                    f"{shown(*name, column.name)} is of type {shown(column.type)}, "
                    f"which cannot be read as {each}; "
                    f"RESPONDER_COLUMNS={self.description.name}.{each}=… names another column"
                )
            if not column.readable:
                unreadable.append(shown(*name, column.name))
            found[each] = Column(column.name, *column[6:10])
        if unreadable:
            raise SchemaError(
                f"the role of DATABASE_URL may not read {some(unreadable)}: "
                "`responder grants` prints what it needs"
            )
        return Table(*name, found, columns[0].version, columns[0].row_security, home)

    def _column(self, table: TableName, field: str) -> CatalogColumn | None:
        same = _same(self.tables[table], field, self.by_hand)
        if not same:
            if self.by_hand.get(field):
                raise self._missing_column(table, field)
            return None
        # Where columns differ in case and underscores only, Better Auth's own spelling wins.
        snake = re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", field)
        for spelling in (field, snake):
            for column in same:
                if column.name == spelling:
                    return column
        if len(same) > 1:
            raise OperatorError(
                f"{table} has several columns for {field}: "
                f"{some(shown(each.name) for each in same)}; "
                f"RESPONDER_COLUMNS={self.description.name}.{field}=… decides"
            )
        return same[0]


def _same(
    columns: Iterable[CatalogColumn], field: str, by_hand: Mapping[str, str | None]
) -> list[CatalogColumn]:
    """The columns that could hold a field."""
    if field in by_hand:
        return [column for column in columns if column.name == by_hand[field]]
    return [column for column in columns if plain(column.name) == plain(field)]


def _fits(
    columns: Iterable[CatalogColumn],
    required: Iterable[str],
    by_hand: Mapping[str, str | None] | None = None,
) -> bool:
    by_hand = by_hand or {}
    literal = {column.name for column in columns}
    names = {plain(name) for name in literal}
    return all(
        by_hand[field] in {None, *literal} if field in by_hand else plain(field) in names
        for field in required
    )


def _check_alike(users: Table, members: Table) -> None:
    """An integer is never a uuid; any other two types of key can be compared."""
    types = {users.columns["id"].type, members.columns["userId"].type}
    if "uuid" in types and types & {"int2", "int4", "int8"}:
        raise OperatorError(
            f"{members}.{shown(members.columns['userId'].name)} cannot refer to "
            f"{users}.{shown(users.columns['id'].name)}: "
            f"their types are {' and '.join(map(shown, sorted(types)))}; "
            f"{MEMBER.setting} decides"
        )


def _formers(
    table: Table, tables: Mapping[TableName, Sequence[CatalogColumn]]
) -> tuple[tuple[TableName, str], ...]:
    """Return the name under which a table was found, if it bears another now (see `Schema`)."""
    if table.home is None or table.home == (table.schema, table.name):
        return ()
    return ((table.home, tables[table.home][0].version if table.home in tables else ""),)


def some(names: Iterable[str]) -> str:
    """Return the first of the names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
