"""What every fuzzer has: its seed, in the report of what fails."""

from __future__ import annotations

import pytest

from tests.fuzz.budget import SECONDS, SEED


@pytest.fixture(autouse=True)
def printed_seed():
    print(f"RESPONDER_TEST_FUZZ_SEED={SEED} RESPONDER_TEST_FUZZ_SECONDS={SECONDS:g}")
