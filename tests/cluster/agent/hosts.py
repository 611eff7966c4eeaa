"""Names of Services in each pod's hosts file, with the addresses of the pods that are ready: DNS, in small.

A Service's port must be its pods' port: there is no kube-proxy that would translate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.cluster.agent.api import Object
from tests.cluster.agent.pod import Pod

_DOMAIN = "svc.cluster.local"


def hosts_file(reader: Pod, pods: Iterable[Pod], services: Iterable[Object]) -> str:
    """What the hosts file of `reader` says now."""
    lines = ["127.0.0.1 localhost", f"{reader.address} {reader.name}"]
    pods = sorted(pods, key=lambda pod: pod.name)
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        if spec.get("type") == "ExternalName" or not spec.get("selector"):
            continue
        unready_too = spec.get("publishNotReadyAddresses", False)
        behind = [
            pod
            for pod in pods
            if pod.namespace == meta["namespace"]
            and (pod.ready or (unready_too and not pod.leaving))
            and _selects(spec["selector"], pod.object["metadata"].get("labels") or {})
        ]
        # Every reader begins elsewhere, so that all of them do not meet on the first one.
        if behind:
            turn = sum(reader.uid.encode()) % len(behind)
            behind = behind[turn:] + behind[:turn]
        names = _names(meta["name"], meta["namespace"], reader.namespace)
        lines += [f"{pod.address} {' '.join(names)}" for pod in behind]
        lines += [
            f"{pod.address} {' '.join(f'{pod.name}.{name}' for name in names)}"
            for pod in behind
            if pod.object["spec"].get("subdomain") == meta["name"]
        ]
    return "\n".join(lines) + "\n"


def _names(name: str, namespace: str, reader_namespace: str) -> list[str]:
    long = [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.{_DOMAIN}"]
    return [name, *long] if namespace == reader_namespace else long


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()
