"""Four tasks: `callboard up examples/tasks.py`, then submit them (examples/README.md says how)."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta

from callboard import Discard, Queue, Retry, current, progress, task

# Declared once, for all tasks of the queue. A queue that nobody declares has the defaults.
Queue("reports", soft_limit=timedelta(minutes=5), hard_limit=timedelta(minutes=6))


@task(queue="reports")
def build(month: str, rows: int = 100) -> dict[str, object]:
    """Add up a month's sales: the signature is the payload's schema, and what it returns is the result."""
    seed = random.Random(month)
    total = 0
    for row in range(rows):
        total += seed.randrange(1000)
        progress(row + 1, rows, f"row {row + 1} of {month}")
    return {"month": month, "rows": rows, "total": total}


class OfficeClosed(Exception):
    """The archive does not answer at night."""


# Three attempts after the first, 1, 5 and 30 seconds apart, and only when the office was closed.
@task(queue="reports", delays=[1, 5, 30], retry_on=OfficeClosed)
def file_away(month: str, opens_at_attempt: int = 2) -> str:
    """Give a report to an archive that is closed at first."""
    if not month:
        raise Discard("A report without a month cannot be filed.")  # fails at once, and says why
    if current().attempt < opens_at_attempt:
        raise OfficeClosed("Come back later.")
    current().logger.info("Filed %s at attempt %d.", month, current().attempt)
    return f"{month} is filed"


@task(queue="reports", priority=2)
def wait_for_figures(month: str, ready_at: datetime) -> str:
    """Look again every two seconds until the figures are there. That costs no attempt."""
    if datetime.now(ready_at.tzinfo) < ready_at:
        raise Retry(after=2, counts=False, message=f"The figures of {month} are not there yet.")
    return f"the figures of {month} are there"


# Async tasks run as coroutines on one event loop: a thousand of them wait side by side in one worker.
@task(queue="letters")
async def send_letters(to: list[str], seconds_each: float = 0.1) -> int:
    """Post a letter to everybody at once."""

    async def post(name: str) -> None:
        await asyncio.sleep(seconds_each)
        print(f"posted to {name}")  # printed lines reach the task's log too

    await asyncio.gather(*(post(name) for name in to))
    return len(to)


if __name__ == "__main__":
    # From Python, with the platform running; the same over HTTP is in examples/README.md.
    handle = build.submit(month="2026-11", rows=50)
    print(handle.id, handle.state)
    print(handle.result(timeout=60))
