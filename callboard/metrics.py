"""Every metric of Callboard, declared once, and the one formula for demand.

Nothing here reads a store: services hand in plain snapshots (`QueueFigures`, `SlotFigures`).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from callboard import clock

STATES: Final = ("pending", "queued", "running", "completed", "failed", "cancelled")

# From an idle pick-up (1 ms) to an hour.
DURATION_BUCKETS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
)  # fmt: skip
# A request takes milliseconds, or as long as `Prefer: wait` and a stream let it.
REQUEST_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600,
)  # fmt: skip


def demand_slots(
    running: int,
    queued: int,
    due_pending: int,
    mean_run_seconds: float | None,
    wait_objective_seconds: float | None,
) -> int:
    """Slots that a queue needs now: what runs, and as much of what is ready as must not wait longer.

    running + ceil(waiting × min(1, mean run / wait objective)); the weight is 1 while either is
    unknown. `due_pending` are due tasks that no promoter has moved yet; tasks that wait for a limit
    or for another task do not count. One waiting task is at least one slot, however short it is.
    """
    waiting = queued + due_pending
    if waiting <= 0:
        return max(0, running)
    weight = 1.0
    if mean_run_seconds is not None and wait_objective_seconds:
        weight = min(1.0, mean_run_seconds / wait_objective_seconds)
    # The margin keeps 10 × 0.3 from being 4 slots because binary fractions are inexact.
    needed = math.ceil(waiting * weight - 1e-9)
    return max(0, running) + max(1, needed)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue at one moment. `tasks`: count by state; the age is None while nothing is queued.

    `guests`: processes of Dramatiq's own Worker that serve it; None where nobody has counted them.
    """

    queue: str
    tasks: Mapping[str, int]
    oldest_queued_age_seconds: float | None = None
    due_pending: int = 0
    mean_run_seconds: float | None = None
    wait_objective_seconds: float | None = None
    guests: int | None = None

    @property
    def demand_slots(self) -> int:
        return demand_slots(
            self.tasks.get("running", 0),
            self.tasks.get("queued", 0),
            self.due_pending,
            self.mean_run_seconds,
            self.wait_objective_seconds,
        )


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """The slots of one worker that serve a queue."""

    queue: str
    busy: int
    total: int


class SnapshotCollector(Collector):
    """Gauges from the last snapshots that were handed in.

    Queue figures older than `max_age_seconds` are left out: while Redis is away an autoscaler must
    see a gap, on which it holds, not yesterday's numbers.
    """

    def __init__(self, max_age_seconds: float = 60) -> None:
        self.max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._queues: tuple[QueueFigures, ...] = ()
        self._queues_at = -math.inf
        self._slots: tuple[SlotFigures, ...] = ()

    def show_queues(self, figures: Iterable[QueueFigures]) -> None:
        with self._lock:
            self._queues, self._queues_at = tuple(figures), clock.monotonic()

    def show_slots(self, figures: Iterable[SlotFigures]) -> None:
        with self._lock:
            self._slots = tuple(figures)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            fresh = clock.monotonic() - self._queues_at <= self.max_age_seconds
            queues, slots = (self._queues if fresh else ()), self._slots
        tasks = GaugeMetricFamily("callboard_tasks", "Tasks, by queue and state.", labels=["queue", "state"])
        age = GaugeMetricFamily(
            "callboard_oldest_queued_age_seconds",
            "How long the oldest queued task has been ready; 0 when none is.",
            labels=["queue"],
        )
        demand = GaugeMetricFamily(
            "callboard_queue_demand_slots", "Slots that the queue needs now.", labels=["queue"]
        )
        guests = GaugeMetricFamily(
            "callboard_guests",
            "Processes of Dramatiq's own Worker that serve the queue; they show no slots.",
            labels=["queue"],
        )
        for queue in queues:
            if queue.guests is not None:
                guests.add_metric([queue.queue], queue.guests)
            for state in STATES:
                tasks.add_metric([queue.queue, state], queue.tasks.get(state, 0))
            age.add_metric([queue.queue], max(0.0, queue.oldest_queued_age_seconds or 0.0))
            demand.add_metric([queue.queue], queue.demand_slots)
        capacity = GaugeMetricFamily(
            "callboard_slots", "Slots of this worker, by queue.", labels=["queue", "state"]
        )
        for slot in slots:
            capacity.add_metric([slot.queue, "busy"], slot.busy)
            capacity.add_metric([slot.queue, "total"], slot.total)
        yield from (tasks, age, demand, guests, capacity)


