"""A real control plane on loopback, with kubectl: API server, controllers and scheduler, and no kubelet.

A test plays the kubelet, and starts workers itself.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard.cluster.herald import DELETION_COST
from callboard.cluster.kube import Kube
from tests.cluster.lab.components import Components
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.tools import find_tools
from tests.support.board import Board
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess
from tests.support.workers import working

ROLES = Path(__file__).parents[2] / "docs/kubernetes/rbac.md"
NAMESPACE = "acme"


class OnLoopback(Components):
    """There the API server may not publish its own address, which nobody here looks up."""

    def add(
        self, name: str, program: Path, *arguments: str, flags: Mapping[str, object] | None = None
    ) -> None:
        more = {"endpoint-reconciler-type": "none"} if name == "kube-apiserver" else {}
        super().add(name, program, *arguments, flags={**(flags or {}), **more})


class Plane:
    """The control plane, with kubectl."""

    def __init__(self, control_plane: ControlPlane, components: Components, kubectl: list[str]) -> None:
        self.control_plane, self.components, self._kubectl = control_plane, components, kubectl

    def run(self, *words: str, given: object = None) -> str:
        """What kubectl says; `given` goes in as a manifest."""
        text = None if given is None else given if isinstance(given, str) else json.dumps(given)
        done = subprocess.run(
            [*self._kubectl, "-n", NAMESPACE, *words], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.run("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": objects})

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", "pod", name, "-o", "json"))
        return found

    def annotations(self, name: str) -> dict[str, str]:
        return dict(self.pod(name)["metadata"].get("annotations", {}))

    def cost(self, name: str) -> str | None:
        return self.annotations(name).get(DELETION_COST)

    def pods_of(self, worker_set: str, count: int) -> list[str]:
        """The names of a worker set's pods, when there are so many."""
        found = self.run("get", "pods", "-l", f"callboard.dev/worker-set={worker_set}", "-o", "name").split()
        return [name.removeprefix("pod/") for name in found] if len(found) == count else []

    def make_pod(self, name: str) -> str:
        """A pod that runs on our node, as far as the API server knows."""
        self.apply(_pod(name))
        return name

    def objection(self) -> str:
        """What the API server has against one more pod; nothing is made."""
        words = [*self._kubectl, "-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"]
        text = json.dumps(_pod("one-more"))
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False).stderr

    def set_status(self, name: str, status: Mapping[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)

    def evict(self, name: str) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        self.run("create", "--raw", path, "-f", "-", given=eviction)

    def account(self, name: str, folder: Path) -> Path:
        """The files that the kubelet would mount for this service account."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.run("create", "token", name).strip(), encoding="utf-8")
        (folder / "namespace").write_text(NAMESPACE, encoding="utf-8")
        (folder / "ca.crt").write_bytes((self.control_plane.certificates / "ca.crt").read_bytes())
        return folder

    def kube(self, name: str, folder: Path) -> Kube:
        """What speaks for a service account."""
        account = self.account(name, folder)
        return Kube(self.control_plane.server, NAMESPACE, account / "token", account / "ca.crt")


@contextmanager
def loopback_plane(folder: Path) -> Iterator[Plane]:
    """Boot one; raises ToolsMissing where its programs are not."""
    tools = find_tools()
    kube = tools.program("kube")
    tools.program("etcd")
    components = OnLoopback(folder / "logs")
    control_plane = ControlPlane(tools, folder / "state", components, "127.0.0.1")
    try:
        control_plane.boot()
        kubectl = [str(kube), "kubectl", f"--kubeconfig={control_plane.kubeconfig('admin')}"]
        made = Plane(control_plane, components, kubectl)
        _prepare(made)
        yield made
    finally:
        components.stop_all()


def _prepare(plane: Plane) -> None:
    """A namespace, the Roles as the docs give them, and a node that takes no pod by itself."""
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    plane.run("apply", "-f", "-", given=roles_of_the_docs())
    for name in ("worker", "scheduler", "api"):
        plane.run("create", "serviceaccount", name)
        role, subject = f"--role=callboard-{name}", f"--serviceaccount={NAMESPACE}:{name}"
        plane.run("create", "rolebinding", f"callboard-{name}", role, subject)
    taint = {"key": "no", "effect": "NoSchedule"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": [taint]}}
    plane.apply(node)
    wait_until(lambda: plane.run("get", "serviceaccount", "-o", "name").count("default") == 1, 30, "default")


def roles_of_the_docs() -> str:
    """The manifests on the page of permissions."""
    [block] = re.findall(r"```yaml\n(.*?kind: Role\n.*?)```", ROLES.read_text(encoding="utf-8"), re.DOTALL)
    return block


@contextmanager
def pod_of(
    plane: Plane, name: str, redis_url: str, folder: Path, **settings: object
) -> Iterator[tuple[ServiceProcess, Board]]:
    """A worker that is the process of a pod."""
    plane.make_pod(name)
    account = plane.account("worker", folder / f"{name}-account")
    chosen = {"CLUSTER_ACCOUNT_DIR": account, "CLUSTER_POD": name, "WORKER_LEASE_SECONDS": 1, **settings}
    with working(redis_url, folder, **chosen) as (worker, board):
        yield worker, board


def _pod(name: str) -> dict[str, Any]:
    container = {"name": "worker", "image": "callboard-worker"}
    spec = {"nodeName": "n1", "serviceAccountName": "worker", "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "w"}},
        "spec": spec,
    }
