"""Every values file that ships or is tested: for the oldest and the newest Kubernetes, by Helm 3 and 4."""

from __future__ import annotations

import re
import tarfile
import textwrap
from pathlib import Path

import pytest
import yaml

import callboard
from tests.cluster.chart.helm import CHART, NEWEST, OLDEST, Helm, Object
from tests.cluster.chart.test_security import FILES

#: What is new in each render, since no cluster is there to keep it.
MADE = ("data", "checksum/auth", "checksum/redis")


def plain(item: Object) -> Object:
    """An object without what is random in a render."""
    copy = {key: value for key, value in item.items() if not (item["kind"] == "Secret" and key in MADE)}
    template = copy.get("spec", {}).get("template", {})
    for name in MADE:
        template.get("metadata", {}).get("annotations", {}).pop(name, None)
    return copy


@pytest.mark.parametrize("name", FILES)
def test_helm_3_and_4_render_the_same(helm: Helm, helm3: Helm, name: str) -> None:
    four = {(item["kind"], item["metadata"]["name"]): plain(item) for item in helm.render(None, name).objects}
    three = {
        (item["kind"], item["metadata"]["name"]): plain(item) for item in helm3.render(None, name).objects
    }
    assert three == four


@pytest.mark.parametrize("name", FILES)
def test_what_the_oldest_gets_is_what_the_newest_gets(helm: Helm, name: str) -> None:
    oldest = helm.render(None, name, kubernetes=OLDEST).objects
    newest = helm.render(None, name, kubernetes=NEWEST).objects
    assert [plain(item) for item in oldest] == [plain(item) for item in newest]


def test_production_has_nothing_of_its_own_to_lose(helm: Helm) -> None:
    rendered = helm.render(None, "values-production.yaml")
    assert not rendered.all("StatefulSet")
    assert not rendered.all("Secret")
    assert rendered.one("HorizontalPodAutoscaler", "api")["spec"]["minReplicas"] == 3
    assert rendered.one("Deployment", "scheduler")["spec"]["replicas"] == 2
    for name in ("default", "parsing", "ai"):
        assert rendered.has("HorizontalPodAutoscaler", f"worker-{name}")
        assert rendered.has("PodDisruptionBudget", f"worker-{name}")
    for kind in ("PodMonitor", "PrometheusRule", "NetworkPolicy", "PriorityClass"):
        assert rendered.all(kind), kind
    ai = rendered.one("Deployment", "worker-ai")["spec"]["template"]["spec"]
    assert ai["terminationGracePeriodSeconds"] == 630


def test_the_demo_has_the_applications_on(helm: Helm) -> None:
    for who, pod in helm.render(None, "values-demo.yaml").pods():
        env = {one["name"]: one.get("value") for one in pod["containers"][0].get("env", [])}
        if who.startswith(("callboard-api", "callboard-worker", "callboard-scheduler")):
            assert env["CALLBOARD_APPS"] == "knowledge"


def test_helm_lints_and_packs_it(helm: Helm, tmp_path: Path) -> None:
    linted = helm.run("lint", "--strict", "--kube-version", NEWEST, str(CHART))
    assert linted.returncode == 0, linted.stdout + linted.stderr
    packed = helm.run("package", str(CHART), "--destination", str(tmp_path))
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(tmp_path / "callboard-0.1.0.tgz") as archive:
        names = {name.removeprefix("callboard/") for name in archive.getnames()}
    assert {
        "values.schema.json",
        "values-production.yaml",
        "files/ping.py",
        "files/prometheus/elasticity.yaml",
    } <= names
    assert not [name for name in names if name.startswith("ci/")]


def test_the_chart_is_of_this_release() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == callboard.__version__
    assert chart["kubeVersion"] == f">={OLDEST}-0"
    changes = yaml.safe_load(chart["annotations"]["artifacthub.io/changes"])
    assert {change["kind"] for change in changes} <= {
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    }


def test_what_the_page_and_the_notes_show_renders(helm: Helm) -> None:
    page = (CHART / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown
    for block in shown:
        helm.render(yaml.safe_load(block))
    notes = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (block,) = re.findall(r"\n(  workers:\n(?:    .*\n)+)", notes)
    deployment = helm.render(yaml.safe_load(textwrap.dedent(block))).one("Deployment", "worker-default")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/team/my-worker:1.0"


def test_one_more_set_is_four_lines_on_the_page() -> None:
    page = (CHART / "README.md").read_text(encoding="utf-8")
    block = page.partition("One more set is four lines:")[2].partition("```yaml\n")[2].partition("```")[0]
    assert len(block.splitlines()) == 4
