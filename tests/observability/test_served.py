"""A real Prometheus scrapes Callboard, loads the rules and answers every query that is shipped."""

from __future__ import annotations

import json
import math
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.cli.ports import free_port
from callboard.metrics import Metrics, QueueFigures, SlotFigures
from tests.observability.promql import ROOT, RULES, concrete, groups, tool
from tests.observability.test_dashboard import FILES, queries
from tests.support.waiting import wait_until

CLUSTER = (Path(__file__).parent / "kube_state_metrics.prom").read_bytes()
SERVICES = ("api", "scheduler", "worker")
#: What the figures below come to, for the panels that would show a number even if they saw nothing.
SHOWN = {
    "Demand / A": 26.0,
    "Slots / A": 4.0,
    "Oldest waiting task / A": 90.0,
    "Queues without a worker / A": 1.0,
    "Blind autoscalers / A": 1.0,
    "Autoscalers at their maximum / A": 1.0,
    "Autoscalers that cannot scale / A": 0.0,
    "Processes that show the demand / A": 2.0,
}
#: Where nothing runs there are none of these; all else has to be missing, and not 0 as if all were well.
ZERO_WITHOUT_SOURCE = {"Slots / A", "Processes that show the demand / A"}


def exposed(service: str, metrics: Metrics) -> bytes:
    """A service's page. Counters move.

    `parsing` and `ai` share a worker of four slots, Dramatiq's own serves `sums`, nobody `mail`.
    """
    if service == "worker":
        metrics.snapshots.show_slots([SlotFigures("parsing", 3, 4), SlotFigures("ai", 1, 4)])
        for queue in ("parsing", "ai"):
            metrics.tasks_finished.labels(queue=queue, name="n", outcome="completed").inc()
            metrics.task_wait_seconds.labels(queue=queue).observe(0.2)
            metrics.task_run_seconds.labels(queue=queue).observe(3)
            metrics.lease_losses.labels(queue=queue).inc()
    else:
        metrics.snapshots.show_queues(
            [
                QueueFigures("parsing", {"queued": 10, "running": 3}, 90.0),
                QueueFigures("ai", {"queued": 6, "running": 1}, 5.0),
                QueueFigures("mail", {"queued": 4}, 1.0),
                QueueFigures("sums", {"running": 2}, guests=1 if service == "scheduler" else None),
            ]
        )
    return metrics.exposition()[0]


class Exporter(ThreadingHTTPServer):
    """Serves `/api`, `/scheduler`, `/worker`, and kube-state-metrics' `/cluster`, on a port of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        services = {name: Metrics() for name in SERVICES}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                body = CLUSTER if name == "cluster" else exposed(name, services[name])
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes are no news."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"


@dataclass
class Prometheus:
    url: str

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The vector that a query gives now, by labels."""
        result = self.get("query", query=query)["result"]
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in result}

    def ready(self) -> bool:
        """Whether every target was scraped often enough for a rate, and the rules have run on that."""
        try:
            return (
                len(self.ask("count_over_time(up[1m]) > 3")) == 1 + len(SERVICES)
                and len(self.ask("horizontalpodautoscaler:callboard_demand:info")) == 1
            )
        except OSError:
            return False


def scrape(path: str, address: str, **labels: str) -> dict[str, object]:
    return {
        "job_name": path,
        "metrics_path": f"/{path}",
        "honor_labels": True,
        "static_configs": [{"targets": [address], "labels": {**labels, "instance": path}}],
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    exporter = Exporter()
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    config = {
        "global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"},
        "rule_files": [str(path) for path in RULES],
        "scrape_configs": [
            *(scrape(name, exporter.address, namespace="callboard", pod=name) for name in SERVICES),
            scrape("cluster", exporter.address),
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port("127.0.0.1", 0)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: process.poll() is not None or server.ready(), 60, "Prometheus", poll=0.1)
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(20)
        exporter.shutdown()
        exporter.server_close()


@pytest.mark.parametrize(
    ("panel", "query"), [pair for path in FILES for pair in queries(path).items()], ids=lambda text: text[:40]
)
def test_a_panel_has_data(prometheus: Prometheus, panel: str, query: str) -> None:
    found = prometheus.ask(concrete(query))
    assert found, "no data"
    assert not any(math.isnan(value) for value in found.values())
    if panel in SHOWN:
        assert list(found.values()) == [SHOWN[panel]]


def test_every_number_is_expected_of_a_panel() -> None:
    assert {panel for path in FILES for panel in queries(path)} >= SHOWN.keys() | ZERO_WITHOUT_SOURCE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_not_seen_is_not_shown_as_well(prometheus: Prometheus, path: Path) -> None:
    """In a namespace where nothing runs, or without kube-state-metrics."""
    shown = {
        panel: prometheus.ask(concrete(query).replace('namespace="callboard"', 'namespace="elsewhere"'))
        for panel, query in queries(path).items()
    }
    assert {panel: values for panel, values in shown.items() if values} == {
        panel: {(): 0.0} for panel in ZERO_WITHOUT_SOURCE
    }


def test_rules_run_without_an_error_and_see_what_is_wrong(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for path in RULES for group in groups(path))
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    pending = {
        rule["name"]: [alert["labels"].get("queue") for alert in rule["alerts"]]
        for rule in rules
        if rule["type"] == "alerting" and rule["alerts"]
    }
    assert pending == {
        "CallboardAutoscalerBlind": [None],
        "CallboardAutoscalerAtMax": [None],
        "CallboardNoConsumers": ["mail"],
    }


def test_the_query_for_keda_adds_up_the_queues_of_a_worker_set(prometheus: Prometheus) -> None:
    page = (ROOT / "docs" / "kubernetes" / "monitoring.md").read_text(encoding="utf-8")
    [query] = re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
    assert prometheus.ask(query) == {(): 20.0}
    # What is missing must be missing, so that KEDA holds, and not 0.
    assert prometheus.ask(query.replace('"callboard"', '"elsewhere"')) == {}


def test_the_query_of_the_adapter_gives_one_series_a_queue(prometheus: Prometheus) -> None:
    values = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus-adapter-values.yaml").read_text())
    [rule] = values["rules"]["external"]
    assert rule["name"]["as"] == "callboard_queue_demand_slots"
    assert len(prometheus.get("series", **{"match[]": rule["seriesQuery"]})) == 8
    query = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"])
    query = query.replace("<<.LabelMatchers>>", 'queue=~"parsing|ai",namespace="callboard"')
    assert prometheus.ask(query) == {
        (("namespace", "callboard"), ("queue", "ai")): 7.0,
        (("namespace", "callboard"), ("queue", "parsing")): 13.0,
    }
