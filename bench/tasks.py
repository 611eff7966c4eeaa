"""What is measured: tasks that do nothing, or sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from callboard import task


@task(queue="bench")
def nothing(number: int) -> int:
    return number


@task(queue="bench-started")
def started_at(sent: float) -> float:
    """Seconds from `sent` (time.time()) until the body runs."""
    return time.time() - sent


@task(queue="bench-loop")
async def sleeper(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def declare_actor() -> Any:
    """The same as a Dramatiq actor, on the broker that is set."""
    import dramatiq

    @dramatiq.actor(queue_name="bench")
    def nothing_actor(number: int) -> int:
        return number

    return nothing_actor
