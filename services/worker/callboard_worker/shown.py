"""What a worker shows of itself."""

from __future__ import annotations

import os

import callboard
from callboard.catalog.presence import Presence
from callboard.metrics import Metrics, SlotFigures
from callboard_worker.dispatcher import Dispatcher
from callboard_worker.held import Ledger
from callboard_worker.slots import kernel


def shown(
    id: str,
    host: str,
    since: int,
    dispatcher: Dispatcher,
    ledger: Ledger,
    *,
    slots: int,
    draining: bool,
    metrics: Metrics,
) -> Presence:
    """A worker as others see it now; its slots go to `metrics` on the way."""
    lanes = dispatcher.lanes
    metrics.snapshots.show_slots(
        SlotFigures(name, lane.busy, lane.queue.slots) for name, lane in lanes.items()
    )
    return Presence(
        id=id,
        host=host,
        pid=os.getpid(),
        version=callboard.__version__,
        since=since,
        queues=tuple(lanes),
        slots=slots,
        busy=dispatcher.busy,
        tasks=tuple(
            {
                "id": task.assignment.task_id,
                "name": task.assignment.name,
                "queue": task.queue,
                "attempt": task.assignment.attempt,
                "started_at": task.started_ms,
            }
            for task in ledger.running()[:100]
        ),
        memory_bytes=kernel.resident_bytes(),
        draining=draining,
        by_queue={name: (lane.busy, lane.queue.slots) for name, lane in lanes.items()},
    )
