"""k8s/ on a real API server: its page's commands install it, overlays are admitted, runbooks' lines work."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from callboard.client import Client
from scripts.k8s import render
from tests.cluster.gitops.test_k8s import FOLDERS, folder_of, kustomized
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import Release
from tests.docs.page import NAMES, PAGES, ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

AUTOSCALER = render.K8S / "overlays" / "production" / "horizontalpodautoscaler-callboard-worker-default.yaml"
#: The lab's nodes keep no logs for the API server, and these kinds are other projects'.
NOT_HERE = (" logs ", "podmonitors", "get prometheus ", "scaledobject")

Shell = Callable[[str], str]


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Runs a page's block in bash, where `kubectl` speaks to the cluster; what it printed."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kubectl").symlink_to(cluster.tools.program("kube"))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def run(block: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def installed(cluster: Cluster, shell: Shell) -> Iterator[Release]:
    """What somebody has who types the page's commands."""
    [block] = [block.text for block in PAGES["k8s/README.md"].blocks if "kubectl apply" in block.text]
    shell(block)
    yield Release(cluster, render.NAMESPACE)
    cluster.kubectl("delete", "namespace", render.NAMESPACE, "--wait=false")


def test_the_commands_of_the_page_end_in_a_platform_that_runs_a_task(installed: Release) -> None:
    for deployment in ("api", "worker-default", "scheduler"):
        installed.rolled_out(deployment)
    key = installed.get("secret", "callboard-admin")["data"]["admin-key"]
    [address] = wait_until(installed.addresses, 30, "the API's Service has an endpoint", poll=0.2)
    with Client(f"http://{address}:8000", base64.b64decode(key).decode()) as client:
        task = client.submit("callboard.ping", {})
        wait_until(lambda: client.task(task.id).state == "completed", 60, "the task ends", poll=0.2)


@pytest.fixture(scope="module")
def empty(cluster: Cluster) -> Iterator[str]:
    """A namespace in which nothing stands in the way."""
    cluster.create_namespace("overlays")
    yield "overlays"
    cluster.kubectl("delete", "namespace", "overlays", "--wait=false")


@pytest.mark.parametrize("name", FOLDERS)
def test_an_overlay_is_admitted(cluster: Cluster, empty: str, name: str, tmp_path: Path) -> None:
    # Without the Prometheus Operator's kinds, which this cluster does not have.
    manifests = [
        manifest | {"metadata": manifest["metadata"] | ({"namespace": empty} if namespace else {})}
        for (_, namespace, _), manifest in kustomized(folder_of(name)).items()
        if not manifest["apiVersion"].startswith("monitoring.coreos.com/")
    ]
    file = tmp_path / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    # Server-side, so that the API server looks at every field: an unknown one is refused.
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={file}")
    assert said.count("serverside-applied") == len(manifests)


def blocks_of_runbooks() -> list[tuple[str, str]]:
    """The runbooks' blocks that ask the cluster, without the lines that cannot be had here."""
    found = []
    for name in NAMES:
        for block in PAGES[name].blocks if name.startswith("docs/runbooks/") else ():
            lines = [line for line in block.text.splitlines() if not any(word in line for word in NOT_HERE)]
            if any("kubectl" in line for line in lines):
                # Ten workers would be a lot for one machine.
                text = "\n".join(line for line in lines if not line.startswith("callboard "))
                found.append((block.place, text.replace("--replicas=10", "--replicas=2")))
    return found


@pytest.fixture(scope="module")
def watched(installed: Release, cluster: Cluster) -> Release:
    """With an autoscaler that reads its demand."""
    autoscaler = yaml.safe_load(AUTOSCALER.read_text(encoding="utf-8"))
    [metric] = autoscaler["spec"]["metrics"]
    # The one queue that there is without tasks of anybody's.
    metric["external"]["metric"]["selector"] = {"matchLabels": {"queue": "callboard"}}
    cluster.apply([autoscaler])
    wait_until(
        lambda: installed.sees_demand("worker-default"), 90, "the autoscaler sees the demand", poll=0.5
    )
    return installed


@pytest.mark.parametrize(("place", "block"), blocks_of_runbooks())
def test_a_runbook_is_of_use(watched: Release, shell: Shell, place: str, block: str) -> None:
    printed = shell(block)
    assert "No resources found" not in printed
    assert len(printed.strip()) > 10, place