class Metrics:
    """The metrics of one process, on a registry of their own: `metrics` below, or a test's."""

    def __init__(self, registry: CollectorRegistry | None = None, *, process: bool = False) -> None:
        self.registry = registry or CollectorRegistry()
        self.snapshots = SnapshotCollector()
        self.registry.register(self.snapshots)
        if process:
            ProcessCollector(registry=self.registry)
        self.tasks_submitted = self._counter("tasks_submitted", "Tasks submitted here.", "queue", "name")
        self.tasks_finished = self._counter(
            "tasks_finished",
            "Attempts that ended here, by outcome (completed, failed, retry, timeout, …).",
            "queue",
            "name",
            "outcome",
        )
        self.task_wait_seconds = self._histogram(
            "task_wait_seconds", "From ready to started.", DURATION_BUCKETS, "queue"
        )
        self.task_run_seconds = self._histogram("task_run_seconds", "One attempt.", DURATION_BUCKETS, "queue")
        self.http_requests = self._counter("http_requests", "Requests answered.", "route", "method", "status")
        self.http_request_seconds = self._histogram(
            "http_request_seconds",
            "From request to the end of its answer.",
            REQUEST_BUCKETS,
            "route",
            "method",
        )
        self.lease_losses = self._counter(
            "lease_losses", "Claims of this worker that passed to another.", "queue"
        )
        self.redis_errors = self._counter("redis_errors", "Calls to Redis that failed.")
        self.cluster_requests = self._counter(
            "cluster_requests",
            "Calls to the Kubernetes API, by what was asked and how it ended (ok, forbidden, away, failed).",
            "request",
            "outcome",
        )
        self.tasks_pruned = self._counter(
            "tasks_pruned",
            "Finished tasks removed, by what was reached first (age, count, memory).",
            "queue",
            "reason",
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        # The exposition adds `_total`.
        return Counter(f"callboard_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"callboard_{name}", help, labels, buckets=buckets, registry=self.registry)

    def unlock(self) -> None:
        """New locks, for a forked child: whoever held one at the fork is a thread that the child lacks."""
        for collector in [self.registry, *self.registry._collector_to_names]:
            _unlock(collector)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The body of `/metrics` and its content type, for an Accept header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _unlock(part: Any) -> None:
    # prometheus-client has a lock in its registry, in each metric with labels and in each of their values.
    if hasattr(part, "_lock"):
        part._lock = threading.RLock()
    for name in ("_metrics", "_buckets", "_value", "_sum"):
        inner = getattr(part, name, ())
        if isinstance(inner, dict):
            inner = inner.values()
        for value in inner if isinstance(inner, Iterable) else (inner,):
            _unlock(value)


# What this process serves at `/metrics`, and its parts by name.
metrics = Metrics(process=True)
os.register_at_fork(after_in_child=metrics.unlock)

TASKS_SUBMITTED: Final = metrics.tasks_submitted
TASKS_FINISHED: Final = metrics.tasks_finished
TASK_WAIT_SECONDS: Final = metrics.task_wait_seconds
TASK_RUN_SECONDS: Final = metrics.task_run_seconds
HTTP_REQUESTS: Final = metrics.http_requests
HTTP_REQUEST_SECONDS: Final = metrics.http_request_seconds
LEASE_LOSSES: Final = metrics.lease_losses
REDIS_ERRORS: Final = metrics.redis_errors
TASKS_PRUNED: Final = metrics.tasks_pruned
