"""The admin app shows the parts it has been given, and no others."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from responder.errors import UnavailableError
from responder.http.admin import Admin, Observed


async def works() -> None:
    pass


async def out_of_reach() -> None:
    raise UnavailableError("PostgreSQL is out of reach")


class Figure(Collector):
    def collect(self):
        yield GaugeMetricFamily("figure", "of the service", 3)


async def page(admin: Admin, path: str) -> tuple[int, str]:
    transport = httpx.ASGITransport(app=admin)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        response = await client.get(path)
    return response.status_code, response.text


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (Observed(checks=[]), (200, "ready\n")),
        (Observed(checks=[works], warnings=[lambda: None]), (200, "ready\n")),
        (Observed(checks=[], warnings=[lambda: "old keys"]), (200, "ready\nwarning: old keys\n")),
        (Observed(checks=[works, out_of_reach]), (503, "not ready: PostgreSQL is out of reach\n")),
    ],
)
async def test_ready_says_what_its_checks_and_warnings_say(observed, expected):
    """/ready is 200 with its warnings if each check returns, else 503 with what is wrong."""
    assert expected == await page(Admin(observed), "/ready")


async def test_the_parts_of_a_service_are_shown_once_they_are_made():
    """What the app is made with is shown until it is given something else to show."""
    admin = Admin(Observed(checks=[out_of_reach]))
    before = [await page(admin, path) for path in ("/ready", "/metrics")]

    admin.show(Observed(checks=[works], metrics=Figure()))

    assert (503, "not ready: PostgreSQL is out of reach\n") == before[0]
    assert "responder_build_info" in before[1][1]
    assert (200, "ready\n") == await page(admin, "/ready")
    assert "figure 3.0" in (await page(admin, "/metrics"))[1]
