"""The scales: how the workers of each queue scale, read from their Deployments and autoscalers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Final

from callboard import clock
from callboard.cluster.facts import Autoscaler, Deployment, Pod
from callboard.cluster.faults import ClusterError, ClusterForbids
from callboard.cluster.kube import Kube
from callboard.inspector.scaling import PRECEDENCE, LimitedBy, Scaling, Scalings

logger = logging.getLogger(__name__)

#: An answer is good for so long; an older one is shown, while it is read anew, up to the second mark.
FRESH_SECONDS: Final = 5.0
STALE_SECONDS: Final = 30.0
#: A request waits for a first answer no longer than this.
WAIT_SECONDS: Final = 1.0
#: After a failure the API server is left alone for so long.
_PAUSE_SECONDS: Final = 10.0
EVERY_QUEUE: Final = "*"

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)
_CRASHING: Final = frozenset(
    {"CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


def weigh(
    deployments: Iterable[Deployment], autoscalers: Iterable[Autoscaler], pods: Iterable[Pod] = ()
) -> dict[str, Scaling]:
    """By queue; under "*" what serves every queue. `pods`: of the Deployments that are not all ready."""
    scaler_of = {one.target: one for one in autoscalers}
    there = list(pods)
    found: dict[str, list[Scaling]] = {}
    for one in deployments:
        scaler = scaler_of.get(one.name)
        own = [pod for pod in there if _of(pod, one)]
        scaling = Scaling(one.replicas, one.ready, scaler.most if scaler else None, _limit(one, scaler, own))
        for queue in one.queues:
            found.setdefault(queue, []).append(scaling)
    common = found.pop(EVERY_QUEUE, [])
    weighed = {queue: reduce(add, [*several, *common]) for queue, several in found.items()}
    if common:
        weighed[EVERY_QUEUE] = reduce(add, common)
    return weighed


def _of(pod: Pod, deployment: Deployment) -> bool:
    return bool(deployment.selector) and deployment.selector.items() <= dict(pod.labels).items()


def _limit(deployment: Deployment, scaler: Autoscaler | None, pods: Iterable[Pod]) -> LimitedBy | None:
    found = {*_limits(deployment, scaler, pods)}
    return next((limit for limit in PRECEDENCE if limit in found), None)


def _limits(deployment: Deployment, scaler: Autoscaler | None, pods: Iterable[Pod]) -> Iterable[LimitedBy]:
    if deployment.paused:
        yield "paused"
    if deployment.failure:
        yield "quota" if "quota" in deployment.failure else "refused"
    if deployment.ready < deployment.replicas:
        for pod in pods:
            if pod.deleted:
                continue
            if pod.unschedulable:
                yield "unschedulable"
            waits = {container.waiting for container in pod.containers}
            if waits & _IMAGE:
                yield "image"
            if waits & _CRASHING:
                yield "crashing"
    if scaler is None:
        yield "manual"
        return
    active, why = scaler.conditions.get("ScalingActive", (True, ""))
    limited, limit = scaler.conditions.get("ScalingLimited", (False, ""))
    if why == "ScalingDisabled":
        if not scaler.keda:  # KEDA's autoscaler rests while KEDA itself watches over an idle queue
            yield "paused"
    elif not active or not scaler.conditions.get("AbleToScale", (True, ""))[0]:
        yield "metric"
    if limited and limit == "TooManyReplicas":
        yield "max"


class Scales:
    """The scaling of every queue, read when it is asked for and kept for some seconds.

    selector: CALLBOARD_CLUSTER_SELECTOR, the labels of the worker Deployments.
    """

    def __init__(self, kube: Kube, selector: str, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._kube, self._selector = kube, selector
        self._fresh = fresh_seconds
        self._found: Mapping[str, Scaling] = {}
        self._found_at: float | None = None
        self._tried_at: float | None = None
        self._failing = False
        self._pods_refused = False
        self._reading: asyncio.Task[None] | None = None

    async def scalings(self) -> Scalings:
        """By queue, "*" for those that no Deployment names; empty while the cluster cannot be read.

        Waits for the API server when nothing is known, for a second at most.
        """
        now = clock.monotonic()
        if not self._younger(self._found_at, self._fresh) and self._reading is None:
            pause = _PAUSE_SECONDS if self._failing else 0.0
            if self._tried_at is None or now - self._tried_at >= pause:
                self._tried_at = now
                self._reading = asyncio.create_task(self._read(), name="scales")
        if self._reading is not None and not self._younger(self._found_at, STALE_SECONDS):
            await asyncio.wait([self._reading], timeout=WAIT_SECONDS)
        return self._found if self._younger(self._found_at, STALE_SECONDS) else {}

    async def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
        await asyncio.to_thread(self._kube.close)

    def _younger(self, at: float | None, seconds: float) -> bool:
        return at is not None and clock.monotonic() - at <= seconds

    async def _read(self) -> None:
        try:
            self._found = await asyncio.to_thread(self._weigh)
            self._found_at = clock.monotonic()
            if self._failing:
                logger.info("The scaling of the workers can be read again.")
            self._failing = False
        except ClusterError as error:
            if not self._failing:
                level = logging.WARNING if isinstance(error, ClusterForbids) else logging.INFO
                logger.log(level, "%s. The queues' `scaling` is left out until it can be read.", error)
            self._failing = True
        except Exception:
            logger.exception("The scaling of the workers could not be read.")
            self._failing = True
        finally:
            self._reading = None

    def _weigh(self) -> dict[str, Scaling]:
        deployments = self._kube.deployments(self._selector)
        autoscalers = self._kube.autoscalers() if deployments else []
        short = any(one.ready < one.replicas for one in deployments)
        return weigh(deployments, autoscalers, self._pods() if short else [])

    def _pods(self) -> list[Pod]:
        try:
            return self._kube.pods(self._selector)
        except ClusterForbids as error:
            if not self._pods_refused:
                self._pods_refused = True
                logger.info("%s. Pods that do not come up are not explained in `limited_by`.", error)
            return []
