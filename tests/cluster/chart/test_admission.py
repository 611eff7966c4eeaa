"""A real API server of the newest Kubernetes admits what is rendered for the oldest, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from tests.cluster.chart.helm import CLUSTER_WIDE, OLDEST, Helm, Object
from tests.cluster.chart.test_security import FILES
from tests.cluster.lab.cluster import Cluster, CommandFailed
from tests.support.waiting import wait_until

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
        if item["kind"] not in CLUSTER_WIDE:
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
        lacking = {"priorityClassName", "runtimeClassName", "serviceAccountName"}
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


@pytest.fixture
def worker_pods(helm: Helm, cluster: Cluster, namespace: str) -> Iterator[tuple[str, str]]:
    """The names of two pods, where workers are held to their own."""
    rendered = helm.render({"rbac": {"ownPodOnly": True}})
    wanted = (
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    )
    pod = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    names = ("own", "other")
    objects = [item for item in rendered.objects if item["kind"] in wanted] + [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                **pod,
                "nodeName": "no-such-node",
                "containers": [{"name": "a", "image": "a", "securityContext": security}],
            },
        }
        for name in names
    ]
    cluster.apply(objects)
    yield names
    for item in objects:
        if item["kind"] in CLUSTER_WIDE:
            cluster.kubectl("delete", item["kind"], item["metadata"]["name"])


def test_a_worker_changes_annotations_of_its_own_pod_alone(
    cluster: Cluster, namespace: str, worker_pods: tuple[str, str]
) -> None:
    own, other = worker_pods

    def patch(pod: str, patch: str, kind: str = "merge") -> str:
        return cluster.kubectl(
            f"--namespace={namespace}",
            f"--as=system:serviceaccount:{namespace}:callboard-worker",
            f"--as-user-extra=authentication.kubernetes.io/pod-name={own}",
            *("patch", "pod", pod, f"--type={kind}", "--patch", patch),
        )

    cost = '{"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "%d"}}}'
    # A new policy takes a moment until it holds.
    attempts = count(1)
    wait_until(
        lambda: _refused(lambda: patch(other, cost % next(attempts))), 30, "the policy holds", poll=0.2
    )
    with pytest.raises(CommandFailed, match="its own pod only"):
        patch(other, cost % 0)
    assert "patched" in patch(own, cost % 11)
    with pytest.raises(CommandFailed, match="annotations only"):
        patch(own, '{"metadata": {"labels": {"app.kubernetes.io/component": "api"}}}')
    with pytest.raises(CommandFailed, match="annotations only"):
        patch(own, '[{"op": "replace", "path": "/spec/containers/0/image", "value": "b"}]', "json")


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except CommandFailed:
        return True
    return False
