"""Queues: depth, age, pace, who serves them, and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from callboard.catalog import presence
from callboard.inspector.scaling import Scaling, Scalings
from callboard.maintenance.sampler import QueueStatistics, Spread, figures, statistics
from callboard.metrics import QueueFigures
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation

#: The window of percentiles and throughput.
WINDOW_MINUTES = 5


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue at one moment. `slots_total`: the most that its workers may give it, shared with others.

    `scaling`: of its workers, None outside a cluster.
    """

    figures: QueueFigures
    statistics: QueueStatistics
    paused: bool
    slots_busy: int
    slots_total: int
    workers: int
    scaling: Scaling | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.figures.queue

    def to_json(self) -> dict[str, Any]:
        """The queue on the wire. Ages in seconds, percentiles in ms (null before anything finished)."""
        pace = self.statistics
        return {
            "name": self.name,
            "depth": dict(self.figures.tasks),
            "oldest_ready_age_seconds": self.figures.oldest_queued_age_seconds,
            "paused": self.paused,
            "wait_ms": _spread(pace.wait_ms),
            "run_ms": _spread(pace.run_ms),
            "mean_run_ms": pace.mean_run_ms,
            "throughput_per_second": pace.per_second,
            "finished": pace.finished,
            "failed": pace.failed,
            "window_minutes": pace.window_minutes,
            "limits": None,
            "slots": {"busy": self.slots_busy, "total": self.slots_total},
            "workers": self.workers,
            "demand_slots": self.figures.demand_slots,
            "scaling": None if self.scaling is None else self.scaling.to_json(),
        }


def _spread(found: Spread | None) -> Mapping[str, float] | None:
    return None if found is None else {"p50": found.p50, "p95": found.p95, "p99": found.p99}


def queue_names(keys: Keys) -> Operation[list[str]]:
    """The names of the queues that have had a task or have a worker, sorted."""
    names = {name.decode() for name in (yield Command("SMEMBERS", keys.queues))}
    return sorted(names)


def queues(
    keys: Keys,
    objectives: Mapping[str, float] | None = None,
    also: Iterable[str] = (),
    scalings: Scalings | None = None,
) -> Operation[list[QueueView]]:
    """Every queue. `objectives`: wait objectives in seconds by queue; `also`: queues of the catalog.

    `scalings`: what the cluster says, by queue, "*" for those that it does not name.
    """
    workers = yield from presence.read(keys)
    served = {name for worker in workers for name in worker.queues}
    names = sorted({*(yield from queue_names(keys)), *served, *also})
    wanted = objectives or {}
    views: list[QueueView] = []
    for name in names:
        view = yield from _view(keys, name, workers, wanted.get(name), scalings)
        views.append(view)
    return views


def queue(
    keys: Keys,
    name: str,
    objective: float | None = None,
    *,
    known: bool = False,
    scalings: Scalings | None = None,
) -> Operation[QueueView | None]:
    """One queue; None when no task and no worker ever named it, unless it is `known` from the catalog."""
    workers = yield from presence.read(keys)
    known = known or any(name in worker.queues for worker in workers)
    known = known or bool((yield Command("SISMEMBER", keys.queues, name)))
    return (yield from _view(keys, name, workers, objective, scalings)) if known else None


def _view(
    keys: Keys,
    name: str,
    workers: list[presence.Presence],
    objective: float | None,
    scalings: Scalings | None,
) -> Operation[QueueView]:
    sampled = yield from figures(keys, name, objective)
    pace = yield from statistics(keys, name, WINDOW_MINUTES)
    paused = yield Command("HEXISTS", keys.queue(name).meta, "paused")
    serving = [worker for worker in workers if name in worker.queues]
    used = [worker.used(name) for worker in serving]
    busy, slots = sum(busy for busy, _ in used), sum(slots for _, slots in used)
    scaling = (scalings or {}).get(name) or (scalings or {}).get("*")
    return QueueView(sampled, pace, bool(paused), busy, slots, len(serving), scaling)
