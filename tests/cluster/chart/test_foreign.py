"""Kinds of other projects: a real API server that has their own definitions admits what the chart renders.

The definitions come from the projects' modules, at a version and a sum; nothing of theirs is kept here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.chart.helm import Helm, Object
from tests.cluster.chart.test_security import FILES
from tests.cluster.lab.cluster import Cluster, CommandFailed

pytestmark = pytest.mark.timeout(300)

#: Module, version, sum, definitions.
PROJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "github.com/kedacore/keda/v2@v2.17.2",
        "h1:xlrcK5TKABJF9PebK79sgL07s/csGjL3H4m72OkZXxk=",
        ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    ),
    (
        "sigs.k8s.io/gateway-api@v1.3.0",
        "h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M=",
        ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.82.2",
        "h1:qalPLM8wkvCtu9aHcoSKGDpCZR3aWRMKeHev5WomTBQ=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
)
KINDS = ("HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject")


def definitions(module: str, wanted: str, files: tuple[str, ...], *, folder: Path) -> list[Path]:
    """The files of a Go module, whose archive has the sum that is wanted."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go on PATH: the definitions of KEDA and others come from their modules")
    command = [go, "mod", "download", "-json", module]
    told = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240, check=False)
    found = json.loads(told.stdout)
    assert "Error" not in found, found["Error"]
    assert found["Sum"] == wanted
    return [Path(found["Dir"], file) for file in files]


@pytest.fixture(scope="module")
def foreign(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with the definitions."""
    folder = tmp_path_factory.mktemp("definitions")
    files = [file for project in PROJECTS for file in definitions(*project, folder=folder)]
    names = [yaml.safe_load(file.read_text(encoding="utf-8"))["metadata"]["name"] for file in files]
    for file in files:
        cluster.kubectl("apply", "--server-side", f"--filename={file}")
    wait = [f"customresourcedefinition/{name}" for name in names]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *wait)
    cluster.create_namespace("foreign")
    yield cluster
    cluster.kubectl("delete", "namespace", "foreign", "--wait=false")
    cluster.kubectl("delete", "customresourcedefinition", *names)


def admit(cluster: Cluster, objects: list[Object]) -> None:
    """Let the API server look at every field and keep nothing. Raises CommandFailed."""
    text = yaml.safe_dump_all(objects)
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=text)
    assert said.count("serverside-applied") == len(objects)


def rendered(helm: Helm) -> dict[str, list[Object]]:
    """The objects of those kinds in all values files, by kind."""
    found: dict[str, list[Object]] = {kind: [] for kind in KINDS}
    for number, name in enumerate(FILES):
        for item in helm.render(None, name).objects:
            if item["kind"] in found:
                item["metadata"]["namespace"] = "foreign"
                item["metadata"]["name"] += f"-{number}"  # one name may stand in several files
                found[item["kind"]].append(item)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_of_another_project_is_admitted(helm: Helm, foreign: Cluster, kind: str) -> None:
    objects = rendered(helm)[kind]
    assert objects, f"no values file renders a {kind}"
    admit(foreign, objects)


def test_a_misspelt_field_of_keda_is_refused(helm: Helm, foreign: Cluster) -> None:
    scaled = rendered(helm)["ScaledObject"][0]
    scaled["spec"]["minReplicas"] = 1
    with pytest.raises(CommandFailed, match="minReplicas"):
        admit(foreign, [scaled])
