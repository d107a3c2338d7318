"""Names and constants in SQL are what they were, and can be read by a person."""

from __future__ import annotations

import doctest

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from responder.postgres import quoting
from responder.postgres.overrides import column_names, table_name
from responder.postgres.quoting import ident, literal, qualified, regclass, shown, unquoted
from tests.names import NASTY, any_name, is_readable, raw

each_name = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_text = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\0", codec="utf-8"))
)


@pytest.fixture(scope="module")
async def connection(create_database):
    connection = await asyncpg.connect(await create_database(), statement_cache_size=0)
    yield connection
    await connection.close()


@pytest.fixture(params=["on", "off"])
async def either(connection, request):
    """A connection with `standard_conforming_strings`, and without."""
    await connection.execute("set escape_string_warning = off")
    await connection.execute(f"set standard_conforming_strings = {request.param}")
    return connection


@each_name
@given(name=any_name)
async def test_a_quoted_name_is_that_name(either, name):
    """PostgreSQL reads a quoted name as the name, and each of its characters can be printed."""
    (row,) = await either.fetch(f"select 1 as {ident(name)}")

    assert [name] == list(row.keys())
    assert ident(name).isprintable()


@each_name
@given(text=any_text)
@example(text="\\")
@example(text="\\'; drop table x; --")
async def test_a_quoted_constant_is_that_text(either, text):
    """PostgreSQL reads a quoted constant as the text, and each of its characters can be printed."""
    assert text == await either.fetchval(f"select {literal(text)}")
    assert literal(text).isprintable()


@settings(parent=each_name, max_examples=50)
@given(schema=any_name.filter(lambda name: not name.startswith("pg_")), name=any_name)
async def test_a_table_is_found_by_its_name(connection, schema, name):
    """The constant for a table is the table of that name, however odd."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        if schema != "public":
            await connection.execute(f"create schema {raw(schema)}")
        await connection.execute(f"create table {raw(schema, name)} ()")
        there = await connection.fetchval(f"select {regclass(schema, name)}::oid")
        expected = await connection.fetchval(
            "select c.oid from pg_class c join pg_namespace n on n.oid = relnamespace "
            "where nspname = $1 and relname = $2",
            *(schema, name),
        )
    finally:
        await transaction.rollback()

    assert expected == there
    assert qualified(schema, name).isprintable()


@each_name
@given(schema=any_name, table=any_name, column=any_name.filter(is_readable))
def test_settings_take_a_name_as_it_was_printed(schema, table, column):
    """What a message or SQL calls a table or column can be pasted into a setting."""
    assert column == unquoted(ident(column)) == unquoted(shown(column))
    assert (schema, table) == table_name(qualified(schema, table))
    assert (schema, table) == table_name(shown(schema, table))
    assert column == column_names(f"user.name={shown(column)}")["user"]["name"]


@pytest.mark.parametrize("escape", [r"\0", r"\00g0", r"\+11000", r"\+110000", "\\", r"\0000"])
def test_an_escape_that_is_none_is_refused(escape):
    """A setting with an escape that stands for no character says so."""
    with pytest.raises(ValueError, match="backslash"):
        table_name(f'U&"a{escape}"')


@pytest.mark.parametrize("name", ["users", "firstName", "_x1"])
def test_a_word_is_shown_as_it_is(name):
    """Plain names are shown without quotes."""
    assert name == shown(name)


@pytest.mark.parametrize("name", ["a b", "a.b", "", "1a", "users; drop table x", "ü", "a\u202eb"])
def test_what_is_no_word_is_shown_in_quotes(name):
    """A name that could be taken for something else is shown in quotes."""
    assert shown(name) == ident(name) != name


def test_the_examples_are_true():
    """The examples in the docstrings are what the functions return."""
    assert doctest.TestResults(0, 9) == doctest.testmod(quoting)
