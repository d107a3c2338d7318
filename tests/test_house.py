"""The house stays as it is described: small rooms, short functions, true documents."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "responder").rglob("*.py"))
MAX_MODULE, MAX_FUNCTION = 400, 50  # physical lines, docstrings included
OURS = ("responder", "benchmarks", "examples", "tests", "tools")
INSTALLED = {"node_modules", ".venv", ".installed"}  # by npm and pip, among ours
# Where ruff or mypy is told to look away, without the rule or without a reason behind it.
UNEXPLAINED = re.compile(r"# (?:noqa(?!: [A-Z0-9, ]+ - \w)|type: ignore(?!\[[a-z, -]+\]  # \w)).*")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(module: Path) -> Iterator[tuple[str, int]]:
    """Every function of a module with its number of lines."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            yield f"{relative(module)}:{node.name}", node.end_lineno - node.lineno + 1


def test_no_module_is_long():
    """A module has at most 400 lines."""
    lines = {relative(module): len(module.read_text().splitlines()) for module in MODULES}

    assert {} == {name: count for name, count in lines.items() if count > MAX_MODULE}


def test_no_function_is_long():
    """A function has at most 50 lines."""
    lines = dict(each for module in MODULES for each in functions(module))

    assert {} == {name: count for name, count in lines.items() if count > MAX_FUNCTION}


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_begins_with_what_it_is_for(module):
    """The first line of a module could stand in a table of contents."""
    docstring = ast.get_docstring(ast.parse(module.read_text()))

    assert docstring
    assert "\n" not in docstring
    assert docstring.endswith(".")


def test_every_exception_has_its_reason():
    """Where a linter is told to look away, the line says from what, and why."""
    files = [file for each in OURS for file in (ROOT / each).rglob("*.py")]
    texts = {
        relative(file): file.read_text() for file in files if not INSTALLED.intersection(file.parts)
    }

    assert len(texts) > len(MODULES)
    assert [] == [
        (name, found[0]) for name, text in texts.items() for found in UNEXPLAINED.finditer(text)
    ]


def test_every_module_has_its_layer():
    """Each module of nats, postgres, http and tokens stands in the one order of all modules.

    import-linter says where a module stands in no order of its own package, but not that.
    """
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(each for each in linter["contracts"] if each["name"] == "Imports point down")
    packages = {"http", "nats", "postgres", "tokens"}
    modules = {
        f"{module.parent.name}.{module.stem}"
        for module in MODULES
        if module.parent.name in packages and module.stem != "__init__"
    }
    listed = {each for layer in contract["layers"] for each in layer.split(" | ") if "." in each}

    assert packages == set(contract["exhaustive_ignores"]) - {"__init__", "__main__"}
    assert modules == listed


def test_no_test_is_the_superuser_unawares():
    """The superuser's URL has a password: another role's is made by `as_role`, not by replacing."""
    tests = sorted((ROOT / "tests").glob("**/test_*.py"))
    idiom = "//postgres" + '@", '

    assert [] == [relative(path) for path in tests if idiom in path.read_text()]


def test_the_architecture_names_modules_that_exist():
    """Every module that docs/architecture.md names is there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:nats|postgres|http|tokens|checks|dev)\.\w+)`", text))
    there = {relative(path)[len("responder/") : -3].replace("/", ".") for path in MODULES}

    assert len(named) > 10
    assert set() == named - there
