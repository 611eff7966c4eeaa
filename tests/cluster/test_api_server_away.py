"""The API server of the cluster is away for a minute: tasks come and run as if nothing had happened."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import NAME, Release, faults, naps
from tests.cluster.lab.tide import Tide, in_hand
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

_AWAY_SECONDS = 60


@pytest.mark.timeout(300)
def test_tasks_do_not_need_the_api_server(
    new_release: Callable[..., Release], cluster: Cluster, ledger: Ledger
) -> None:
    release = new_release("away")
    release.install(naps(mode="none"))
    release.kubectl("scale", f"deployment/{NAME}-worker-naps", "--replicas=2")
    release.wait_for_replicas("worker-naps", 2, 60)
    before = _lives(release)

    with release.client() as client:
        with Tide(client, level=4, seconds=3) as tide:
            wait_until(lambda: len(tide.ids) >= 8, 30, "tasks run")
            cluster.components.stop("kube-apiserver", signal.SIGKILL)
            gone_at, first = time.monotonic(), len(tide.ids)
            wait_until(
                lambda: time.monotonic() >= gone_at + _AWAY_SECONDS, _AWAY_SECONDS + 5, "a minute", poll=0.5
            )
            last = len(tide.ids)
            cluster.components.start("kube-apiserver")
            cluster.control_plane.wait_for_the_api_server(60)
            cluster.control_plane.restart_controllers()
            nodes = ("node", "--all", "--timeout=60s")
            cluster.kubectl("wait", "--for=condition=Ready", *nodes)
            release.wait_for_replicas("worker-naps", 2, 60)
        # Four slots of 3 s make 80 naps a minute where nothing else is done; who stopped would show.
        assert last - first > 50, f"only {last - first} tasks began in {_AWAY_SECONDS} s"
        wait_until(lambda: in_hand(client) == 0, 60, "the queue is empty", poll=0.5)
        assert faults(client, tide.ids, ledger.starts()) == []
    assert _lives(release) == before, "a pod was replaced or restarted"
    # And the cluster is told again: at its start the API server refuses, for a moment, what it will allow.
    wait_until(lambda: _costs(release) == {"0"}, 60, "every worker says that it is idle", poll=0.5)


@pytest.mark.timeout(60)
def test_a_node_that_was_held_for_lost_comes_back(cluster: Cluster) -> None:
    """As after an outage, when a controller reads the leases late: else every proof after that would fail."""
    doubt = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    patch = json.dumps({"status": {"conditions": [doubt]}})
    cluster.kubectl("patch", "node", "node-a", "--subresource=status", "--type=strategic", f"--patch={patch}")
    cluster.kubectl("wait", "--for=condition=Ready", "node/node-a", "--timeout=30s")


def _costs(release: Release) -> set[str | None]:
    """What the workers say that their end would cost."""
    return {
        pod["metadata"].get("annotations", {}).get("controller.kubernetes.io/pod-deletion-cost")
        for pod in release.pods("worker")
    }


def _lives(release: Release) -> set[tuple[str, int]]:
    """Every pod, with the restarts of its container."""
    return {
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for component in ("api", "worker", "scheduler", "valkey")
        for pod in release.pods(component)
    }
