"""One pod: its containers in order, its status told to the API server, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.agent.api import Api, Away, Object, Refused
from tests.cluster.agent.container import Container, Surroundings, stamp
from tests.cluster.agent.image import Image
from tests.cluster.agent.network import Network
from tests.cluster.agent.volume import Volumes

_TICK_SECONDS = 0.1
HOST_ADDRESS = "127.0.0.1"


class Pod:
    """Lives from the binding to a node until the object is gone; also while the API server is away."""

    def __init__(
        self,
        api: Api,
        pod: Object,
        network: Network,
        folder: Path,
        find_image: Callable[[str], Image | None],
        on_change: Callable[[], None],
    ) -> None:
        """on_change: called whenever readiness changes, and at the end."""
        self._api, self._on_change = api, on_change
        self.object, self._network, self.address = pod, network, network.address
        meta = pod["metadata"]
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.folder = folder / f"{self.namespace}_{self.name}_{self.uid}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hosts = self.folder / "hosts"
        self.hosts.touch()
        pod.setdefault("status", {}).update(podIP=self.address, hostIP=HOST_ADDRESS)
        volumes = Volumes(api, pod, self.folder / "volumes")
        around = Surroundings(
            api, pod, network, (api.host, api.port), self.folder, self.hosts, volumes, find_image
        )
        self._around = around
        spec = pod["spec"]
        self._first = [Container(around, c, first=True) for c in spec.get("initContainers") or []]
        self._main = [Container(around, c) for c in spec["containers"]]
        self._wake, self._object_gone = threading.Event(), threading.Event()
        self._started_at, self._since = stamp(), dict[str, tuple[bool, str]]()
        self._told: Object | None = None
        self._tell_at = 0.0
        self.ready = False

    def seen(self, pod: Object) -> None:
        """The object has changed."""
        self.object["metadata"] = pod["metadata"]
        # The node controller marks the pods of a silent node unready. Say again how it is.
        theirs = {c["type"]: c["status"] for c in pod["status"].get("conditions") or []}
        told = self._told
        if told and any(theirs.get(c["type"]) != c["status"] for c in told["conditions"]):
            self._told = None
        self._wake.set()

    def gone(self) -> None:
        """The object is no longer there (deleted by force, perhaps): end in a second, however it ends now."""
        self._object_gone.set()
        self._wake.set()

    @property
    def leaving(self) -> bool:
        """It was deleted, and ends or has ended."""
        return self._object_gone.is_set() or "deletionTimestamp" in self.object["metadata"]

    def run(self) -> None:
        """The pod's whole life, in the thread that its processes belong to."""
        self._network.open()
        while not self.leaving:
            pending = next((c for c in self._first if not c.succeeded), None)
            for container in [pending] if pending else self._main:
                container.tick()
            self._tell()
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()
        # Unready in the agent's own books at once, as a kubelet's endpoints are.
        self.ready = False
        self._on_change()
        self._stop()
        self._network.close()
        if not self._object_gone.is_set():
            self._delete()
        self._on_change()

    def _stop(self) -> None:
        how = (self._around.grace_seconds, self._object_gone)
        stopping = [threading.Thread(target=c.stop, args=how) for c in self._first + self._main]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def _delete(self) -> None:
        """The last status, then the object, for as long as it takes the API server to hear it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        while not self._object_gone.is_set():
            try:
                self._api.patch(
                    f"{path}/status", {"metadata": {"uid": self.uid}, "status": self._status(final=True)}
                )
            except Refused:
                pass  # it is gone, or another pod has its name: so says the next call
            except Away:
                self._wake.wait(1)
                continue
            try:
                self._api.delete(path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})
                return
            except Away:
                self._wake.wait(1)

    def _tell(self) -> None:
        status = self._status()
        if self.ready != (ready := self._is_ready()):
            self.ready = ready
            self._on_change()
        if status == self._told or time.monotonic() < self._tell_at:
            return
        # Before the call: a foreign change may be seen while it lasts.
        before, self._told = self._told, status
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/status"
        try:
            self._api.patch(path, {"metadata": {"uid": self.uid}, "status": status})
        except Refused as refusal:
            if refusal.status not in (404, 409):
                print(f"{self.namespace}/{self.name}: {refusal}", flush=True)
                self._told, self._tell_at = before, time.monotonic() + 1
        except Away:
            self._told, self._tell_at = before, time.monotonic() + 1

    def _is_ready(self) -> bool:
        return all(c.succeeded for c in self._first) and all(c.ready for c in self._main)

    def _status(self, *, final: bool = False) -> Object:
        ready = not final and self._is_ready()
        facts = {
            "PodReadyToStartContainers": True,
            "Initialized": all(c.succeeded for c in self._first),
            "ContainersReady": ready,
            "Ready": ready,
        }
        conditions = []
        for kind, holds in facts.items():
            if self._since.get(kind, (None, ""))[0] != holds:
                self._since[kind] = (holds, stamp())
            since = self._since[kind][1]
            conditions.append({"type": kind, "status": str(holds), "lastTransitionTime": since})
        return {
            "phase": self._phase(final),
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": HOST_ADDRESS,
            "startTime": self._started_at,
            "conditions": conditions,
            "initContainerStatuses": [c.status() for c in self._first],
            "containerStatuses": [c.status() for c in self._main],
        }

    def _phase(self, final: bool) -> str:
        if final or all(c.over for c in self._main):
            return "Failed" if any(c.exit_code for c in self._main) else "Succeeded"
        if any(c.over and not c.succeeded for c in self._first):
            return "Failed"
        return "Running" if any(c.begun for c in self._main) else "Pending"
