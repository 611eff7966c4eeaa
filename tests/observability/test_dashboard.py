"""The dashboard is what its source says, and every query of it is PromQL over metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import __main__ as generator
from tests.observability.promql import (
    ROOT,
    RULES,
    cluster_series,
    concrete,
    groups,
    metrics_of,
    own_series,
    promtool,
    recorded,
)

FILES = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
CHART_FILES = ROOT / "deploy" / "helm" / "callboard" / "files"
PROMQL_BLOCK = "```promql\n"


def panels(path: Path) -> list[dict]:
    """The panels that show something: rows only part them."""
    return [
        panel for panel in json.loads(path.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"
    ]


def queries(path: Path) -> dict[str, str]:
    """Every query of a dashboard, by its panel and letter."""
    found = {
        f"{panel['title']} / {target['refId']}": target["expr"]
        for panel in panels(path)
        for target in panel["targets"]
    }
    assert len(found) >= len(panels(path)), "two panels have one title, or a panel shows nothing"
    return found


def test_nothing_generated_differs_from_its_source() -> None:
    assert FILES
    assert generator.stale() == []


def test_the_chart_has_the_dashboards_and_the_rules() -> None:
    assert [path.name for path in sorted((CHART_FILES / "grafana").iterdir())] == [
        path.name for path in FILES
    ]
    rules = sorted((ROOT / "deploy" / "prometheus" / "rules").iterdir())
    assert [path.name for path in sorted((CHART_FILES / "prometheus").iterdir())] == [
        path.name for path in rules
    ]


def test_the_chart_hands_them_over_as_they_are() -> None:
    """In the objects that it renders, which k8s/ holds."""
    production = ROOT / "k8s" / "overlays" / "production"
    [rule] = production.glob("prometheusrule-*.yaml")
    shipped = [group for path in RULES for group in groups(path)]
    assert yaml.safe_load(rule.read_text(encoding="utf-8"))["spec"]["groups"] == shipped
    boards = [
        yaml.safe_load(path.read_text("utf-8")) for path in production.glob("configmap-*dashboard*.yaml")
    ]
    assert all(board["metadata"]["labels"]["grafana_dashboard"] == "1" for board in boards)
    handed = [json.loads(text) for board in boards for text in board["data"].values()]
    assert handed == [json.loads(path.read_text(encoding="utf-8")) for path in FILES]


def test_a_copy_that_was_edited_by_hand_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "CHART_FILES", tmp_path)
    monkeypatch.setattr(generator, "HERE", tmp_path)
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    assert generator.main(["--check"]) == 1
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    board = tmp_path / "grafana" / "autoscaling.json"
    board.write_text(board.read_text().replace("Demand", "demand"))
    (tmp_path / "prometheus" / "stranger.yaml").write_text("groups: []\n")
    assert set(generator.stale()) == {board, tmp_path / "prometheus" / "stranger.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_schema_of_dashboards_knows_every_field(path: Path) -> None:
    register_default_plugins()
    text = path.read_text(encoding="utf-8")
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(JSONEncoder().encode(read)) == json.loads(text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_panels_are_explained_and_do_not_overlap(path: Path) -> None:
    shown = json.loads(path.read_text(encoding="utf-8"))["panels"]
    assert [panel["id"] for panel in shown] == list(range(1, len(shown) + 1))
    places: set[tuple[int, int]] = set()
    for panel in shown:
        assert panel["type"] == "row" or len(panel["description"]) > 15, panel["title"]
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (grid["x"] + column, grid["y"] + row) for column in range(grid["w"]) for row in range(grid["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
    assert all(one["gridPos"]["y"] <= other["gridPos"]["y"] for one, other in pairwise(shown))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_lines_can_be_told_apart(path: Path) -> None:
    """The SDK's own defaults hide every legend."""
    charts = [panel for panel in panels(path) if panel["type"] == "timeseries"]
    assert charts
    for panel in charts:
        assert panel["options"]["legend"]["showLegend"], panel["title"]
        assert panel["options"]["tooltip"]["mode"] == "multi", panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_runbooks_that_panels_name_exist(path: Path) -> None:
    named = {page for panel in panels(path) for page in re.findall(r"Runbook: (\S+)$", panel["description"])}
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_the_first_event_of_a_counter_is_seen(tmp_path: Path) -> None:
    """A counter with labels is born at 1 with it: `increase` by itself sees nothing happen."""
    query = concrete(queries(ROOT / "deploy" / "grafana" / "autoscaling.json")["Claims lost / A"])
    series = 'callboard_lease_losses_total{namespace="callboard", queue="mail", instance="a"}'

    def sample(value: float) -> list[dict[str, object]]:
        return [{"labels": '{queue="mail"}', "value": value}]

    case = {
        "interval": "1m",
        # Born at ten minutes; not scraped from half an hour on, for twenty minutes.
        "input_series": [{"series": series, "values": "_x9 1+0x20 _x19 1+0x20"}],
        "promql_expr_test": [
            {"expr": query, "eval_time": "8m", "exp_samples": []},
            {"expr": query, "eval_time": "10m", "exp_samples": sample(1)},
            {"expr": query, "eval_time": "25m", "exp_samples": sample(0)},
            {"expr": query, "eval_time": "49m", "exp_samples": []},
            {"expr": query, "eval_time": "51m", "exp_samples": sample(0)},
        ],
    }
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({"tests": [case]}), encoding="utf-8")
    done = promtool("test", "rules", tmp_path / "first.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_query_parses(path: Path, tmp_path: Path) -> None:
    rules = tmp_path / "queries.yaml"

    def checked(expressions: list[str]) -> str:
        # A rules file is where promtool parses PromQL without a server.
        group = {
            "name": "queries",
            "rules": [
                {"record": f"query:{number}", "expr": concrete(expr)}
                for number, expr in enumerate(expressions)
            ],
        }
        rules.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
        done = promtool("check", "rules", rules)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    expressions = list(queries(path).values())
    assert not any("$" in concrete(expr) for expr in expressions)
    assert checked(expressions) == ""
    assert "parse error" in checked([*expressions, expressions[0] + ")"])


def test_queries_name_only_metrics_that_exist() -> None:
    named = {
        metric for path in FILES for expr in queries(path).values() for metric in metrics_of(concrete(expr))
    }
    assert named - own_series() - recorded() == cluster_series("dashboard")
