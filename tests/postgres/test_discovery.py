"""What is known of the tables while they are missing."""

from __future__ import annotations

import traceback

import pytest

from responder.errors import SchemaError
from responder.postgres.discovery import Discovery
from responder.postgres.overrides import NO_OVERRIDES


def test_a_problem_that_is_told_again_and_again_keeps_nothing():
    """While the tables are missing each lookup is told why, and costs no memory for it."""
    discovery = Discovery(overrides=NO_OVERRIDES, timezone="UTC")
    discovery._problem = SchemaError("missing")
    kept = []

    for _ in range(3):
        with pytest.raises(SchemaError, match="missing"):
            _ = discovery.statements
        kept.append(len(traceback.extract_tb(discovery._problem.__traceback__)))

    assert kept[0] == kept[-1]
