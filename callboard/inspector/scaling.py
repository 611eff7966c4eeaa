"""How a queue's workers scale, as the cluster has it; the services that run in one hand it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: `paused`: a Deployment that is paused, or an autoscaler that is off at 0 replicas; `quota`, `refused`: pods
#: that may not be made; `unschedulable`: pods that no node takes; `image`, `crashing`: pods that do not come
#: up; `metric`: an autoscaler that cannot read its metric, and holds; `max`: one that would have more than it
#: may; `manual`: no autoscaler, somebody sets the replicas.
LimitedBy = Literal[
    "paused", "quota", "refused", "unschedulable", "image", "crashing", "metric", "max", "manual"
]
#: The first that applies to any of a queue's Deployments is told.
PRECEDENCE: tuple[LimitedBy, ...] = (
    "paused",
    "quota",
    "refused",
    "unschedulable",
    "image",
    "crashing",
    "metric",
    "max",
    "manual",
)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Pods wanted, ready, and the most that an autoscaler may ask for (None: there is none).

    `limited_by`: what keeps the queue from having more; None: nothing does.
    """

    desired: int
    ready: int
    max: int | None
    limited_by: LimitedBy | None

    def __add__(self, other: Scaling) -> Scaling:
        """Both together, for a queue that several Deployments serve."""
        most = None if self.max is None or other.max is None else self.max + other.max
        limits = [one for one in (self.limited_by, other.limited_by) if one]
        # Where one of two may still grow, the other's limit is none of the queue's.
        lasting = len(limits) == 2
        limit = min(limits, key=PRECEDENCE.index) if lasting else None
        return Scaling(self.desired + other.desired, self.ready + other.ready, most, limit)

    def to_json(self) -> dict[str, Any]:
        """On the wire."""
        return {
            "desired": self.desired,
            "ready": self.ready,
            "max": self.max,
            "limited_by": self.limited_by,
        }


Scalings = Mapping[str, Scaling]
"""By queue; a queue that no Deployment names is not in it."""
