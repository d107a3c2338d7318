"""Write the SQL files that hold Better Auth's own tables."""

import asyncio
import os
import subprocess
from pathlib import Path

from responder.dev import postgres

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = {
    "plural": ROOT / "responder" / "dev" / "tables.sql",
    "default": ROOT / "tests" / "schemas" / "default.sql",
}


async def main() -> None:
    """Ask Better Auth, with an empty database for each variant, and write what it says."""
    async with postgres.running() as server:
        for variant, file in FILES.items():
            url = await server.create_database(variant)
            generated = await asyncio.create_subprocess_exec(
                "node",
                "generate.mjs",
                variant,
                cwd=HERE,
                env={**os.environ, "DATABASE_URL": url, "BETTER_AUTH_TELEMETRY": "0"},
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await generated.communicate()
            if generated.returncode:
                raise SystemExit(generated.returncode)
            file.write_bytes(output)


if __name__ == "__main__":
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=HERE, check=True)
    asyncio.run(main())
