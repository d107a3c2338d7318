"""Names of schemas, tables, columns and roles, as odd as PostgreSQL allows."""

from __future__ import annotations

from hypothesis import strategies as st

from responder.postgres.fields import refuse_secret

MAX_BYTES = 63
SYSTEM = {"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}
NASTY = [
    *('"', '""', "'", ";", "--", "/*", "*/", "$1", "$$", "%s", "{}", "\\", "\n", "\t", " ", " x "),
    *(".", ",", "=", '"; drop table canary; --', "'; drop table canary; --", "select", "user"),
    *("order", "null", "from", "current_user", "n", "u", "m", "l", "s", "k", "analysed", "NAME"),
    *("ünïcödé", "名前", "x" * 63, "é" * 31, "🦆", "\u202e", "\u00a0", "a\u0301", "now()", "1"),
    *("-1", "1.5", "off", "array[1]", "a.b.c"),
    # What would begin a line, end a constant, or move the cursor, where it is printed raw.
    *("member\nalter role evil superuser; --", "a\r\nb", "\x1b[2J\x1b[31m", "\x9b2J", "\x7f"),
    *(
        "\u2028select 1;",
        "\u2029",
        "\u0085x",
        "\u2066member\u2069",
        "\U000e0041",
        "\ufeff",
        "\\000a",
    ),
    *('U&"\\000a"', "\\'", "E'\\n'", "$do$", "\\q", ":name", "*/\n;", "\x01"),
]


def fits(name: str) -> bool:
    return 0 < len(name.encode()) <= MAX_BYTES and name not in SYSTEM


any_name = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=MAX_BYTES),
    st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Co"], exclude_characters="\0")),
    st.tuples(st.sampled_from(NASTY), st.sampled_from(NASTY)).map("".join),
).filter(fits)


def is_readable(name: str) -> bool:
    """Whether a column of that name is read at all: one that seems to hold a secret is not."""
    try:
        refuse_secret(name)
    except ValueError:
        return False
    return True


def names(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(any_name.filter(is_readable), min_size=count, max_size=count, unique=True)


def raw(*parts: str) -> str:
    """Quote a name as PostgreSQL's `quote_ident` does, with whatever it holds."""
    return ".".join('"{}"'.format(part.replace('"', '""')) for part in parts)
