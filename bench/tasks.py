"""What is measured: tasks that do nothing, tell when they start, or sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from callboard import Queue, task

NAMESPACE = "bench"

STARTED = Queue("bench-started", isolation="thread")
LOOP = Queue("bench-loop", isolation="loop", slots=1000)
FILED = Queue("bench-filed", isolation="thread")


# The contenders declare this queue, with the slots that they are to have.
@task(queue="bench")
def nothing(number: int) -> int:
    return number


@task(queue=STARTED)
def started(sent: float) -> float:
    """Seconds from `sent` (time.monotonic(), one clock for all processes of a machine) to the body."""
    return time.monotonic() - sent


@task(queue=LOOP)
async def sleeper(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return time.monotonic()


@task(queue=FILED)
def filed(text: str) -> str:
    """180 bytes of JSON for whatever it is given."""
    return "r" * 178


def declare_actor() -> Any:
    """`nothing` as a Dramatiq actor, on the broker that is set."""
    import dramatiq

    @dramatiq.actor(queue_name="bench")
    def nothing_actor(number: int) -> int:
        return number

    return nothing_actor
