"""What an upgrade leaves as it is: replicas that somebody else set, secrets, pods that nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest
import yaml

from tests.cluster.chart.helm import CHART, Object
from tests.cluster.lab.cluster import HELMS, Cluster

pytestmark = pytest.mark.timeout(180)

#: No node takes the pods: what is looked at are the objects.
NOWHERE = {"nodeSelector": {"there-is": "no-such-node"}}
QUIET = {"api": NOWHERE, "scheduler": NOWHERE, "valkey": NOWHERE, "workerDefaults": NOWHERE}

Put = Callable[..., None]
_numbers = count(1)


@pytest.fixture(params=HELMS)
def put(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Put]:
    """Installs, or upgrades to, exactly these values."""
    # One of its own for each test: a namespace that is being deleted takes nothing in.
    namespace = f"upgrades-{request.param}-{next(_numbers)}"
    cluster.create_namespace(namespace)
    file = cluster.folder / f"{namespace}.yaml"

    def put(**values: Any) -> None:
        whole: dict[str, Any] = {**QUIET, **values}
        file.write_text(yaml.safe_dump(whole), encoding="utf-8")
        cluster.helm(
            *("upgrade", "callboard", str(CHART), "--install", "--reset-values", f"--values={file}"),
            version=request.param,
            namespace=namespace,
        )

    put.namespace = namespace  # type: ignore[attr-defined]
    yield put
    cluster.helm("uninstall", "callboard", version=request.param, namespace=namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


class Work:
    """The Deployment of the worker set `one`."""

    def __init__(self, cluster: Cluster, put: Put) -> None:
        self._cluster, self.namespace = cluster, put.namespace  # type: ignore[attr-defined]

    def replicas(self) -> int:
        found: int = self.get("deployment", "callboard-worker-one")["spec"]["replicas"]
        return found

    def scale(self, replicas: int) -> None:
        self._cluster.kubectl(
            f"--namespace={self.namespace}",
            "scale",
            "deployment/callboard-worker-one",
            f"--replicas={replicas}",
        )

    def get(self, *what: str) -> Object:
        return self._cluster.get(*what, namespace=self.namespace)


def one(**own: Any) -> Mapping[str, Any]:
    return {"default": None, "one": own}


def test_replicas_stay_on_the_way_to_an_autoscaler_and_back(cluster: Cluster, put: Put) -> None:
    work = Work(cluster, put)
    put(workers=one())
    assert work.replicas() == 1
    work.scale(4)
    # At the same time pods change, or Helm would have no reason to touch the Deployment.
    put(workers=one(autoscaling={"mode": "hpa"}, podLabels={"turn": "1"}))
    assert work.replicas() == 4
    put(workers=one(podLabels={"turn": "2"}))
    assert work.replicas() == 4
    assert work.get("hpa")["items"] == []


def test_a_number_that_helm_had_is_handed_over_by_kubectl_scale(cluster: Cluster, put: Put) -> None:
    work = Work(cluster, put)
    put(workers=one(replicas=3))
    assert work.replicas() == 3
    work.scale(4)
    put(workers=one(podLabels={"turn": "1"}))
    # Helm 3 compares manifests, and takes away what it once put; UPGRADING.md says so.
    assert work.replicas() == (1 if "helm3" in work.namespace else 4)


def test_an_upgrade_that_changes_nothing_rolls_nothing(cluster: Cluster, put: Put) -> None:
    work = Work(cluster, put)
    put(workers=one())

    def state() -> tuple[dict[str, int], dict[str, Any]]:
        items = work.get("deployments,statefulsets")["items"]
        secrets = {
            item["metadata"]["name"]: item["data"]
            for item in work.get("secrets")["items"]
            if "owner" not in str(item["metadata"].get("labels"))
        }
        return {item["metadata"]["name"]: item["metadata"]["generation"] for item in items}, secrets

    before = state()
    assert {"callboard-auth", "callboard-valkey"} <= {*before[1]}
    put(workers=one())
    assert state() == before
    put(workers=one(), settings={"logLevel": "debug"})
    generations, secrets = state()
    assert secrets == before[1]
    changed = {name for name, generation in generations.items() if generation != before[0][name]}
    assert changed == {"callboard-api", "callboard-scheduler", "callboard-worker-one"}, "not Valkey"
