"""What pods asked of the API server, by its audit log."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime

from tests.cluster.agent.api import Object
from tests.cluster.lab.cluster import Cluster


def calls(cluster: Cluster, namespace: str) -> list[Object]:
    """Every call of a service account of the namespace that has been answered, the oldest answer first."""
    prefix = f"system:serviceaccount:{namespace}:"
    events = map(json.loads, cluster.control_plane.audit_log.read_text(encoding="utf-8").splitlines())
    return [event for event in events if event["user"]["username"].startswith(prefix)]


def writes(cluster: Cluster, namespace: str) -> dict[str, list[float]]:
    """When each pod's annotations were written, in seconds, by the pod's name."""
    found: dict[str, list[float]] = defaultdict(list)
    for call in calls(cluster, namespace):
        if call["verb"] == "patch":
            at = datetime.fromisoformat(call["requestReceivedTimestamp"]).timestamp()
            found[call["objectRef"]["name"]].append(at)
    return {pod: sorted(times) for pod, times in found.items()}
