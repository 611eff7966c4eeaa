"""The line to the API server: what its answers mean, and what its failures are called."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import cluster, settings
from callboard.cluster.facts import Container, Termination
from callboard.cluster.faults import ClusterAway, ClusterError, ClusterForbids
from callboard.cluster.kube import Kube
from callboard.settings import kubernetes_address
from tests.support.kube_server import KubeServer, kube_server, listed, pod

AT = 1795341600000  # 2026-11-22T10:00:00Z


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeServer]:
    with kube_server(tmp_path) as server:
        yield server


def test_a_pod_with_everything_that_tells_how_it_ends(server: KubeServer) -> None:
    ended = {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2026-11-22T10:00:05Z",
        "finishedAt": "2026-11-22T10:01:05Z",
    }
    status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"},
        ],
        "containerStatuses": [
            {
                "name": "worker",
                "ready": False,
                "restartCount": 1,
                "image": "i",
                "imageID": "",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
        ],
    }
    server.objects["pods/w-1"] = pod(
        "w-1", status, deletionTimestamp="2026-11-22T10:02:00Z", labels={"a": "b"}
    )
    found = server.kube().pod("w-1")
    assert found is not None
    assert (found.name, found.created, found.deleted) == ("w-1", AT, True)
    assert (found.phase, found.reason, found.disruption) == ("Failed", "Evicted", "TerminationByKubelet")
    assert (found.unschedulable, found.labels) == ("no node", {"a": "b"})
    end = Termination("OOMKilled", 137, AT + 5_000, AT + 65_000)
    assert found.containers == (Container("worker", (end,), "CrashLoopBackOff"),)


def test_a_pod_that_is_not_there(server: KubeServer) -> None:
    assert server.kube().pod("gone") is None
    assert server.counted("get pods", "ok") == 1


@pytest.mark.parametrize(
    ("status", "fault", "outcome"),
    [
        (403, ClusterForbids, "forbidden"),
        (401, ClusterForbids, "forbidden"),
        (429, ClusterAway, "away"),
        (503, ClusterAway, "away"),
        (422, ClusterError, "failed"),
    ],
)
def test_refusals(server: KubeServer, status: int, fault: type[ClusterError], outcome: str) -> None:
    server.status = status
    with pytest.raises(fault) as caught:
        server.kube().pod("w-1")
    assert type(caught.value) is fault
    assert str(status) in str(caught.value)
    assert server.counted("get pods", outcome) == 1


def test_no_answer_and_a_late_one(server: KubeServer, tmp_path: Path) -> None:
    server.gate.clear()
    with pytest.raises(ClusterAway, match="get pods: no answer from http"):
        server.kube(timeout_seconds=0.2).pod("w-1")
    server.gate.set()
    kube = Kube(server.url, "x", server.token, None)
    server.stop()
    with pytest.raises(ClusterAway, match="refused"):
        kube.pod("w-1")
    with pytest.raises(ClusterAway, match="no-token"):
        Kube("http://127.0.0.1:1", "x", tmp_path / "no-token", None).pod("w-1")
    kube.close()
    with pytest.raises(ClusterAway, match="closed"):
        kube.pod("w-1")


def test_an_answer_that_makes_no_sense(server: KubeServer) -> None:
    server.objects["pods/w-1"] = ["what"]
    with pytest.raises(ClusterError, match="makes no sense") as caught:
        server.kube().pod("w-1")
    assert type(caught.value) is ClusterError


def test_a_token_that_was_renewed_is_read_anew(server: KubeServer) -> None:
    server.objects["pods/w-1"] = pod("w-1")
    kube = server.kube()
    assert kube.pod("w-1")
    server.token.write_text("two", encoding="utf-8")
    assert kube.pod("w-1")
    assert server.tokens == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, 1), (logging.DEBUG, 2)])
def test_its_requests_are_a_detail(
    server: KubeServer, caplog: pytest.LogCaptureFixture, level: int, lines: int
) -> None:
    """Those of others are not: a task in a thread may use the same library."""
    with caplog.at_level(level):
        server.kube().pod("w-1")
        logging.getLogger("httpx").info('HTTP Request: %s %s "%s"', "GET", "https://example.org/", "200 OK")
    assert len([one for one in caplog.records if one.name == "httpx"]) == lines


def test_deployments_and_autoscalers(server: KubeServer) -> None:
    server.objects["deployments"] = listed(
        {
            "metadata": {"name": "w-default", "annotations": {"callboard.dev/queues": "mail, reports ,"}},
            "spec": {"selector": {"matchLabels": {"set": "default"}}, "template": {}, "paused": True},
            "status": {
                "readyReplicas": 1,
                "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}],
            },
        },
        {"metadata": {"name": "bare"}, "spec": {"selector": {}, "template": {}, "replicas": 0}},
    )
    [named, bare] = server.kube().deployments("callboard.dev/worker-set")
    assert (named.queues, named.replicas, named.ready, named.paused) == (("mail", "reports"), 1, 1, True)
    assert (named.failure, named.selector) == ("exceeded quota: q", {"set": "default"})
    assert (bare.queues, bare.replicas, bare.ready, bare.paused, bare.failure) == ((), 0, 0, False, "")
    target = {"kind": "Deployment", "name": "w-default"}
    condition = {"type": "ScalingActive", "status": "False", "reason": "FailedGetExternalMetric"}
    server.objects["horizontalpodautoscalers"] = listed(
        {
            "metadata": {"name": "h", "labels": {"app.kubernetes.io/managed-by": "keda-operator"}},
            "spec": {"maxReplicas": 7, "scaleTargetRef": target},
            "status": {"desiredReplicas": 1, "conditions": [condition]},
        },
        {
            "metadata": {"name": "other"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "StatefulSet", "name": "w-default"}},
        },
    )
    [scaler] = server.kube().autoscalers()
    assert (scaler.name, scaler.target, scaler.most, scaler.keda) == ("h", "w-default", 7, True)
    assert scaler.conditions == {"ScalingActive": (False, "FailedGetExternalMetric")}


def account(folder: Path, **files: str) -> Path:
    given = {"token": "t", "ca.crt": "certificate", "namespace": "acme\n", **files}
    for name, text in given.items():
        if text:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_place_in_a_cluster(tmp_path: Path) -> None:
    chosen = {"CALLBOARD_CLUSTER_ACCOUNT_DIR": str(account(tmp_path)), "CALLBOARD_CLUSTER_POD": "w-1"}
    place = cluster.here(settings.load(chosen), "https://10.0.0.1:443")
    assert place is not None
    assert (place.namespace, place.pod) == ("acme", "w-1")
    assert place.cluster == hashlib.sha256(b"certificate").hexdigest()[:16]
    assert cluster.here(settings.load(chosen), None) is None, "not in a cluster"
    assert cluster.here(settings.load({**chosen, "CALLBOARD_CLUSTER": "off"}), "https://h:1") is None
    nameless = cluster.here(settings.load(chosen | {"CALLBOARD_CLUSTER_POD": ""}), "https://h:1")
    assert nameless is not None
    assert nameless.pod


@pytest.mark.parametrize("missing", ["token", "ca.crt", "namespace"])
def test_no_service_account_no_cluster(tmp_path: Path, missing: str) -> None:
    known = settings.load({"CALLBOARD_CLUSTER_ACCOUNT_DIR": str(account(tmp_path, **{missing: ""}))})
    assert cluster.here(known, "https://10.0.0.1:443") is None
    assert cluster.find(known) is None


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.0.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443"),
    ],
)
def test_where_the_api_server_is(env: dict[str, str], address: str | None) -> None:
    assert kubernetes_address(env) == address


def test_the_library_is_imported_by_the_first_call_alone() -> None:
    """It costs memory that a worker outside of a cluster need not have."""
    code = "import sys, callboard_worker.main; print({'httpx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
