"""`responder check`: look at everything that the settings lead to, and report what is found."""

# Each check is on its own: it has its own timeout, and what fails in it is a finding and keeps no
# other check from being made. Of rows a check shows only how many there are.

from __future__ import annotations

from responder.checks import nats, postgres, tokens
from responder.checks.report import Report
from responder.settings import Settings


async def check(settings: Settings) -> Report:
    """Check the database, NATS and the key set; what goes wrong is in the report, never raised."""
    report = Report()
    await postgres.check(settings, report)
    await nats.check(settings, report)
    await tokens.check(settings, report)
    return report
