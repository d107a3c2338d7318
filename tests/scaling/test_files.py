"""Each file of deploy/scaling is on the page about it, and in a test that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.markdown import ROOT, rows
from tests.scaling.nodes import FILES

PAGE = (ROOT / "docs" / "scaling.md").read_text()
HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(FILES.iterdir()), ids=lambda file: file.name)
def test_a_file_is_what_its_test_runs(file):
    """The table names the file with its test, and the test names the file."""
    link = f"[{file.name}](../deploy/scaling/{file.name})"
    (test,) = [test for _, files, test in rows(PAGE, "topology") if link in files]

    assert f'"{file.name}"' in (HERE / test).read_text()
