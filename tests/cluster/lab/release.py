"""One installation of the chart, as its users see it: Helm, kubectl, the API."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callboard.client import Client
from tests.cluster.agent.api import Object
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.images import OWN_IMAGE
from tests.cluster.lab.tools import ROOT
from tests.support.waiting import wait_until

CHART = ROOT / "deploy" / "helm" / "callboard"
NAME = "callboard"
_INSTALL_SECONDS = 120


def naps(**autoscaling: Any) -> dict[str, Any]:
    """Values with one worker set, `naps`, on an image of the user's own; `autoscaling` makes it elastic."""
    scaling = {
        "mode": "hpa",
        "minReplicas": 1,
        "maxReplicas": 8,
        # Up as the chart does it; down without its patience of five minutes, which no test has.
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                ],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 30,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 4}],
            },
        },
    }
    worker = {
        "image": {"repository": OWN_IMAGE},
        "queues": ["naps"],
        "slots": 2,
        "drainSeconds": 30,
        "autoscaling": scaling | autoscaling if autoscaling.get("mode") != "none" else {"mode": "none"},
    }
    return {"workers": {"default": None, "naps": worker}}


class Release:
    """A release called `callboard` in a `restricted` namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str, version: str = "helm4") -> None:
        """version: the Helm that speaks, `helm3` or `helm4`."""
        self.cluster, self.namespace, self.version = cluster, namespace, version
        self._turn = 0

    # -- Helm

    def install(self, values: Mapping[str, Any] | None = None, chart: Path = CHART) -> str:
        """Install and wait until everything is ready; what Helm printed. Raises `CommandFailed`."""
        return self._put("install", values or {}, chart)

    def upgrade(self, values: Mapping[str, Any], chart: Path = CHART) -> str:
        """Upgrade to exactly these values, and wait. Raises `CommandFailed`."""
        return self._put("upgrade", values, chart, "--reset-values")

    def helm(self, *arguments: str) -> str:
        """Any other command."""
        return self.cluster.helm(*arguments, version=self.version, namespace=self.namespace)

    def _put(self, command: str, values: Mapping[str, Any], chart: Path, *more: str) -> str:
        file = self.cluster.folder / f"values-{self.namespace}.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        given = [f"--values={file}"] if values else []
        waiting = ["--wait", f"--timeout={_INSTALL_SECONDS}s"]
        return self.helm(command, NAME, str(chart), *given, *more, *waiting)

    # -- objects

    def kubectl(self, *arguments: str) -> str:
        """kubectl in the namespace."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments)

    def get(self, *what: str) -> Object:
        """An object of the namespace, or a list with `items`."""
        return self.cluster.get(*what, namespace=self.namespace)

    def pods(self, component: str, *, going: bool = False) -> list[Object]:
        """Pods of a component, the oldest first. going: those too that are being deleted."""
        found = self.get("pods", f"--selector=app.kubernetes.io/component={component}")["items"]
        stay = [pod for pod in found if going or "deletionTimestamp" not in pod["metadata"]]
        return sorted(stay, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def replicas(self, deployment: str) -> tuple[int, int]:
        """Wanted and ready pods of a Deployment such as `worker-naps`."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{NAME}-{deployment}"
        found = self.cluster.api.get(path)
        return found["spec"]["replicas"], found["status"].get("readyReplicas", 0)

    def wait_for_replicas(self, deployment: str, count: int, timeout_seconds: float) -> None:
        """Until the Deployment wants exactly so many pods, and has them ready."""
        wait_until(
            lambda: self.replicas(deployment) == (count, count),
            timeout_seconds,
            f"{deployment} has {count} pods, all of them ready",
            poll=0.3,
        )

    def autoscaler(self, deployment: str) -> Object:
        """The HPA of a Deployment."""
        group, name = "/apis/autoscaling/v2", f"{NAME}-{deployment}"
        return self.cluster.api.get(f"{group}/namespaces/{self.namespace}/horizontalpodautoscalers/{name}")

    def sees_demand(self, deployment: str) -> bool:
        """Whether the HPA can read its metric."""
        conditions = self.autoscaler(deployment)["status"].get("conditions") or []
        return any(c["type"] == "ScalingActive" and c["status"] == "True" for c in conditions)

    def demand(self, queue: str) -> float | None:
        """What the external metrics API says a queue needs; None while it says nothing."""
        path = (
            f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{self.namespace}/callboard_queue_demand_slots"
        )
        items = self.cluster.api.get(path, labelSelector=f"queue={queue}")["items"]
        if not items:
            return None
        value = str(items[0]["value"])
        return float(value.removesuffix("m")) / 1000 if value.endswith("m") else float(value)

    def rolled_out(self, deployment: str, timeout_seconds: int = 90) -> None:
        """Wait for the end of a rollout."""
        self.kubectl("rollout", "status", f"deployment/{NAME}-{deployment}", f"--timeout={timeout_seconds}s")

    # -- the API

    def key(self) -> str:
        """The admin key, where NOTES says that it is."""
        data = self.get("secret", f"{NAME}-auth")["data"]["admin-key"]
        return base64.b64decode(data).decode()

    def addresses(self) -> list[str]:
        """Ready pods of the API, as its Service has them."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        slices = self.cluster.api.get(path, labelSelector=f"kubernetes.io/service-name={NAME}-api")
        return [
            address
            for one in slices["items"]
            for endpoint in one.get("endpoints") or []
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]

    def client(self) -> Client:
        """A client of one ready pod; not through the Service, whose address leads nowhere here."""
        addresses = wait_until(self.addresses, 30, "the API's Service has an endpoint", poll=0.2)
        self._turn += 1
        return Client(f"http://{addresses[self._turn % len(addresses)]}:8000", self.key())


def submit_naps(client: Client, count: int, seconds: float) -> list[str]:
    """Submit so many naps in one request; their ids."""
    items = client.submit_batch([{"name": "nap", "payload": {"seconds": seconds}}] * count)
    refused = [item.problem for item in items if item.id is None]
    assert not refused, refused
    return [item.id for item in items if item.id]


def faults(client: Client, ids: Sequence[str], starts: Mapping[str, int]) -> list[str]:
    """What is wrong with tasks that should have run once, undisturbed: a line each.

    starts: how often each body began, by the ledger.
    """
    wrong = []
    for id in ids:
        task = client.task(id)
        causes = [interruption.cause for interruption in task.interruptions]
        outcomes = [attempt.outcome for attempt in task.attempts]
        if (task.state, task.attempt, starts.get(id, 0), causes) != ("completed", 1, 1, []):
            begun = f"begun {starts.get(id, 0)} times"
            wrong.append(f"{id}: {task.state}, attempt {task.attempt} {outcomes}, {begun}, {causes}")
    return wrong
