"""The herald: tells the cluster what this worker's pod has in hand, in annotations of the pod.

`controller.kubernetes.io/pod-deletion-cost` lets a ReplicaSet that shrinks take idle pods first: 0 while the
worker is idle, 10 and the minutes of work in hand while it is busy. The two others ask cluster-autoscaler and
Karpenter to leave the node alone while a long task runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from callboard import clock
from callboard.cluster.faults import ClusterError, ClusterForbids
from callboard.cluster.kube import Kube
from callboard.maintenance.rounds import Rounds

logger = logging.getLogger(__name__)

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
#: What keeps cluster-autoscaler and Karpenter from taking the node away.
PROTECTION: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
#: Writes are no closer than this: the API server has more to do than to count our tasks.
PACE_SECONDS: Final = 10.0
BUSY_COST: Final = 10
_LOOK_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 120.0
_FORBIDDEN_SECONDS: Final = 600.0
#: The annotation is a 32-bit number.
_DEAREST: Final = 2**31 - 1

#: When each running task started, ms since 1970.
Work = Callable[[], Sequence[int]]


def deletion_cost(started: Sequence[int], now_ms: int) -> int:
    """0 when nothing runs; else 10 and the whole minutes that all running tasks together have run."""
    if not started:
        return 0
    minutes = sum(max(0, now_ms - at) for at in started) // 60_000
    return min(_DEAREST, BUSY_COST + minutes)


class Herald:
    """Writes the annotations from a thread of its own, at most once in `pace_seconds` (10).

    work: what runs now, asked once a second. deletion_cost: whether to write that annotation.
    protect_seconds: how long a task has run before the pod is protected; None: never.
    """

    def __init__(
        self,
        kube: Kube,
        pod: str,
        work: Work,
        *,
        deletion_cost: bool = True,
        protect_seconds: float | None = None,
        pace_seconds: float = PACE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._kube, self._pod, self._work = kube, pod, work
        self._costs, self._protect_seconds = deletion_cost, protect_seconds
        self._pace, self._look = pace_seconds, look_seconds
        self._told: dict[str, str | None] = {}
        self._told_work: tuple[int, ...] | None = None
        self._not_before = 0.0
        self._failures = 0
        self._refused = False
        self._warned = False
        self._rounds = Rounds("The herald", self._round)

    def start(self) -> None:
        """Start the thread, unless there is nothing to tell."""
        if self._costs or self._protect_seconds is not None:
            self._rounds.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End the thread; one that waits for the API server is left behind."""
        self._rounds.stop(timeout)

    def _round(self) -> float:
        if clock.monotonic() < self._not_before:
            return min(self._look, max(0.0, self._not_before - clock.monotonic()))
        work = tuple(sorted(self._work()))
        wanted = self._wanted(work)
        if not self._worth_telling(work, wanted):
            return self._look
        try:
            self._kube.annotate(self._pod, wanted)
        except ClusterError as error:
            self._failed(error)
        else:
            if self._failures:
                logger.info("The cluster is told of our work again.")
            self._failures, self._refused, self._warned = 0, False, False
            self._told, self._told_work = wanted, work
            self._not_before = clock.monotonic() + self._pace
        return self._look

    def _wanted(self, work: tuple[int, ...]) -> dict[str, str | None]:
        now = clock.now_ms()
        wanted: dict[str, str | None] = {}
        if self._costs:
            wanted[DELETION_COST] = str(deletion_cost(work, now))
        if self._protect_seconds is not None:
            long = bool(work) and now - work[0] >= self._protect_seconds * 1000
            wanted.update({name: value if long else None for name, value in PROTECTION.items()})
        return wanted

    def _worth_telling(self, work: tuple[int, ...], wanted: dict[str, str | None]) -> bool:
        if wanted == self._told:
            return False
        # The first word may correct what an earlier container of this pod has left behind.
        if self._told_work is None or work != self._told_work:
            return True
        if any(wanted[name] != self._told[name] for name in wanted if name != DELETION_COST):
            return True
        # The same tasks run on. Telling each minute of each worker would be a load on the API server that
        # changes no choice: what counts is who has much more in hand.
        before, after = (int(cost[DELETION_COST] or 0) - BUSY_COST for cost in (self._told, wanted))
        return after >= max(1, 2 * before)

    def _failed(self, error: ClusterError) -> None:
        forbidden = isinstance(error, ClusterForbids)
        if forbidden and not self._refused:
            # An API server that has just started refuses everybody until it has read the Roles. It is asked
            # once more before it is believed, for then it is left alone for long.
            self._refused = True
            self._not_before = clock.monotonic() + self._pace
            logger.debug("%s. It is asked again.", error)
            return
        if forbidden and not self._warned:
            self._warned = True
            logger.warning(
                "%s. The worker goes on without: scaling in may take a busy pod before an idle one. Grant "
                "its service account `patch` on pods, or set CALLBOARD_CLUSTER_DELETION_COST=false.",
                error,
            )
        elif not forbidden and not self._failures:
            logger.info("%s. The worker goes on, and tells it later.", error)
        self._failures += 1
        pause = min(_LONGEST_PAUSE_SECONDS, self._pace * 2.0 ** min(self._failures - 1, 8))
        self._not_before = clock.monotonic() + (max(pause, _FORBIDDEN_SECONDS) if forbidden else pause)
