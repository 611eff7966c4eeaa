"""Where the programs of the control plane are: `$CLUSTER_TOOLS`, else what `make cluster-tools` built."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
VARIABLE = "CLUSTER_TOOLS"
#: What boots a cluster. Checks of the chart alone need less: see `Tools.program`.
NEEDED = ("kube", "etcd", "helm3", "helm4", "prometheus", "prometheus-adapter")
#: What else the lab needs of the machine, with its Debian package.
MACHINE = {"openssl": "openssl", "ip": "iproute2", "unshare": "util-linux", "redis-cli": "redis-tools"}


class ToolsMissing(Exception):
    """A program that the lab needs is not there; the message says which, and how to get it."""


@dataclass(frozen=True)
class Tools:
    """One folder of programs."""

    folder: Path

    def program(self, name: str) -> Path:
        """The path of `name`. Raises `ToolsMissing`."""
        path = self.folder / name
        if not os.access(path, os.X_OK):
            raise ToolsMissing(
                f"{name} is not in {self.folder}. `make cluster-tools` builds it (all of them take about an "
                f"hour on two cores), or set {VARIABLE} to a folder that has it."
            )
        return path


def find_tools() -> Tools:
    """The folder of programs, whole or not."""
    return Tools(Path(os.environ.get(VARIABLE) or ROOT / ".cache" / "cluster-tools").resolve())


def tools_for_a_cluster() -> Tools:
    """The folder, with all that a cluster needs and on a machine that can run one. Raises `ToolsMissing`."""
    tools = find_tools()
    for name in NEEDED:
        tools.program(name)
    if missing := {package for program, package in MACHINE.items() if not shutil.which(program)}:
        raise ToolsMissing(f"This machine lacks the Debian packages {', '.join(sorted(missing))}.")
    if os.geteuid() != 0:
        raise ToolsMissing("The node agent gives each pod mounts of its own, which takes root.")
    return tools
