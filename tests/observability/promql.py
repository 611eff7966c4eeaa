"""PromQL as the tests need it: which metrics a query names, and whether Prometheus's own parser takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from callboard.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
MONITORING_PAGE = ROOT / "docs" / "kubernetes" / "monitoring.md"

_KEYWORDS = {
    "and", "or", "unless", "on", "ignoring", "by", "without", "bool", "group_left", "group_right", "offset",
}  # fmt: skip
#: What Grafana puts in for its variables, so that a query is PromQL.
_GRAFANA = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": "callboard", "$queue": ".*"}


def tool(name: str) -> str:
    """The path of `promtool` or `prometheus`; skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on PATH: scripts/install-services.sh installs it")
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def concrete(query: str) -> str:
    """A dashboard's query with values in place of Grafana's variables."""
    for variable, value in _GRAFANA.items():
        query = query.replace(variable, value)
    return query


def metrics_of(query: str) -> set[str]:
    """The metrics that a query names."""
    bare = re.sub(r"#.*", "", query)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = set()
    for match in re.finditer(r"[A-Za-z_:][\w:]*", bare):
        before, after = bare[: match.start()], bare[match.end() :].lstrip()
        # A function or aggregation is followed by its arguments, a number's exponent or unit by nothing.
        if not (after.startswith("(") or match[0] in _KEYWORDS or before[-1:].isdigit()):
            found.add(match[0])
    return found


def own_series() -> set[str]:
    """Every series that Callboard exports, as Prometheus stores it."""
    found: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        found |= {family.name + suffix for suffix in suffixes}
    return found


def cluster_series(place: str) -> set[str]:
    """The series of kube-state-metrics that the monitoring page names for `rules` or `dashboard`."""
    rows = re.findall(
        r"^\| `(kube_\w+)` \| ([a-z, ]+) \|$", MONITORING_PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name for name, places in rows if place in places.split(", ")}


def groups(path: Path) -> list[dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]


def recorded() -> set[str]:
    return {
        rule["record"]
        for path in RULES
        for group in groups(path)
        for rule in group["rules"]
        if "record" in rule
    }
