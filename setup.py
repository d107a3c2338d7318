"""What pyproject.toml cannot say: the README without links that lead nowhere on its own."""

import re
from pathlib import Path

from setuptools import setup

# [docs/tables.md](docs/tables.md) leads to a file of the repository; a package index has none. The
# source distribution has those files, so their names stay.
README = Path(__file__).with_name("README.md").read_text("utf8")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)([^)]+)\)")

setup(
    long_description=LINK.sub(r"\1", README),
    long_description_content_type="text/markdown",
)
