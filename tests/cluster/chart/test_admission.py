"""A real API server of the newest Kubernetes admits what is rendered for the oldest, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.chart.helm import OLDEST, Helm, Object
from tests.cluster.chart.test_security import FILES
from tests.cluster.lab.cluster import Cluster, CommandFailed

pytestmark = pytest.mark.timeout(180)

#: Groups of kinds that other projects bring; their definitions are not on this cluster.
FOREIGN = ("gateway.networking.k8s.io/", "keda.sh/", "monitoring.coreos.com/")


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """The namespace of the renders; it admits only what is `restricted`."""
    cluster.create_namespace("work")
    yield "work"
    cluster.kubectl("delete", "namespace", "work", "--wait=false")


def admitted(cluster: Cluster, objects: list[Object], folder: Path) -> None:
    """Ask the API server, which looks at every field and keeps nothing. Raises `CommandFailed`."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={file}")
    assert said.count("serverside-applied") == len(objects)


@pytest.mark.parametrize("name", FILES)
def test_every_object_is_admitted(
    helm: Helm, cluster: Cluster, namespace: str, name: str, tmp_path: Path
) -> None:
    objects = helm.render(None, name, kubernetes=OLDEST).objects
    own = [item for item in objects if not item["apiVersion"].startswith(FOREIGN)]
    for item in own:
        # `everything` has objects of its user's, which Helm would put where the release is.
        if item["kind"] != "PriorityClass":
            item["metadata"]["namespace"] = namespace
    admitted(cluster, own, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_every_pod_is_admitted(
    helm: Helm, cluster: Cluster, namespace: str, name: str, tmp_path: Path
) -> None:
    # A Deployment is admitted whatever its pods are like: Pod Security looks at them when they are made.
    pods = []
    for who, spec in helm.render(None, name, kubernetes=OLDEST).pods():
        # What the lab's cluster does not have, and what a controller would put in.
        lacking = {"priorityClassName", "serviceAccountName"}
        bare = {key: value for key, value in spec.items() if key not in lacking}
        if "valkey" in who:
            bare["volumes"] = [*bare["volumes"], {"name": "data", "emptyDir": {}}]
            bare["volumes"] = list({one["name"]: one for one in bare["volumes"]}.values())
        pods.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{who}-0", "namespace": namespace},
                "spec": bare,
            }
        )
    admitted(cluster, pods, tmp_path)


def test_a_misspelt_field_and_a_careless_pod_are_refused(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "careless", "namespace": namespace},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        admitted(cluster, [pod], tmp_path)
    misspelt = {**pod, "spec": {**pod["spec"], "grace": 5}}
    with pytest.raises(CommandFailed, match="grace"):
        admitted(cluster, [misspelt], tmp_path)
