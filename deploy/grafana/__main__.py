"""Writes what is generated for monitoring: `make dashboards`.

The dashboard's JSON beside its source, and the chart's copies of dashboards and rules. With `--check` it
writes nothing, names each file that is not what would be written, and then ends with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import autoscaling

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deploy" / "grafana"
RULES = ROOT / "deploy" / "prometheus" / "rules"
CHART_FILES = ROOT / "deploy" / "helm" / "callboard" / "files"
DASHBOARDS = {"autoscaling": autoscaling.dashboard}


def written(board: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    model = board.build()
    # Links to a panel name its number, which Grafana would else give out anew at each import.
    for number, panel in enumerate(model.panels or [], 1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(model) + "\n"


def outputs() -> Iterator[tuple[Path, str]]:
    """Every generated file with what it has to hold."""
    for name, build in DASHBOARDS.items():
        text = written(build())
        yield HERE / f"{name}.json", text
        yield CHART_FILES / "grafana" / f"{name}.json", text
    for rules in sorted(RULES.glob("*.yaml")):
        yield CHART_FILES / "prometheus" / rules.name, rules.read_text(encoding="utf-8")


def stale() -> list[Path]:
    """Files that differ from what they have to hold, and strangers in the chart's folders."""
    wanted = dict(outputs())
    found = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    for folder in ("grafana", "prometheus"):
        found += [path for path in (CHART_FILES / folder).glob("*") if path not in wanted]
    return found


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        found = stale()
        for path in found:
            told = f"{path.relative_to(ROOT)} is not what its source says: run 'make dashboards'."
            print(told, file=sys.stderr)
        return 1 if found else 0
    if arguments:
        print("usage: python -m deploy.grafana [--check]", file=sys.stderr)
        return 2
    for path, text in outputs():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
