"""Each alert fires when it should, is silent when it should, names real metrics, and has its runbook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.docs.page import PAGES
from tests.observability.promql import (
    ROOT,
    RULES,
    cluster_series,
    groups,
    metrics_of,
    own_series,
    promtool,
    recorded,
)

CASES = sorted((ROOT / "deploy" / "prometheus" / "tests").glob("*.yaml"))
ALERTS = [rule for path in RULES for group in groups(path) for rule in group["rules"] if "alert" in rule]
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def cases(path: Path) -> list[dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]


def test_there_are_rules_and_cases() -> None:
    assert [path.name for path in RULES] == [path.name for path in CASES]
    assert len(ALERTS) >= 5


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_prometheus_takes_the_rules(path: Path) -> None:
    checked = promtool("check", "rules", "--lint-fatal", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_alerts_do_what_their_cases_say(path: Path) -> None:
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_case_that_fires_it_and_one_that_does_not(alert: dict) -> None:
    verdicts = [
        [
            bool(check["exp_alerts"])
            for check in case["alert_rule_test"]
            if check["alertname"] == alert["alert"]
        ]
        for path in CASES
        for case in cases(path)
    ]
    assert any(any(found) for found in verdicts), "no case fires it"
    assert any(found and not any(found) for found in verdicts), "no case leaves it silent all along"


_GUESTS = "(callboard_guests) > 0\n          )\n        for: 10m\n        labels:\n          severity: "
#: What guards an alert against false alarms, and what lets it fire: without it some case must fail.
GUARDS = {
    "unless on (namespace) callboard_queue_demand_slots": "",
    "or on () absent(callboard_queue_demand_slots)": "",
    "or group by (namespace) (horizontalpodautoscaler:callboard_demand:info)": "",
    "and on (namespace) last_over_time(callboard_redis_errors_total[1h])": "",
    'condition="ScalingActive", status="true"': 'condition="ScalingActive"',
    "status_current_replicas == 0": "status_current_replicas == -1",
    "and on (namespace, horizontalpodautoscaler) horizontalpodautoscaler:callboard_demand:info": "",
    "status_desired_replicas >= kube": "status_desired_replicas >= 0 * kube",
    "spec_max_replicas > kube": "spec_max_replicas >= kube",
    'condition="ScalingLimited", status="true"} == 1': 'condition="ScalingLimited", status="true"} >= 0',
    "(callboard_queue_demand_slots) > 0": "(callboard_queue_demand_slots) >= 0",
    "max by (namespace, queue) (callboard_queue": "sum by (namespace, queue) (callboard_queue",
    '(namespace, queue) (callboard_slots{state="total"': '(queue) (callboard_slots{state="total"',
    'callboard_tasks{state="running"}': "callboard_tasks",
    'callboard_slots{state="busy"}': "callboard_slots",
    _GUESTS + "critical": _GUESTS.replace("> 0", "> 9") + "critical",
    _GUESTS + "warning": _GUESTS.replace("> 0", "> 9") + "warning",
    "by (namespace, queue) (callboard_guests) > 0": "by (namespace, queue) (callboard_guests) >= 0",
    "unless on (namespace, queue) (\n            max": "unless on (queue) (\n            max",
    "for: 5m": "for: 0m",
    "for: 10m": "for: 0m",
    "for: 15m": "for: 0m",
}


@pytest.mark.parametrize("guard", GUARDS)
def test_no_part_of_a_rule_can_go_unnoticed(guard: str, tmp_path: Path) -> None:
    [rules], [case] = RULES, CASES
    text = rules.read_text(encoding="utf-8")
    assert guard in text
    for folder, name, content in (
        ("rules", rules.name, text.replace(guard, GUARDS[guard])),
        ("tests", case.name, case.read_text(encoding="utf-8")),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content, encoding="utf-8")
    checked = promtool("check", "rules", tmp_path / "rules" / rules.name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert promtool("test", "rules", tmp_path / "tests" / case.name).returncode != 0


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_tells_what_is_wrong_how_bad_it_is_and_what_to_do(alert: dict) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    page = PAGES[alert["annotations"]["runbook_url"]]
    assert re.findall(r"^#+ (.*)$", page.text, re.MULTILINE) == [alert["alert"], *SECTIONS]
    for section in SECTIONS:
        assert len(page.section(section).strip()) > 60, f"{page.name}: {section} says next to nothing"


def test_the_list_of_runbooks_is_that_of_the_alerts() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", PAGES["docs/runbooks/README.md"].text, re.MULTILINE
    )
    assert rows == [(rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in ALERTS]


def test_the_rules_name_only_metrics_that_exist() -> None:
    named = {
        metric
        for path in RULES
        for group in groups(path)
        for rule in group["rules"]
        for metric in metrics_of(rule["expr"])
    }
    assert named - own_series() - recorded() == cluster_series("rules")
    assert recorded() <= named, "a recording rule that nobody reads"


def test_metrics_are_found_in_queries() -> None:
    query = 'sum by (queue) (rate(a_total{b="c_d"}[5m])) / on (queue) group_left (e) f:g:h > 1e3 unless up'
    assert metrics_of(query) == {"a_total", "f:g:h", "up"}
