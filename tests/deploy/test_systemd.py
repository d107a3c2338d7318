"""The systemd unit is valid, and fits the program that it starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from responder import cli
from responder.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILE = ROOT / "deploy" / "systemd" / "responder.service"
UNIT = FILE.read_text()
PROGRAM = "/opt/responder/bin/responder"


def value(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_takes_it(tmp_path):
    """`systemd-analyze verify` has nothing to say, once the program is where the unit has it."""
    installed = Path(sys.executable).with_name("responder")
    unit = tmp_path / FILE.name
    unit.write_text(UNIT.replace(PROGRAM, str(installed)))

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )

    assert (0, "") == (verified.returncode, verified.stderr)


def test_it_starts_a_command():
    """What it starts is the program with arguments that it takes."""
    program, *arguments = value("ExecStart").split()

    assert PROGRAM == program
    assert cli._parser().parse_args(arguments).workers > 1


def test_it_ends_after_what_was_received_is_answered():
    """It is killed later than the default drain timeout."""
    assert Settings().drain_timeout < float(value("TimeoutStopSec"))


def test_settings_that_cannot_work_are_not_tried_again():
    """The exit status of wrong use ends it for good."""
    assert str(cli.WRONG_USE) == value("RestartPreventExitStatus")


def test_the_readme_names_the_unit():
    """A reader of the README finds the unit."""
    assert "deploy/systemd/responder.service" in README
