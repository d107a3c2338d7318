"""The documents say what the code does: their examples are run, their tables are compared."""

from __future__ import annotations

import doctest
import importlib
import json
import logging
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from responder import cli
from responder.errors import BY_CODE
from responder.http import acceptor, head, listener, protocol, target
from responder.logs import JsonFormatter
from responder.models import Identity, Membership, User
from responder.settings import Settings
from tests.markdown import ROOT, rows
from tests.roles import as_role

SUBJECTS = (ROOT / "subjects.md").read_text()
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
HTTP = (ROOT / "docs" / "http.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
EXAMPLES = re.findall(r"```console\n\$ nats req (.*)\n((?:.|\n)*?)```", SUBJECTS + README)

DOCTESTS = sorted(
    str(file.relative_to(ROOT))
    for file in (*(ROOT / "responder").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"))
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
async def test_an_example_is_answered_as_printed(people_service, command, output):
    """Each `nats req` of the documents gets the headers and the reply that they show."""
    subject, payload = shlex.split(command)
    headers, _, body = output.rpartition("\n\n")

    answer = await people_service.ask(subject, payload)

    assert json.loads(body) == answer.json
    assert headers == "\n".join(f"{name}: {value}" for name, value in answer.headers.items())


@pytest.mark.parametrize("file", DOCTESTS)
def test_an_example_in_a_docstring_is_true(file):
    """Each example of a docstring prints what stands below it, and none is passed over."""
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))

    failed, attempted = doctest.testmod(module)

    assert (0, (ROOT / file).read_text().count(">>> ")) == (failed, attempted)


def anchors(document: Path) -> set[str]:
    """What can be linked to in a document: its headings, as a forge names them."""
    headings = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_a_link_leads_somewhere(document):
    """Each link within the documents names a file that is there, and a heading of it."""
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert [] == broken


def test_every_error_is_documented():
    """The table of errors has each code with its number, and no other."""
    documented = {code: int(number) for code, number, _ in rows(SUBJECTS, "code")}

    assert {code: error.number for code, error in BY_CODE.items()} == documented


def test_every_error_says_what_an_operator_does():
    """docs/operating.md has each code, those of HTTP alone too, and no other."""
    documented = [row[0] for row in rows(OPERATING, "code to an operator")]
    sources = [path.read_text() for path in (ROOT / "responder" / "http").glob("*.py")]
    of_http = re.findall(r"\bproblem\(\s*\d+,\s*\"(\w+)\"", "".join(sources))

    assert {*BY_CODE, *of_http} == set(documented)
    assert len(documented) == len(set(documented))


def test_every_key_of_a_log_line_is_documented():
    """docs/operating.md has the keys that a line with a traceback has, in their order."""
    record = logging.LogRecord(
        "responder", logging.ERROR, "", 1, "it failed", None, (ValueError, ValueError(), None)
    )
    line = json.loads(JsonFormatter(worker=1).format(record))

    assert [*line] == [row[0] for row in rows(OPERATING, "key of a line")]


def test_every_field_is_documented():
    """The table of the User has its keys in their order."""
    assert [field.alias for field in User.model_fields.values()] == [
        row[0] for row in rows(SUBJECTS, "key")
    ]


def test_every_field_of_an_identity_is_documented():
    """The table of the Identity has its keys in their order."""
    documented = [key for row in rows(SUBJECTS, "identity") for key in row[0].split(", ")]

    assert [field.alias for field in Identity.model_fields.values()] == documented


def test_every_field_of_a_membership_is_documented():
    """The table of the Membership has its keys in their order."""
    documented = [key for row in rows(SUBJECTS, "membership") for key in row[0].split(", ")]

    assert [field.alias for field in Membership.model_fields.values()] == documented


def test_every_setting_is_documented():
    """The table of settings has each of them, and no other."""
    documented = {name for row in rows(SETTINGS, "variable") for name in row[0].split(", ")}

    assert {field.alias for field in Settings.model_fields.values()} == documented


def test_every_command_is_documented():
    """The README's table has each command, and no other."""
    documented = {row[0].split()[1] for row in rows(README, "command")}

    subparsers = cli._parser()._subparsers
    assert subparsers
    commands = subparsers._group_actions[0].choices
    assert commands
    assert set(commands) == documented


def test_every_limit_of_http_is_documented():
    """The table of limits has the numbers that are in force."""
    documented = [int(row[1].split()[0].replace(",", "")) for row in rows(HTTP, "limit over HTTP")]

    assert [
        head.MAX_TARGET,
        target.MAX_PARAMETERS,
        head.MAX_HEAD,
        head.MAX_LINES,
        protocol.HEAD_TIMEOUT,
        listener.KEEP_ALIVE,
        1,
        acceptor.MAX_CONNECTIONS,
        acceptor.RESERVED,
        listener.ADMIN_CONNECTIONS,
    ] == documented


async def test_the_python_example_runs(people_service, capsys):
    """The README's Python prints the person it asks for, and everyone in their organization."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    code = example[1].replace("nats://127.0.0.1:4222", people_service.nats.url)
    scope: dict[str, Any] = {}
    exec("async def example():\n" + textwrap.indent(code, "    "), scope)

    await scope["example"]()

    printed = capsys.readouterr().out.splitlines()
    assert "Zoë Lindqvist owner" == printed[0]
    assert 184 == len(set(printed[1:]))


async def test_the_privileges_of_the_readme_suffice(create_database, template, start, postgres):
    """With what the README grants every lookup works, and nothing else can be read."""
    url = await create_database(template=template[0])
    grants = re.search(r"```sql\n(.*?)```", README, re.DOTALL)
    assert grants
    admin = await asyncpg.connect(url)
    await admin.execute(grants[1])
    cast = template[1]
    try:
        service = await start(as_role(url, "reader"))
        asked = {
            "users.get": cast.owner.id,
            "users.by_email": cast.owner.email,
            "users.org_list": cast.organization.id,
            "users.get_many": {"ids": [cast.owner.id]},
        }
        codes = [(await service.ask(subject, payload)).code for subject, payload in asked.items()]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.database.fetch("select password from accounts")
    finally:
        await admin.execute("drop owned by reader; drop role reader")
        await admin.close()

    assert [None] * 4 == codes


def test_the_tests_that_reliability_names_are_there():
    """A promise is held by a test of the name that stands beside it."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    tests = "".join(each.read_text() for each in (ROOT / "tests").rglob("test_*.py"))

    assert named
    assert set() == named - set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
