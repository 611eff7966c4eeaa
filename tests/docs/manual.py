"""The manual in docs/kubernetes: its shell blocks, its values files, and which of them are run where.

A block begins with `# not run` and the reason, or it is run: by `tests/cluster/test_manual.py` on a control
plane, or by `tests/docs/test_backup_page.py` on a laptop. A YAML block that begins with `# NAME.yaml` is that
file, in the folder where the page's commands run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from tests.docs.page import PAGES, ROOT

FOLDER = "docs/kubernetes/"
MANUAL = {
    name: PAGES[f"{FOLDER}{name}.md"]
    for name in (
        "install",
        "add-your-tasks",
        "autoscaling",
        "upgrades",
        "sizing",
        "backup-restore",
        "multi-tenant",
        "troubleshooting",
    )
}
CHART = "deploy/helm/callboard"
NOT_RUN = "# not run: "


def shell(page: str) -> list[str]:
    """The shell blocks of a page, in order."""
    return [block.text for block in MANUAL[page].blocks if block.language == "sh"]


def run_in_a_cluster(page: str) -> list[str]:
    """Those that `tests/cluster/test_manual.py` runs."""
    laptop = MANUAL[page].section("On a laptop") if page == "backup-restore" else ""
    return [text for text in shell(page) if not text.startswith(NOT_RUN) and text not in laptop]


def files(page: str) -> dict[str, str]:
    """The files that a page shows, by name."""
    named = {}
    for block in MANUAL[page].blocks:
        if block.language == "yaml":
            found = re.match(r"# ([\w-]+\.yaml)\n", block.text)
            assert found is not None, f"{block.place}: which file is it?"
            named[found[1]] = block.text
    return named


def values(page: str) -> dict[str, dict[str, Any]]:
    """The values files of a page: those that are no manifests."""
    read = {name: yaml.safe_load(text) for name, text in files(page).items()}
    return {name: found for name, found in read.items() if "kind" not in found}


@dataclass(frozen=True)
class HelmLine:
    """A `helm install`, `upgrade` or `template` of the chart, with its values files and what it sets."""

    page: str
    line: str
    command: str
    files: tuple[str, ...]
    sets: tuple[str, ...]


def helm_lines() -> Iterator[HelmLine]:
    """Every one that the manual shows, run or not."""
    for name, page in MANUAL.items():
        for block in page.blocks:
            if block.language not in ("", "sh"):
                continue
            for line in re.sub(r"\\\n *", "", block.text).splitlines():
                words = shlex.split(line, comments=True) if line.strip().startswith("helm ") else []
                if words[1:2] and words[1] in ("install", "upgrade", "template"):
                    assert CHART in words, f"{block.place}: {line}"
                    yield HelmLine(
                        name, line.strip(), words[1], _after(words, "--values"), _after(words, "--set")
                    )


def _after(words: list[str], option: str) -> tuple[str, ...]:
    return tuple(value for word, value in pairwise(words) if word == option)


def defaults() -> dict[str, Any]:
    """The chart's values.yaml."""
    found: dict[str, Any] = yaml.safe_load((ROOT / CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def resolves(path: str, chart: Mapping[str, Any]) -> bool:
    """Whether a dotted word names a value, from the top or from what a worker set has."""
    words = path.split(".")
    if words[0] == "workers" and len(words) > 2:
        words = ["workerDefaults", *words[2:]]
    own = chart["workerDefaults"]
    return any(_reaches(words, top) for top in (chart, own, own["autoscaling"]))


def _reaches(words: list[str], top: Any) -> bool:
    for word in words:
        if not isinstance(top, dict) or word not in top:
            # Below a map of the reader's own, names are the reader's.
            return top == {}
        top = top[word]
    return True
