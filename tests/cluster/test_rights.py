"""What the pods may do is what they do: the rules of their Roles against the API server's audit log.

Every use of a right is provoked here, so that a right that nobody uses shows, as does one that is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.cluster.lab.audit import calls
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import NAME, Release, naps, submit_naps
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

#: (verb, group, resource), such as ("patch", "", "pods").
Right = tuple[str, str, str]
_DEPLOYMENT = f"deployment/{NAME}-worker-naps"


@pytest.mark.timeout(300)
def test_every_right_is_used_and_no_other_asked_for(
    new_release: Callable[..., Release], cluster: Cluster, ledger: Ledger
) -> None:
    release = new_release("rights")
    release.install(naps(mode="none"))
    granted = _granted(release)
    assert granted, "no Role, so nothing is proven"

    _lose_a_worker_as_it_drains(release, ledger)

    used, refused = _asked(cluster, release.namespace)
    assert refused == {}, "rights that are missing"
    assert used == granted


def _lose_a_worker_as_it_drains(release: Release, ledger: Ledger) -> None:
    """A worker is killed in the middle of its drain, the last one of its queue: whose doing was it?

    The workers' own right to patch is used as they start, the one to read as they are told to stop; the
    scheduler's when it finds the task; the API's when it shows how the queue scales.
    """
    with release.client() as client:
        (id,) = submit_naps(client, 1, 45)
        wait_until(lambda: ledger.running() >= {id}, 30, "the nap runs")
        (pod,) = release.pods("worker")
        release.kubectl("scale", _DEPLOYMENT, "--replicas=0")
        wait_until(lambda: not release.pods("worker"), 20, "the worker is told to stop", poll=0.2)
        wait_until(lambda: any(w.draining for w in client.workers()), 20, "the worker drains", poll=0.2)
        release.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")

        wait_until(
            lambda: client.task(id).state == "queued", 60, "the nap is found and queued again", poll=0.5
        )
        release.kubectl("scale", _DEPLOYMENT, "--replicas=1")
        wait_until(lambda: client.queue("naps").document["scaling"], 20, "the API shows how the queue scales")
        task = client.wait(id, 120)
    assert task.state == "completed"
    # Taken from outside: that is no fault of the task, so it costs none of its attempts.
    assert task.attempt == 1, [attempt.outcome for attempt in task.attempts]
    (interruption,) = task.interruptions
    assert "pod was deleted" in interruption.cause
    assert ledger.starts()[id] == 2


def _granted(release: Release) -> dict[str, set[Right]]:
    """By service account, what its Roles allow."""
    rules = {role["metadata"]["name"]: role["rules"] for role in release.get("roles")["items"]}
    found: dict[str, set[Right]] = defaultdict(set)
    for binding in release.get("rolebindings")["items"]:
        for rule in rules[binding["roleRef"]["name"]]:
            for subject in binding["subjects"]:
                found[subject["name"]] |= {
                    (verb, group, resource)
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    return dict(found)


def _asked(cluster: Cluster, namespace: str) -> tuple[dict[str, set[Right]], dict[str, set[Right]]]:
    """By service account, what it asked for and got, and what it was refused."""
    got: dict[str, set[Right]] = defaultdict(set)
    refused: dict[str, set[Right]] = defaultdict(set)
    for event in calls(cluster, namespace):
        account = event["user"]["username"].rpartition(":")[2]
        what = event.get("objectRef") or {}
        resource = "/".join(
            filter(None, (what.get("resource", event["requestURI"]), what.get("subresource")))
        )
        right = (event["verb"], what.get("apiGroup", ""), resource)
        allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow"
        (got if allowed else refused)[account].add(right)
    return dict(got), dict(refused)
