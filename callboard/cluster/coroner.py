"""The coroner: why a worker vanished, by what the cluster says of its pod."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

from callboard import clock
from callboard.catalog.origin import Origin
from callboard.cluster.facts import Pod, Termination
from callboard.cluster.faults import ClusterAway, ClusterError, ClusterForbids
from callboard.cluster.kube import Kube
from callboard.cluster.place import Place
from callboard.maintenance.fate import Fate, by_note

logger = logging.getLogger(__name__)

#: The container of the chart's pods that runs the worker; pods of another make have theirs all looked at.
_CONTAINER: Final = "worker"
#: Reasons of a pod's own status that say that it was not the pod's fault.
_OUTSIDE: Final = frozenset({"Terminated", "Shutdown", "NodeShutdown", "NodeLost", "Preempting"})
_SKEW_MS: Final = 5_000
#: A pod that is so much younger than its worker is another one of the same name.
_YOUNGER_MS: Final = 60_000
#: So long is an answer waited for; then the worker's own note has to do.
PATIENCE_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 0.3
_KEPT_SECONDS: Final = 60.0
_LONGEST_MESSAGE: Final = 200


def taken_away(pod: Pod) -> str:
    """Why a pod is being taken away, in words; "" while it is not."""
    message = pod.message.strip().rstrip(".")[:_LONGEST_MESSAGE] or "no reason given"
    if pod.reason == "Evicted":
        return f"its pod was evicted by the kubelet: {message}"
    if pod.disruption == "EvictionByEvictionAPI":
        return "its pod was evicted (EvictionByEvictionAPI: a drain of its node, or somebody's wish)"
    if pod.disruption:
        return f"its pod was taken away ({pod.disruption})"
    if pod.deleted:
        return "its pod was deleted"
    if pod.reason in _OUTSIDE:
        return f"its pod was ended ({pod.reason}: {message})"
    return ""


def judge(origin: Origin, pod: Pod | None) -> Fate:
    """The fate of a worker that noted `origin`, when its pod now is `pod` (None: no pod has its name)."""
    if pod is None or pod.created > origin.since + _YOUNGER_MS:
        # A container that crashes leaves its pod behind: somebody removed this one.
        return Fate(origin.reason or "its pod was deleted", "nothing")
    end = _end(origin, pod)
    if end is not None and end.reason == "OOMKilled":
        return Fate("its container was OOMKilled: it took more memory than its limit", "strike")
    away = taken_away(pod)
    if pod.reason == "Evicted":
        # For what the pod itself used up, perhaps: an endless round of evictions must spend the attempts.
        return Fate(away, "attempt")
    if away:
        return Fate(away, "nothing")
    if end is None:
        if origin.draining:
            return by_note("", origin)
        # Nobody knows better within a lease. It counts as a crash: a task that takes whole nodes down is the
        # worst there is, and one that loses three nodes by chance is rare.
        return Fate("the cluster tells nothing of its end: its node may be lost, or cut off", "strike")
    said = f"its container ended with exit code {end.exit_code} ({end.reason or 'no reason given'})"
    if origin.draining:
        # Told to stop in a pod that stays: a liveness probe that failed, say. What the task had to do with it
        # nobody knows.
        return Fate(f"{said} while it drained", "attempt")
    return Fate(said, "strike")


def _end(origin: Origin, pod: Pod) -> Termination | None:
    """How the container ended that this worker ran in; not a container before or after it."""
    own = [one for one in pod.containers if one.name == _CONTAINER] or list(pod.containers)
    for container in own:
        for end in container.ended:
            if end.started - _SKEW_MS <= origin.since <= end.finished:
                return end
    return None


@dataclass(slots=True)
class _Case:
    asked_at: float = field(default_factory=clock.monotonic)
    fate: Fate | None = None


class Coroner:
    """Judges vanished workers (`maintenance.fate.Fates`); asks the API server in a thread of its own.

    A worker that lived elsewhere, or whose pod cannot be read in time, is judged by its note alone.
    """

    def __init__(self, kube: Kube, place: Place, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._kube, self._place = kube, place
        self._patience = patience_seconds
        self._cases: dict[str, _Case] = {}
        self._asked: SimpleQueue[tuple[str, Origin]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned = False

    def __call__(self, worker: str, origin: Origin | None) -> Fate | None:
        """The fate; None while the API server is being asked."""
        place = self._place
        if origin is None or (origin.cluster, origin.namespace) != (place.cluster, place.namespace):
            return by_note(worker, origin)
        now = clock.monotonic()
        case = self._cases.get(worker)
        if case is None or now - case.asked_at > _KEPT_SECONDS:
            self._cases = {id: one for id, one in self._cases.items() if now - one.asked_at <= _KEPT_SECONDS}
            self._cases[worker] = _Case()
            self._ask(worker, origin)
            return None
        if case.fate is None and now - case.asked_at >= self._patience:
            return by_note(worker, origin)
        return case.fate

    def _ask(self, worker: str, origin: Origin) -> None:
        self._asked.put((worker, origin))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="coroner", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            worker, origin = self._asked.get()
            case = self._cases.get(worker)
            refused: ClusterForbids | None = None
            # Later than that nobody waits for it any more.
            while (
                case is not None and case.fate is None and clock.monotonic() - case.asked_at < self._patience
            ):
                try:
                    case.fate = judge(origin, self._kube.pod(origin.pod))
                    self._warned = False
                except ClusterAway as error:
                    # A connection that was closed while idle, or one of several API servers that restarts.
                    logger.info("%s. It is asked again.", error)
                    clock.sleep(_AGAIN_SECONDS)
                except ClusterForbids as error:
                    # One that has just started refuses everybody until it has read the Roles.
                    left = self._patience - (clock.monotonic() - case.asked_at)
                    if left > _AGAIN_SECONDS and not self._warned:
                        refused = error
                        clock.sleep(_AGAIN_SECONDS)
                        continue
                    self._refused(error)
                    case.fate = by_note(worker, origin)
                except ClusterError as error:
                    logger.info("%s. A vanished worker is judged without.", error)
                    case.fate = by_note(worker, origin)
                except Exception:
                    logger.exception("The pod of worker %s could not be judged.", worker)
                    case.fate = by_note(worker, origin)
            if refused is not None and case is not None and case.fate is None:
                self._refused(refused)  # the last sleep took longer than the patience lasted

    def _refused(self, error: ClusterForbids) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s. Evicted and deleted workers are not told from crashed ones, unless they noted it "
                "themselves: grant this service account `get` on pods.",
                error,
            )
