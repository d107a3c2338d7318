"""Times as applications store them, of whatever type, as SQL that never fails."""

# Better Auth writes timestamps. A schema made by hand may have the milliseconds of JavaScript's
# `Date.now()` instead, seconds, or text. What is no time at all is null, so that one row of rubbish
# is never the end of a lookup; a ban until then has no end. Text is ISO 8601, extended:
#
#   2030-01-02   2030-01-02T03:04Z   2030-01-02 03:04:05.678+01:00
#
# PostgreSQL reads more, and refuses February 30 with an error, so that a pattern decides first.

from __future__ import annotations

from typing import Final

from responder.postgres.quoting import literal

NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
TEXTS: Final = frozenset({"text", "varchar", "bpchar", "citext"})
TIMES: Final = frozenset({"timestamp", "timestamptz", "date"})

_FIRST, _MILLISECONDS = -62_135_596_800, 10**11  # seconds, the year 1; from where they are no more
_END: Final = 253_402_300_800_000  # milliseconds, the year 10000

_LEAP: Final = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"
_DAY: Final = (
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME: Final = "[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?"
_ZONE: Final = "([Zz]|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)"
_LOCAL: Final = f"^(?!0000)({_DAY}|{_LEAP})({_TIME})?$"
_ZONED: Final = f"^(?!0000)({_DAY}|{_LEAP}){_TIME}{_ZONE}$"


def instant(value: str, type_: str, timezone: str) -> str:
    """Return a value as a timestamp with a zone, null where it is none.

    Args:
        value: SQL.
        type_: its type, one of NUMBERS, TEXTS or TIMES.
        timezone: of a time without zone.
    """
    local = f"at time zone {literal(timezone)}"
    if type_ == "timestamptz":
        return value
    if type_ == "timestamp":
        return f"{value}::timestamp {local}"
    if type_ == "date":  # which may be later than any timestamp
        return (
            f"case when {value} < date '10000-01-01' "
            f"then greatest({value}, date '0001-01-01')::timestamp {local} end"
        )
    if type_ in NUMBERS:
        return (
            f"case when {value} < {_MILLISECONDS} "
            f"then to_timestamp(greatest({value}, {_FIRST})::float8) "
            f"when {value} < {_END} then to_timestamp({value}::float8 / 1000) end"
        )
    text = f"{value}::text"
    return (
        f"case when {text} ~ {literal(_ZONED)} then {text}::timestamptz "
        f"when {text} ~ {literal(_LOCAL)} then {text}::timestamp {local} end"
    )
