"""Other versions of PostgreSQL, from npm: `make test-postgres`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path


def programs() -> Path | None:
    """Return where the programs of the version in RESPONDER_TEST_POSTGRES are, such as 14.

    Packages of npm have no symbolic links; a list in each says where its libraries need them.
    """
    version = os.environ.get("RESPONDER_TEST_POSTGRES")
    if version is None:
        return None
    package = Path(__file__).parent / "node_modules" / f"postgres-{version}"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        with suppress(FileExistsError):
            target.symlink_to((package / link["source"]).relative_to(target.parent))
    return package / "native" / "bin"
