"""Down to no worker at all, and up again for the first task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.lab.release import Release, faults, naps, submit_naps
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

DEPLOYMENT = "worker-naps"


@pytest.mark.timeout(300)
def test_a_task_wakes_a_queue_without_workers(new_release: Callable[..., Release], ledger: Ledger) -> None:
    release = new_release("zero")
    release.install(naps(minReplicas=0, maxReplicas=4))
    release.wait_for_replicas(DEPLOYMENT, 0, 120)
    wait_until(lambda: not release.pods("worker", going=True), 60, "no worker is left", poll=0.5)
    conditions = {c["type"]: c["status"] for c in release.autoscaler(DEPLOYMENT)["status"]["conditions"]}
    assert conditions.get("ScaledToZero") == "True", "without it, zero would mean: paused by hand"

    with release.client() as client:
        asleep = {"desired": 0, "ready": 0, "max": 4, "limited_by": None}
        wait_until(
            lambda: client.queue("naps").document["scaling"] == asleep,
            20,
            "the API says that the workers are asleep, and not that they are paused",
            poll=0.5,
        )

        (id,) = submit_naps(client, 1, 1)
        task = client.wait(id, 60)
        assert task.state == "completed"
        print(f"\n0 → 1: the task waited {(task.wait_ms or 0) / 1000:.1f} s for its worker")

        release.wait_for_replicas(DEPLOYMENT, 0, 120)
        assert faults(client, [id], ledger.starts()) == []
