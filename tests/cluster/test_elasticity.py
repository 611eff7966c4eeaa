"""Workers that size themselves: the burst, the steady load, the busy pod, the blind autoscaler.

One release for all of them; each test leaves it with one pod and an empty queue.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from callboard.client import Client
from tests.cluster.lab.audit import writes
from tests.cluster.lab.chart import draw
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import CHART, NAME, Release, faults, naps, submit_naps
from tests.cluster.lab.story import Story
from tests.cluster.lab.tide import Tide, in_hand
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

DEPLOYMENT = "worker-naps"
MOST = 8
SLOTS = 2
COST = "controller.kubernetes.io/pod-deletion-cost"
#: Longer than the autoscaler's patience (`naps`): one that took no answer for no demand would have shrunk.
HELD_SECONDS = 35


@pytest.fixture(scope="module")
def release(new_release: Callable[..., Release]) -> Release:
    release = new_release("elastic")
    release.install(naps(minReplicas=1, maxReplicas=MOST))
    wait_until(lambda: release.sees_demand(DEPLOYMENT), 60, "the HPA reads the metric", poll=0.5)
    return release


@pytest.fixture
def client(release: Release) -> Iterator[Client]:
    with release.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _at_rest(release: Release) -> None:
    """Each begins with one pod, ready, and no other that is still going."""
    _wait_for_rest(release)


def _wait_for_rest(release: Release) -> None:
    release.wait_for_replicas(DEPLOYMENT, 1, 120)
    wait_until(lambda: len(release.pods("worker", going=True)) == 1, 60, "one pod is left", poll=0.5)


def test_these_workers_scale_up_as_the_chart_has_it(release: Release, cluster: Cluster) -> None:
    values = ("--set=workerDefaults.autoscaling.mode=hpa", "--show-only=templates/workers.yaml")
    rendered = yaml.safe_load_all(cluster.helm("template", NAME, str(CHART), *values))
    (shipped,) = (
        found["spec"]["behavior"] for found in rendered if found["kind"] == "HorizontalPodAutoscaler"
    )
    assert release.autoscaler(DEPLOYMENT)["spec"]["behavior"]["scaleUp"] == shipped["scaleUp"]


@pytest.mark.timeout(480)
def test_a_burst_goes_to_the_most_pods_and_back_and_no_task_notices(
    release: Release, client: Client, ledger: Ledger, cluster: Cluster
) -> None:
    story = Story(release, "naps", DEPLOYMENT)
    story.begin()
    try:
        wait_until(lambda: len(story.moments) >= 5, 15, "the story begins")

        story.chapter("300 tasks of 2 s")
        burst = submit_naps(client, 300, 2)
        seen = wait_until(
            lambda: (release.demand("naps") or 0) > MOST * SLOTS, 30, "the metric tells of the burst"
        )
        assert seen
        told = time.monotonic()
        release.wait_for_replicas(DEPLOYMENT, MOST, 60)
        print(f"\n1 → {MOST} ready pods in {time.monotonic() - told:.1f} s after the metric")
        _says(client, ready=MOST, limited_by="max")
        wait_until(lambda: in_hand(client) == 0, 120, "the burst is worked off", poll=0.5)

        # Nine tasks at all times are five pods of two slots, with one slot to spare.
        story.chapter("9 tasks at all times")
        with Tide(client, level=9, seconds=4) as tide:
            release.wait_for_replicas(DEPLOYMENT, 5, 90)
            steady = story.chapter("watched for 2 minutes")
            wait_until(lambda: story.moments[-1].at >= steady + 120, 140, "two minutes have passed", poll=0.5)
            changes = story.changes(since=steady)
        assert len(changes) <= 1, f"flapping under a steady load: {changes}"

        story.chapter("no more tasks")
        wait_until(lambda: in_hand(client) == 0, 60, "the queue is empty", poll=0.5)
        _wait_for_rest(release)
        wait_until(lambda: (last := story.moments[-1]).ready == 1 and not last.demand, 15, "the story ends")
    finally:
        story.end()
        story.save(cluster.folder / "story.json")

    starts = ledger.starts()
    assert faults(client, burst + tide.ids, starts) == []
    assert len(tide.ids) > 200, "the load was not steady"
    written = writes(cluster, release.namespace)
    assert len(written) >= MOST
    pauses = [after - before for times in written.values() for before, after in pairwise(times)]
    assert min(pauses) > 9.9, "a worker told what it had in hand twice in 10 s"
    if picture := os.environ.get("CLUSTER_STORY"):
        title = "One worker set of 1 to 8 pods with 2 slots each, on a real HPA"
        Path(picture).write_text(draw(story.moments, story.chapters, title), encoding="utf-8")


@pytest.mark.timeout(240)
def test_scale_in_leaves_the_busy_pod_alone(release: Release, client: Client, ledger: Ledger) -> None:
    fillers = submit_naps(client, 5, 10)
    release.wait_for_replicas(DEPLOYMENT, 3, 60)
    wait_until(lambda: in_hand(client) == 0, 60, "the fillers are done", poll=0.1)

    # Of equals the younger pods go first: in the oldest one a task would be safe without any cost.
    oldest = release.pods("worker")[0]["metadata"]["name"]
    long, discarded = _nap_elsewhere(client, oldest, 75)
    busy = _pod_of(client, long)
    cost = wait_until(lambda: int(_annotations(release, busy).get(COST, "0")), 25, "the busy pod has a cost")
    assert cost >= 10
    assert release.replicas(DEPLOYMENT)[0] == 3, "scaled in before the cost was there: this proves nothing"

    release.wait_for_replicas(DEPLOYMENT, 1, 90)
    assert [pod["metadata"]["name"] for pod in release.pods("worker")] == [busy]
    assert client.wait(long, 120).state == "completed"
    assert faults(client, [*fillers, long], ledger.starts()) == []
    assert len(discarded) < 10


@pytest.mark.timeout(420)
def test_a_blind_autoscaler_holds(release: Release, client: Client, ledger: Ledger, cluster: Cluster) -> None:
    ids = submit_naps(client, 5, 600)
    release.wait_for_replicas(DEPLOYMENT, 3, 60)

    # Nobody exports the demand any more.
    for exporter in ("api", "scheduler"):
        release.kubectl("scale", f"deployment/{NAME}-{exporter}", "--replicas=0")
    _blind(release)
    _holds(release, 3, HELD_SECONDS)
    for exporter in ("api", "scheduler"):
        release.kubectl("scale", f"deployment/{NAME}-{exporter}", "--replicas=1")
    _sees_again(release)

    # Nobody asks for it any more; then nobody serves it, which to an autoscaler is the same error.
    for component, seconds in (("prometheus", HELD_SECONDS), ("prometheus-adapter", 10)):
        cluster.components.stop(component, signal.SIGKILL)
        _blind(release)
        _holds(release, 3, seconds)
        with release.client() as again:
            _says(again, ready=3, limited_by="metric")
        cluster.components.start(component)
        _sees_again(release)
    assert release.replicas(DEPLOYMENT) == (3, 3)

    with release.client() as again:  # the API's pod is another one now
        for id in ids:
            again.cancel(id)
        for id in ids:
            task = again.wait(id, 30)
            assert (task.state, task.attempt, task.interruptions) == ("cancelled", 1, ())
            assert ledger.starts()[id] == 1


def _nap_elsewhere(client: Client, pod: str, seconds: float) -> tuple[str, list[str]]:
    """A running nap that is not in that pod, and the ones that were, and were cancelled."""
    discarded: list[str] = []
    for _ in range(10):
        (id,) = submit_naps(client, 1, seconds)
        if _pod_of(client, id) != pod:
            return id, discarded
        client.cancel(id)
        discarded.append(id)
    raise AssertionError(f"10 naps began in {pod}, although others were idle")


def _pod_of(client: Client, id: str) -> str:
    """Where a task runs: a worker's id is its pod's name and six characters."""
    worker = wait_until(lambda: client.task(id).worker, 10, "the nap runs", poll=0.1)
    return str(worker).rpartition("-")[0]


def _annotations(release: Release, pod: str) -> dict[str, str]:
    return release.get("pod", pod)["metadata"].get("annotations") or {}


def _says(client: Client, ready: int, limited_by: str) -> None:
    """Until the API tells how many workers the queue has, and what keeps them from being more."""
    told = {"desired": ready, "ready": ready, "max": MOST, "limited_by": limited_by}
    wait_until(lambda: client.queue("naps").document["scaling"] == told, 20, f"the API says {told}", poll=0.3)


def _blind(release: Release) -> None:
    wait_until(lambda: not release.sees_demand(DEPLOYMENT), 60, "the HPA says that it sees nothing", poll=0.3)


def _sees_again(release: Release) -> None:
    wait_until(lambda: release.sees_demand(DEPLOYMENT), 60, "the HPA reads the metric again", poll=0.3)


def _holds(release: Release, pods: int, seconds: float) -> None:
    """For so long the Deployment neither wants nor has another number of pods."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert release.replicas(DEPLOYMENT) == (pods, pods)
        time.sleep(0.25)  # between two looks
