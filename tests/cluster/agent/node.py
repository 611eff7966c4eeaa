"""Nodes: registered, kept alive by their leases, with the pods that the scheduler has bound to them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.agent.api import Api, Away, Object, Refused
from tests.cluster.agent.container import stamp
from tests.cluster.agent.hosts import hosts_file
from tests.cluster.agent.image import Images
from tests.cluster.agent.network import Addresses, Bridge, Network
from tests.cluster.agent.pod import HOST_ADDRESS, Pod

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_HEARTBEAT_SECONDS = 5
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "1Ti"}


class Nodes:
    """All nodes of the lab, in one process. Each pod has a network of its own on the bridge."""

    def __init__(self, api: Api, images: Images, bridge: Bridge, folder: Path, names: Sequence[str]) -> None:
        self._api, self._images, self._folder, self._names = api, images, folder, names
        self._bridge, self._addresses = bridge, Addresses(bridge)
        self._pods: dict[str, Pod] = {}
        self._services: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._hosts_wanted = threading.Event()

    def run(self) -> None:
        """Register, then follow pods and services for ever."""
        for zone, name in enumerate(self._names):
            self._register(name, f"zone-{zone}")
        for loop in (self._beat, self._follow_services, self._write_hosts):
            threading.Thread(target=loop, daemon=True).start()
        pods = ("/api/v1/pods", {"fieldSelector": "spec.nodeName!="})
        for kind, seen in following(self._api, *pods):
            if kind == "LISTED":
                self._listed(seen)
            else:
                self._observe(kind, seen)

    def _register(self, name: str, zone: str) -> None:
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone,
        }
        try:
            self._api.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        except Refused as refusal:
            if refusal.status != 409:
                raise
        status = {
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "conditions": [_ready()],
            "addresses": [{"type": "InternalIP", "address": HOST_ADDRESS}],
            "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"},
        }
        self._api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def _beat(self) -> None:
        """Renew the leases: a node whose agent has died is NotReady soon, and one that was doubted is not."""
        wait = threading.Event()
        while True:
            for name in self._names:
                renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}
                try:
                    self._renew(name, spec)
                    self._reassure(name)
                except (Away, Refused) as error:
                    print(f"lease of {name}: {error}", flush=True)
            wait.wait(_HEARTBEAT_SECONDS)

    def _renew(self, name: str, spec: Object) -> None:
        try:
            self._api.patch(f"{_LEASES}/{name}", {"spec": spec})
        except Refused as refusal:
            if refusal.status != 404:
                raise
            self._api.create(_LEASES, {"metadata": {"name": name}, "spec": spec})

    def _reassure(self, name: str) -> None:
        """Say that the node is ready, if a controller that saw no lease in time holds it for lost."""
        conditions = self._api.get(f"/api/v1/nodes/{name}")["status"]["conditions"]
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            self._api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [_ready()]}})
            print(f"node {name}: ready again", flush=True)

    # -- pods

    def _listed(self, pods: Sequence[Object]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid, known in list(self._pods.items()):
            if uid not in there:
                known.gone()
        for pod in pods:
            self._observe("ADDED", pod)

    def _observe(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        known = self._pods.get(uid)
        if known is not None:
            known.seen(pod)
            if kind == "DELETED":
                known.gone()
        elif (
            kind != "DELETED"
            and pod["spec"]["nodeName"] in self._names
            and pod["status"].get("phase") not in ("Succeeded", "Failed")
        ):
            # An agent that was started again finds pods that have their addresses.
            address = pod["status"].get("podIP") or self._addresses.new(
                {pod.address for pod in self._pods.values()}
            )
            network, changed = Network(self._bridge, address), self._hosts_wanted.set
            new = Pod(self._api, pod, network, self._folder, self._images.find, changed)
            with self._lock:
                self._pods[uid] = new
            self._write_hosts_once()
            threading.Thread(target=self._live, args=(new,), daemon=True).start()

    def _live(self, pod: Pod) -> None:
        try:
            pod.run()
        finally:
            with self._lock:
                self._pods.pop(pod.uid, None)
            print(f"{pod.namespace}/{pod.name}: over", flush=True)

    # -- names

    def _follow_services(self) -> None:
        for kind, seen in following(self._api, "/api/v1/services"):
            if kind == "LISTED":
                self._services = {service["metadata"]["uid"]: service for service in seen}
            elif kind == "DELETED":
                self._services.pop(seen["metadata"]["uid"], None)
            else:
                self._services[seen["metadata"]["uid"]] = seen
            self._hosts_wanted.set()

    def _write_hosts(self) -> None:
        while True:
            self._hosts_wanted.wait()
            self._hosts_wanted.clear()
            self._write_hosts_once()

    def _write_hosts_once(self) -> None:
        with self._lock:
            pods, services = list(self._pods.values()), list(self._services.values())
            for pod in pods:
                content = hosts_file(pod, pods, services)
                # In place, for running containers have it mounted; cut last, so that none reads less.
                if pod.hosts.read_text(encoding="ascii") != content:
                    with pod.hosts.open("r+", encoding="ascii") as file:
                        file.write(content)
                        file.truncate()


def _ready() -> Object:
    now = {"lastHeartbeatTime": stamp(), "lastTransitionTime": stamp()}
    return {"type": "Ready", "status": "True", "reason": "AgentReady", "message": "", **now}


def following(api: Api, path: str, parameters: dict[str, str] | None = None) -> Iterator[tuple[str, Any]]:
    """`Api.follow` for ever, also while the API server is away."""
    wait = threading.Event()
    while True:
        try:
            yield from api.follow(path, **(parameters or {}))
        except (Away, Refused) as error:
            print(f"following {path}: {error}", flush=True)
            wait.wait(0.5)


def end_at_once() -> None:
    """As a node that loses its power: every container dies (the kernel sees to it), every object stays."""
    os._exit(0)
