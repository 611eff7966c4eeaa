"""A cluster to look around in: `python -m tests.cluster.lab [FOLDER]`, until Ctrl-C.

FOLDER (default: a new one in the system's temporary folder) holds logs, and pods' logs in pods/.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.tools import ToolsMissing, tools_for_a_cluster


def main() -> None:
    try:
        tools = tools_for_a_cluster()
    except ToolsMissing as missing:
        sys.exit(f"lab: {missing}")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="callboard-lab-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(tools, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        cluster.boot()
        print(f"export KUBECONFIG={cluster.kubeconfig} PATH={tools.folder}:$PATH")
        print(f"Prometheus: {cluster.monitoring.url}. Ctrl-C ends it.", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.shut_down()


if __name__ == "__main__":
    main()
