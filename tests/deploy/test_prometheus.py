"""Alerts and dashboard look at metrics that exist, and each alert says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.markdown import ROOT, rows

RUNBOOK = (ROOT / "docs" / "reliability.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
RULES = ROOT / "deploy" / "prometheus" / "responder.yml"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [pytest.param(each, id=each["alert"]) for each in GROUP["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "responder.json").read_text())
PANELS = [pytest.param(each, id=each["title"]) for each in DASHBOARD["panels"]]
SOURCE = "".join(path.read_text() for path in sorted((ROOT / "responder").rglob("*.py")))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool (Debian's package prometheus) is not installed"
)

# By sample: the labels that it has, those of Prometheus included.
SAMPLES: dict[str, set[str]] = {}
for names, type_, labels, _ in rows(OPERATING, "metric"):
    for name in names.split(", "):
        own = {*filter(None, labels.split(", ")), "job", "instance", "worker"}
        suffixes = ("_bucket", "_sum", "_count") if type_ == "histogram" else ("",)
        SAMPLES |= {
            name + suffix: own | ({"le"} if suffix == "_bucket" else set()) for suffix in suffixes
        }


def queries(panel: dict[str, Any]) -> list[str]:
    return [each["expr"] for each in panel["targets"]]


def unknown(query: str) -> list[str]:
    """The metrics of a query that do not exist, and the labels that none of its metrics has."""
    samples = re.findall(r"\b(?:responder|process)_\w+", query)
    assert samples
    missing = [each for each in samples if each not in SAMPLES]
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
    labels = {*matched, *(label.strip() for each in grouped for label in each.split(","))}
    known = set().union(*(SAMPLES.get(each, set()) for each in samples))
    return [*missing, *(labels - known)]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_looks_at_metrics_that_exist(alert):
    """Each metric and each label of its expression, and of what it tells, is documented."""
    told = " ".join(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
    grouped = re.search(r"\bby \(([^)]*)\)", alert["expr"])

    assert [] == unknown(alert["expr"])
    if grouped:
        assert set(told.split()) <= {each.strip() for each in grouped[1].split(",")}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_looks_at_metrics_that_exist(panel):
    """Each metric and each label of its queries, and of their legends, is documented."""
    for target in panel["targets"]:
        legend = "".join(f' {each}=""' for each in re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert [] == unknown(target["expr"] + legend)


def test_every_figure_that_can_go_wrong_is_shown():
    """Each metric of responder is on the dashboard, but those that only count attempts."""
    shown = "".join(query for panel in DASHBOARD["panels"] for query in queries(panel))
    names = {re.sub("_(bucket|sum|count)$", "", each) for each in SAMPLES}

    assert {
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
        "responder_key_set_fetches_total",
        "responder_key_set_keys",
        "responder_workers",
    } == {each for each in names if each not in shown}


def test_panels_lie_side_by_side():
    """No panel covers another, and all are within the 24 columns; each has an id of its own."""
    places = [each["gridPos"] for each in DASHBOARD["panels"]]

    assert len(places) == len({each["id"] for each in DASHBOARD["panels"]})
    assert all(0 <= each["x"] and each["x"] + each["w"] <= 24 for each in places)
    assert [] == [
        (one, two)
        for one, two in combinations(places, 2)
        if one["x"] < two["x"] + two["w"]
        and two["x"] < one["x"] + one["w"]
        and one["y"] < two["y"] + two["h"]
        and two["y"] < one["y"] + one["h"]
    ]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_its_section(alert):
    """The runbook says what callers notice, what log and /ready say, the cause, the remedy."""
    name = alert["alert"]
    section = re.search(rf"^### {name}\n\n(.*?)\n\n", RUNBOOK, re.MULTILINE | re.DOTALL)

    assert f"docs/reliability.md#{name.lower()}" == alert["annotations"]["runbook"]
    assert section
    assert ["Callers", "Log", "/ready", "Cause", "Remedy"] == re.findall(
        r"^- \*\*(.*?)\*\*", section[1], re.MULTILINE
    )


def test_the_runbook_has_no_section_without_an_alert():
    """Each section below Alerts is that of one."""
    sections = re.findall(r"^### (Responder\w+)$", RUNBOOK, re.MULTILINE)

    assert [each["alert"] for each in GROUP["rules"]] == sections


@pytest.mark.parametrize("alert", ALERTS)
def test_what_the_runbook_quotes_is_said(alert):
    """Each part of a line of the log, or of /ready, that it quotes stands in the code."""
    section = re.search(rf"^### {alert['alert']}\n\n(.*?)\n\n", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section
    (log, ready) = re.findall(r"^- \*\*(?:Log|/ready)\*\*(.*)", section[1], re.MULTILINE)
    quoted = [each for each in re.findall("`(.*?)`", log + ready) if " " in each]
    parts = [part.strip(" :,") for each in quoted for part in re.split("…|: ", each)]

    assert [] == [each for each in parts if each not in SOURCE]


@needs_promtool
def test_promtool_takes_the_rules():
    """`promtool check rules` understands each expression."""
    assert PROMTOOL
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", RULES], capture_output=True, text=True, check=False
    )

    assert (0, "") == (checked.returncode, checked.stderr)
    assert f"{len(ALERTS)} rules found" in checked.stdout


@needs_promtool
def test_promtool_takes_the_configuration_of_the_documents(tmp_path):
    """What docs/operating.md has to paste is valid, with the rules beside it."""
    assert PROMTOOL
    example = re.search("```yaml\n(scrape_configs.*?)```", OPERATING, re.DOTALL)
    assert example
    (tmp_path / "prometheus.yml").write_text(example[1])
    (tmp_path / RULES.name).write_text(RULES.read_text())
    checked = subprocess.run(
        [PROMTOOL, "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (checked.returncode, checked.stderr)


@needs_promtool
def test_promtool_takes_the_queries_of_the_dashboard(tmp_path):
    """Each is an expression, once Grafana has filled in its variables."""
    assert PROMTOOL
    filled = [
        query.replace("$__rate_interval", "5m").replace("$job", ".*")
        for panel in DASHBOARD["panels"]
        for query in queries(panel)
    ]
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(filled)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False
    )

    assert (0, "") == (checked.returncode, checked.stderr)


# What a process shows that is well, and what makes an alert fire: values by the minute.
HEALTHY = {
    'responder_build_info{version="1"}': "1x60",
    "responder_postgres_up": "1x60",
    "responder_tables_found": "1x60",
    "responder_nats_up": "1x60",
    'responder_errors_total{endpoint="get", code="unavailable"}': "0x60",
    'responder_errors_total{endpoint="get", code="timeout"}': "0x60",
    'responder_errors_total{endpoint="get", code="internal"}': "0x60",
    'responder_request_duration_seconds_count{endpoint="get"}': "0+600x60",
    'responder_request_duration_seconds_bucket{endpoint="get", le="0.1"}': "0+600x60",
    'responder_request_duration_seconds_bucket{endpoint="get", le="0.5"}': "0+600x60",
    'responder_request_duration_seconds_bucket{endpoint="get", le="+Inf"}': "0+600x60",
    'responder_postgres_query_duration_seconds_bucket{le="0.05"}': "0+600x60",
    'responder_postgres_query_duration_seconds_bucket{le="0.5"}': "0+600x60",
    'responder_postgres_query_duration_seconds_bucket{le="+Inf"}': "0+600x60",
    'responder_http_requests_total{method="GET", route="/", status="200"}': "0+600x60",
    'responder_http_requests_total{method="GET", route="/", status="503"}': "0x60",
    "responder_postgres_connections": "3x60",
    "responder_postgres_connections_limit": "3x60",
    "responder_postgres_connections_lost_total": "0+1x60",
    "responder_nats_reconnects_total": "0x60",
    "responder_pending_requests": "10x60",
    "responder_pending_requests_limit": "100x60",
    'responder_messages_lost_total{reason="denied"}': "0x60",
    "responder_key_set_age_seconds": "100x60",
    "responder_key_set_keys": "1x60",
    'responder_worker_restarts_total{worker="1"}': "0x60",
    "process_open_fds": "20x60",
    "process_max_fds": "100x60",
    "responder_images_omitted_total": "0x60",
    "responder_additional_fields_omitted_total": "0x60",
}
TARGET = 'job="responder", instance="a:8081"'
RISING = "0x30 0+1x30"
FIRES = {
    "ResponderAbsent": {'responder_build_info{version="1"}': "_x60"},
    "ResponderPostgresDown": {"responder_postgres_up": "0x60"},
    "ResponderTablesMissing": {"responder_tables_found": "0x60"},
    "ResponderNatsDown": {"responder_nats_up": "0x60"},
    "ResponderUnavailable": {
        'responder_errors_total{endpoint="get", code="unavailable"}': "0+12x60"
    },
    "ResponderTimeouts": {'responder_errors_total{endpoint="get", code="timeout"}': "0+12x60"},
    "ResponderInternalErrors": {'responder_errors_total{endpoint="get", code="internal"}': RISING},
    "ResponderHttpErrors": {
        'responder_http_requests_total{method="GET", route="/", status="503"}': "0+12x60"
    },
    "ResponderSlow": {
        'responder_request_duration_seconds_bucket{endpoint="get", le="0.1"}': "0+580x60"
    },
    "ResponderQueriesSlow": {
        'responder_postgres_query_duration_seconds_bucket{le="0.05"}': "0+580x60"
    },
    "ResponderConnectionsMissing": {"responder_postgres_connections": "2x60"},
    "ResponderConnectionsLost": {"responder_postgres_connections_lost_total": "0+2x60"},
    "ResponderNatsReconnects": {"responder_nats_reconnects_total": RISING},
    "ResponderPendingHigh": {"responder_pending_requests": "60x60"},
    "ResponderMessagesLost": {'responder_messages_lost_total{reason="denied"}': RISING},
    "ResponderKeySetStale": {"responder_key_set_age_seconds": "2000x60"},
    "ResponderWorkerRestarts": {'responder_worker_restarts_total{worker="1"}': RISING},
    "ResponderFilesHigh": {"process_open_fds": "90x60"},
    "ResponderFieldsOmitted": {"responder_images_omitted_total": RISING},
}


def case(changed: dict[str, str], firing: list[str]) -> dict[str, Any]:
    """A case of `promtool test rules`: series by the minute, and what fires after 50 minutes."""
    return {
        "interval": "1m",
        "input_series": [
            {
                "series": f"{name}{{{TARGET}, {labels}" if labels else f"{name}{{{TARGET}}}",
                "values": values,
            }
            for series, values in {**HEALTHY, **changed}.items()
            for name, _, labels in [series.partition("{")]
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "50m",
                "exp_samples": [
                    {"labels": f'{{alertname="{each}"}}', "value": 1} for each in firing
                ],
            }
        ],
    }


@needs_promtool
def test_each_alert_fires_alone(tmp_path):
    """What it is about makes it fire and no other, and none fires for a process that is well."""
    assert PROMTOOL
    assert [each["alert"] for each in GROUP["rules"]] == list(FIRES)
    cases = [case({}, []), *(case(changed, [name]) for name, changed in FIRES.items())]
    file = tmp_path / "cases.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases})
    )
    tested = subprocess.run(
        [PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False
    )

    assert (0, "") == (tested.returncode, tested.stderr)
