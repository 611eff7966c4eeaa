"""A node agent that runs pods as processes of this machine: what a kubelet does, without containers.

python -m tests.cluster.agent --kubeconfig FILE --images FILE --folder DIR --bridge NAME=ADDRESS --node NAME…

Needs root. Below DIR are the pods' logs (pods/NAMESPACE_NAME_UID/CONTAINER.log) and the claims' folders. What
it leaves out is in tests/cluster/README.md.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from tests.cluster.agent.api import Api
from tests.cluster.agent.claim import Claims
from tests.cluster.agent.image import Images
from tests.cluster.agent.network import Bridge
from tests.cluster.agent.node import Nodes, end_at_once


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--node", action="append", required=True)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: end_at_once())

    api = Api(asked.kubeconfig)
    claims = Claims(api, asked.folder / "claims")
    claims.register()
    threading.Thread(target=claims.run, daemon=True).start()
    bridge = Bridge(*asked.bridge.split("=", 1))
    Nodes(api, Images(asked.images), bridge, asked.folder / "pods", asked.node).run()


if __name__ == "__main__":
    main()
