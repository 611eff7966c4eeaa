"""A whole cluster on this machine: control plane, monitoring, nodes. Up in 10 s, gone with its maker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.agent.api import Api, Object
from tests.cluster.lab.bridge import Bridge
from tests.cluster.lab.components import Components
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.images import write_images
from tests.cluster.lab.monitoring import METRIC_APIS, Monitoring
from tests.cluster.lab.tools import ROOT, Tools
from tests.support.waiting import wait_until

NODES = ("node-a", "node-b")
HELMS = ("helm3", "helm4")


class CommandFailed(Exception):
    """kubectl or helm said no; the message is what it said."""


class Cluster:
    """`boot()`, then kubectl and helm; `shut_down()` at the end. One folder holds all of it."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools, self.folder = tools, folder
        self.components = Components(folder / "logs")
        self.bridge = Bridge()
        self.control_plane: ControlPlane
        self.monitoring: Monitoring
        self.kubeconfig: Path
        #: For what is asked many times a second, where a kubectl each would be most of this machine's work.
        self.api: Api
        #: Mounted at /ledger into pods of the test's own images.
        self.ledger = folder / "ledger"

    def boot(self) -> None:
        """Start everything, and wait until nodes are ready and the metrics APIs answer."""
        self.ledger.mkdir(parents=True)
        self.ledger.chmod(0o777)
        self.bridge.create()
        self.control_plane = ControlPlane(self.tools, self.folder, self.components, self.bridge.address)
        self.control_plane.boot()
        self.kubeconfig = self.control_plane.kubeconfig("admin")
        self.api = Api(self.kubeconfig)
        self.start_agent()
        self.monitoring = Monitoring(self.tools, self.control_plane, self.components)
        self.monitoring.boot(self.apply)
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        apis = [f"apiservice/v1beta1.{group}" for group in METRIC_APIS]
        self.kubectl("wait", "--for=condition=Available", *apis, "--timeout=60s")

    def start_agent(self) -> None:
        """Start the node agent; its log says what pods did."""
        images = write_images(self.folder / "images.json", self.ledger)
        self.components.add(
            "agent",
            Path(sys.executable),
            *("-m", "tests.cluster.agent"),
            *[part for name in NODES for part in ("--node", name)],
            flags={
                "kubeconfig": self.kubeconfig,
                "images": images,
                "folder": self.folder,
                "bridge": f"{self.bridge.name}={self.bridge.address}",
            },
        )
        wait_until(lambda: len(self.get("nodes")["items"]) == len(NODES), 30, "the nodes register", poll=0.2)

    def shut_down(self) -> None:
        """End every process and take the bridge away. The folder stays, for its logs."""
        if api := getattr(self, "api", None):
            api.close()
        self.components.stop_all()
        self.bridge.remove()

    # -- commands

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl printed. Raises `CommandFailed`."""
        program = [str(self.tools.program("kube")), "kubectl", f"--kubeconfig={self.kubeconfig}"]
        return _run([*program, *arguments], stdin)

    def helm(self, *arguments: str, version: str = "helm4", namespace: str = "default") -> str:
        """What helm printed. version: `helm3` or `helm4`. Raises `CommandFailed`."""
        program = [str(self.tools.program(version)), f"--kubeconfig={self.kubeconfig}"]
        return _run([*program, f"--namespace={namespace}", *arguments])

    def get(self, *what: str, namespace: str | None = None) -> Object:
        """An object, or a list with `items`."""
        where = [f"--namespace={namespace}"] if namespace else []
        return json.loads(self.kubectl("get", *what, *where, "--output=json"))

    def apply(self, objects: Sequence[Object]) -> None:
        """Create or change objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(listed))

    def create_namespace(self, name: str) -> None:
        """One that admits only pods that keep the strictest of the Pod Security Standards.

        It is whole when this returns: a controller makes its service account a moment later, and until
        then every pod is refused.
        """
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        meta = {"name": name, "labels": labels}
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": meta}])
        self.kubectl(f"--namespace={name}", "wait", "--for=create", "--timeout=60s", "serviceaccount/default")


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command[:6])} …: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
