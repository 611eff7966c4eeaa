"""What one task costs in a slot: the same no-op body in threads, on the event loop and in children.

    .venv/bin/python bench/slots.py [tasks]

No Redis. Each form runs with one slot (a chain: each task starts when the one before has ended) and with
four (as many in flight), fed from the main thread. Microseconds a task; the best of three rounds, because
the machine's other work only ever adds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from callboard import task
from callboard_worker.slots.loop import LoopSlots
from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.slot import Assignment, Listener, Outcome, SlotGroup
from callboard_worker.slots.thread import ThreadSlots

ROUNDS = 3


@task(queue="bench")
def nothing(number: int) -> int:
    return number


@task(queue="bench")
async def nothing_async(number: int) -> int:
    return number


class Feed(Listener):
    """Keeps `in_flight` tasks running until `wanted` have ended."""

    def __init__(self) -> None:
        self.places = threading.Semaphore(0)
        self.failures = 0

    def logged(self, assignment: Assignment, level: str, text: str) -> None:
        print(f"{assignment.task_id}: {text}")

    def progressed(self, assignment: Assignment, blob: bytes) -> None: ...

    def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
        self.failures += outcome.kind != "completed"
        self.places.release()


def assignment(number: int, name: str) -> Assignment:
    return Assignment(
        task_id=f"bench_{number}",
        name=name,
        queue="bench",
        owner="default",
        token="1.x-0",
        attempt=1,
        max_attempts=4,
        payload=b'{"number":%d}' % number,
        soft_limit_ms=540_000,
        hard_limit_ms=600_000,
    )


def measure(make: Callable[[Listener, int], SlotGroup], name: str, in_flight: int, tasks: int) -> float:
    """Microseconds a task."""
    feed = Feed()
    group = make(feed, in_flight)
    group.start()
    best = float("inf")
    try:
        for number in range(in_flight):
            group.run(assignment(number, name))
        for _ in range(ROUNDS + 1):  # The first one warms up.
            started = time.perf_counter()
            for number in range(tasks):
                feed.places.acquire()
                group.run(assignment(number, name))
            best = min(best, (time.perf_counter() - started) / tasks * 1e6)
        for _ in range(in_flight):
            feed.places.acquire()
    finally:
        group.close(5)
    if feed.failures:
        raise SystemExit(f"{feed.failures} tasks failed")
    return best


def main() -> None:
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    forms: dict[str, tuple[str, Callable[[Listener, int], SlotGroup]]] = {
        "thread": ("nothing", lambda listener, capacity: ThreadSlots(capacity, listener)),
        "loop": ("nothing_async", lambda listener, capacity: LoopSlots(capacity, listener)),
        "process": (
            "nothing",
            lambda listener, capacity: ProcessSlots(capacity, listener, modules=[__file__]),
        ),
    }
    print(f"{'form':<10}{'1 in flight':>14}{'4 in flight':>14}   (µs a task)")
    for form, (name, make) in forms.items():
        print(f"{form:<10}{measure(make, name, 1, tasks):>14.1f}{measure(make, name, 4, tasks):>14.1f}")


if __name__ == "__main__":
    main()
