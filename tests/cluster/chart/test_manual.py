"""Every `helm` line of docs/kubernetes renders, by Helm 3 and 4, with the values files of its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.chart.helm import CRDS, NEWEST, OLDEST, Helm
from tests.docs import manual
from tests.docs.page import ROOT

LINES = [line for line in manual.helm_lines() if line.files or line.sets]


def arguments(line: manual.HelmLine, folder: Path) -> list[str]:
    """What `helm template` needs to render what the line would install."""
    written = manual.files(line.page)
    for name in line.files:
        (folder / name).write_text(written[name], encoding="utf-8")
    return [
        *(f"--values={folder / name}" for name in line.files),
        *(f"--set={one}" for one in line.sets if _whole(line, one)),
    ]


def _whole(line: manual.HelmLine, one: str) -> bool:
    """Not a change to a set that an earlier line of the page has made."""
    return not one.startswith("workers.")


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.line[-60:]}")
def test_a_line_renders(
    helm: Helm, helm3: Helm, line: manual.HelmLine, kubernetes: str, tmp_path: Path
) -> None:
    given = arguments(line, tmp_path)
    for one in (helm, helm3):
        done = one.run(
            *("template", "callboard", str(ROOT / manual.CHART), f"--kube-version={kubernetes}"),
            *(f"--api-versions={crd}" for crd in CRDS),
            *given,
        )
        assert done.returncode == 0, done.stderr
        assert sum(1 for item in yaml.safe_load_all(done.stdout) if item) > 5


def test_all_values_files_are_rendered() -> None:
    rendered = {(line.page, name) for line in LINES for name in line.files}
    assert rendered == {(page, name) for page in manual.MANUAL for name in manual.values(page)}


@pytest.mark.parametrize(
    "excerpt",
    [
        "slots × slotMemory",
        "0.85 of resources.limits.memory",
        "needs monitoring.coreos.com/v1/PodMonitor",
        "is not a value of this chart; use",
    ],
)
def test_helm_says_what_the_page_on_trouble_quotes(helm: Helm, excerpt: str) -> None:
    assert excerpt in manual.MANUAL["troubleshooting"].text
    said = [
        helm.refusal({"workerDefaults": {"slots": 100}}),
        helm.refusal({"metrics": {"podMonitor": {"enabled": True}}}, crds=()),
        (ROOT / manual.CHART / "templates" / "_checks.tpl").read_text(encoding="utf-8"),
    ]
    assert any(excerpt in one for one in said)


def test_helm_names_a_value_that_there_is_not(helm: Helm, helm3: Helm) -> None:
    assert "`additional properties 'X' not allowed`" in manual.MANUAL["troubleshooting"].text
    for one in (helm, helm3):
        assert "additional properties 'foo' not allowed" in one.refusal({"foo": 1})
