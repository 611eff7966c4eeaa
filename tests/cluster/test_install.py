"""The chart without a single value: installed, tested, scaled by hand, upgraded, removed; by Helm 3 and 4."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.cluster.lab.cluster import HELMS, Cluster, CommandFailed
from tests.cluster.lab.inventory import inventory
from tests.cluster.lab.release import NAME, Release
from tests.cluster.lab.tools import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", params=HELMS)
def release(request: pytest.FixtureRequest, new_release: Callable[..., Release]) -> Release:
    release = new_release(f"plain-{request.param}", request.param)
    release.install()
    return release


def test_everything_runs(release: Release) -> None:
    for component in ("api", "worker", "scheduler", "valkey"):
        (pod,) = release.pods(component)
        (status,) = pod["status"]["containerStatuses"]
        assert (status["ready"], status["restartCount"]) == (True, 0), component


def test_the_namespace_is_a_strict_one(release: Release) -> None:
    # Else it would prove nothing that the chart's pods are admitted.
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        release.kubectl("run", "careless", "--image=callboard-api")


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", NAME, "--timeout=60s")


def test_kubectl_scale_survives_an_upgrade(release: Release) -> None:
    key = release.key()
    for deployment, replicas in (("worker-default", 3), ("api", 2)):
        release.kubectl("scale", f"deployment/{NAME}-{deployment}", f"--replicas={replicas}")
        release.wait_for_replicas(deployment, replicas, 60)
    before = {pod["metadata"]["name"] for pod in release.pods("worker")}

    release.upgrade({"settings": {"logLevel": "debug"}})

    assert release.replicas("worker-default") == (3, 3)
    assert release.replicas("api") == (2, 2)
    after = {pod["metadata"]["name"] for pod in release.pods("worker")}
    assert not before & after, "the upgrade rolled nothing, so it proves nothing"
    assert release.key() == key, "an upgrade must not make a new admin key"


def test_uninstalling_leaves_what_its_page_names(release: Release, cluster: Cluster) -> None:
    release.helm("uninstall", NAME, "--wait", "--timeout=90s")

    page = (ROOT / "docs" / "kubernetes" / "uninstalling.md").read_text(encoding="utf-8")
    kept = set(re.findall(r"^- `([a-z]+/[a-z0-9-]+)`", page, re.MULTILINE))
    assert kept == {f"persistentvolumeclaim/data-{NAME}-valkey-0"}
    wait_until(
        lambda: inventory(cluster, release.namespace) <= kept,
        60,
        "the namespace is empty but for the claim",
        poll=0.5,
    )
    assert inventory(cluster, release.namespace) == kept
    outside = "clusterroles,clusterrolebindings,priorityclasses,validatingwebhookconfigurations"
    assert cluster.get(outside, f"--selector=app.kubernetes.io/instance={NAME}")["items"] == []


def test_a_new_installation_finds_the_tasks_of_the_former(release: Release) -> None:
    # After the test above: the claim is there, and nothing else. `helm test` left its task in it.
    release.install()
    with release.client() as client:
        assert [task.state for task in client.tasks(queue="callboard").items] == ["completed"]
    assert "Succeeded" in release.helm("test", NAME, "--timeout=60s")
