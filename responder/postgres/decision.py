"""Which of the tables that the catalog has are Better Auth's."""

# The users are looked for first, then the members of these users (see `search`), and then what has
# the names of their organizations. What does not go together is an error.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from responder.errors import OperatorError, SchemaError
from responder.postgres.additional import problem
from responder.postgres.catalog import Catalog, CatalogColumn
from responder.postgres.evidence import MemberEvidence, Piece, Tables, UserEvidence, Weighed
from responder.postgres.fields import MEMBER, USER
from responder.postgres.near import Hint, hints_of_fields, hints_of_members, near, setting
from responder.postgres.nearest import some
from responder.postgres.organizations import named_by
from responder.postgres.overrides import NO_OVERRIDES, Overrides
from responder.postgres.quoting import shown
from responder.postgres.schema import Schema, Table, TableName
from responder.postgres.search import Search


@dataclass(slots=True)
class Decision:
    """What was found, or why nothing was; and what spoke for and against each table.

    `hints` are what the operator may want to set.
    """

    found: Schema | None = None
    problem: SchemaError | None = None
    users: Sequence[Weighed] = ()
    members: Sequence[Weighed] = ()
    hints: Sequence[Hint] = ()

    @property
    def schema(self) -> Schema:
        """What was found; raises the problem if nothing was."""
        if self.found is None:
            raise self.problem or SchemaError("the tables have not been looked for")
        return self.found


def find(
    catalog: Catalog, overrides: Overrides = NO_OVERRIDES, *, before: Schema | None = None
) -> Schema:
    """Find Better Auth's tables; `before` is what was found in this database last.

    Raises SchemaError if there are no users or if a table is gone that was there before,
    OperatorError for what only the operator can decide.
    """
    return decide(catalog, overrides, before=before).schema


def decide(
    catalog: Catalog, overrides: Overrides = NO_OVERRIDES, *, before: Schema | None = None
) -> Decision:
    """Find Better Auth's tables as `find` does, and say why; raises nothing."""
    decision = Decision()
    try:
        _decide(decision, Tables(catalog), catalog.search_path, overrides, before)
    except SchemaError as problem:
        decision.found, decision.problem = None, problem
    return decision


def _decide(
    decision: Decision,
    tables: Tables,
    search_path: Sequence[str],
    overrides: Overrides,
    before: Schema | None,
) -> None:
    path = overrides.search_path or search_path
    of_user = UserEvidence(tables, overrides.columns.get(USER.name, {}))
    decision.users = of_user.considered()
    referred_to = [
        each
        for each in decision.users
        if each.decisive and not each.against and _is_nearly(each, tables.columns)
    ]
    heirs = [each.table for each in referred_to if each.is_candidate]
    search = Search(USER, of_user, tables, overrides, path)
    if referred_to and not heirs and not overrides.users and not before:
        raise OperatorError(_what_is_missing(referred_to[0], search))
    users = search.find(before.users if before else None, heirs=heirs)
    if users is None:
        raise _no_users(decision.users, search)
    decision.found = Schema(users, None, _formers(users, tables.columns))
    hints = list(hints_of_fields(USER, users, tables.columns[_name(users)], overrides))
    if not overrides.no_members:
        of_member = MemberEvidence(
            tables,
            overrides.columns.get(MEMBER.name, {}),
            users,
            adopting=before is not None and before.members is None,
        )
        decision.members = of_member.considered()
        search = Search(MEMBER, of_member, tables, overrides, path)
        members = search.find(before.members if before else None)
        if members:
            _check_alike(users, members)
            if not (before or overrides.members):
                _check_name(members, decision.members, tables, users, overrides)
            formers = decision.found.formers + _formers(members, tables.columns)
            organizations = named_by(members, tables, overrides)
            decision.found = Schema(users, members, formers, organizations=organizations)
            hints += hints_of_fields(MEMBER, members, tables.columns[_name(members)], overrides)
        else:
            hints += hints_of_members(decision.members, tables, users, overrides)
    decision.hints = hints
    decision.found = replace(decision.found, additional=overrides.additional)
    if not before:  # later a column may have been dropped
        _check_additional(decision.found, tables)


