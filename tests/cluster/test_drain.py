"""A node is drained, with the chart's own Valkey and a busy worker on it: nobody's task is to blame."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import NAME, Release, naps, submit_naps
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

_DRAIN_SECONDS = 10
_NAP_SECONDS = 40


@pytest.mark.timeout(300)
def test_a_node_drain_ends_and_costs_no_attempt(
    new_release: Callable[..., Release], cluster: Cluster, ledger: Ledger
) -> None:
    release = new_release("drain")
    values = naps(mode="none")
    values["workers"]["naps"] |= {"drainSeconds": _DRAIN_SECONDS, "spread": "required"}
    release.install(values)
    release.kubectl("scale", f"deployment/{NAME}-worker-naps", "--replicas=2")
    release.wait_for_replicas("worker-naps", 2, 60)

    # Three naps on two pods of two slots: some on either node, whichever the scheduler chose for Valkey.
    (valkey,) = release.pods("valkey")
    node = valkey["spec"]["nodeName"]
    leaving = {pod["metadata"]["name"] for pod in release.pods("worker") if pod["spec"]["nodeName"] == node}
    assert len(leaving) == 1
    with release.client() as client:
        ids = submit_naps(client, 3, _NAP_SECONDS)
        wait_until(lambda: ledger.running() >= set(ids), 30, "the naps run")
        worker_of = {id: str(client.task(id).worker) for id in ids}
    disturbed = {id for id, worker in worker_of.items() if worker.rpartition("-")[0] in leaving}
    assert disturbed
    assert disturbed != set(ids)

    # Pods keep scratch files in an emptyDir, which drain wants to be asked about. Budgets must not wedge it.
    cluster.kubectl("drain", node, "--delete-emptydir-data", "--timeout=120s")
    try:
        assert not [
            pod for kind in ("api", "scheduler", "valkey", "worker") for pod in _pods_on(release, kind, node)
        ]
        for deployment in ("api", "scheduler"):
            release.rolled_out(deployment)
    finally:
        cluster.kubectl("uncordon", node)

    with release.client() as client:
        for id in ids:
            task = client.wait(id, 120)
            causes = [interruption.cause for interruption in task.interruptions]
            assert (task.state, task.attempt) == ("completed", 1), (causes, task.attempts)
            if id in disturbed:
                assert len(causes) == 1
                assert "evicted" in causes[0]
            else:
                assert causes == []
            assert ledger.starts()[id] == 1 + len(causes)


def _pods_on(release: Release, component: str, node: str) -> list[str]:
    pods = release.pods(component, going=True)
    return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node]