def follow(catalog: Catalog, overrides: Overrides, before: Schema) -> Schema | None:
    """Return the tables that were found as they are now; None if one of them is not there.

    Args:
        catalog: what it says of these tables, and of those that bear their names.
        overrides: what the operator has said.
        before: what was found in this database last.

    Raises SchemaError as `find` does.
    """
    tables = Tables(catalog)
    of_user = UserEvidence(tables, overrides.columns.get(USER.name, {}))
    users = Search(USER, of_user, tables, overrides, ()).follow(before.users)
    if users is None:
        return None
    if before.members is None:
        return Schema(users, None, _formers(users, tables.columns), overrides.additional)
    of_member = MemberEvidence(tables, overrides.columns.get(MEMBER.name, {}), users)
    members = Search(MEMBER, of_member, tables, overrides, ()).follow(before.members)
    if members is None:
        return None
    _check_alike(users, members)
    formers = _formers(users, tables.columns) + _formers(members, tables.columns)
    organizations = named_by(members, tables, overrides)
    return Schema(users, members, formers, overrides.additional, organizations)


def _no_users(weighed: Sequence[Weighed], search: Search) -> SchemaError:
    """Return the error for users that were not found: with what is near them."""
    why = "no table has the columns id, email and emailVerified"
    complete = [each for each in weighed if not each.missing]
    called = [
        each
        for each in weighed
        if each.missing and not each.against and _is_nearly(each, search.tables)
    ]
    if complete:
        line = setting(search.overrides, USER, table=complete[0].table)
        why = (
            f"{complete[0].table} has the columns of Better Auth's users, but "
            f"{complete[0].against[0]}; if it is meant, set {line}"
        )
    elif called:
        why = _what_is_missing(called[0], search)
    return SchemaError(f"{why}: has Better Auth's migration run in this database?")


def _is_nearly(weighed: Weighed, tables: Mapping[TableName, Sequence[CatalogColumn]]) -> bool:
    """Tell whether it has what users need, if only under names that are near."""
    needed = set(USER.needs) & set(weighed.missing)
    return all(near(field, tables[weighed.table], USER) for field in needed)


def _what_is_missing(weighed: Weighed, search: Search) -> str:
    columns = search.tables[weighed.table]
    lines, fields = [], {}
    for field in weighed.missing:
        names = near(field, columns, USER)
        fields[field] = names[0] if names else ""
        lines.append(
            f"has no {field}; near it: {some(map(shown, names))}" if names else f"has no {field}"
        )
    line = setting(search.overrides, USER, columns=fields)
    is_what = "is what sessions refer to" if weighed.decisive else "is called as users are"
    return f"{weighed.table} {is_what}, but {', '.join(lines)}; set {line}"


def _check_additional(found: Schema, tables: Tables) -> None:
    """Raise OperatorError for fields that are asked for and cannot be answered."""
    for description, table in ((USER, found.users), (MEMBER, found.members)):
        names = [each.name for each in tables.columns[_name(table)]] if table else []
        columns = table.columns if table else None
        if what := problem(found.additional, description, columns, names):
            raise OperatorError(what)


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


def _check_name(
    members: Table,
    weighed: Sequence[Weighed],
    tables: Tables,
    users: Table,
    overrides: Overrides,
) -> None:
    """Raise OperatorError if another table has the name of members, and a key under a near name.

    `member` with an `orgId` is likelier to be meant than `channel_members`.
    """
    named = [each for each in weighed if Piece.NAME in each.speaks and not each.against]
    if any(each.table == _name(members) for each in named):
        return
    rivals = [
        each
        for each in named
        if Piece.REFERS in each.speaks and set(MEMBER.needs) & set(each.missing)
    ]
    for hint in hints_of_members(rivals, tables, users, overrides):
        line = setting(overrides, MEMBER, table=_name(members))
        raise OperatorError(f"{hint}; or {line}, if {members} is meant")


def _name(table: Table) -> TableName:
    return TableName(table.schema, table.name)


def _formers(
    table: Table, tables: Mapping[TableName, Sequence[CatalogColumn]]
) -> tuple[tuple[TableName, str], ...]:
    """Return the name under which a table was found, if it bears another now (see `Schema`)."""
    if table.home is None or table.home == (table.schema, table.name):
        return ()
    return ((table.home, tables[table.home][0].version if table.home in tables else ""),)
