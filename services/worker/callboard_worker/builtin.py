"""The platform's own tasks, on the queue `callboard`, which every worker serves: for smoke and load tests."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Le

from callboard import clock
from callboard.catalog.queue import Queue
from callboard.context import current, progress
from callboard.task import task

PLATFORM_QUEUE = Queue("callboard", isolation="thread")

_STEP_SECONDS = 0.1


class ProbeFailed(Exception):
    """The failure that a probe was told to have."""


@task(name="callboard.ping", queue=PLATFORM_QUEUE)
def ping(text: Annotated[str, "at most 1 KiB"] = "pong") -> dict[str, Any]:
    """Answer with the text and who ran this: shows that the whole way works."""
    return {"text": text[:1024], "attempt": current().attempt}


@task(name="callboard.probe", queue=PLATFORM_QUEUE, delays=[0.1])
def probe(
    seconds: Annotated[float, Ge(0), Le(3600)] = 0,
    fail_times: Annotated[int, Ge(0), Le(100)] = 0,
    bytes: Annotated[int, Ge(0), Le(1_000_000)] = 0,
    log_lines: Annotated[int, Ge(0), Le(10_000)] = 0,
    steps: Annotated[int, Ge(0), Le(1000)] = 0,
) -> dict[str, Any]:
    """Take `seconds`, tell `steps` of progress, log lines, fail the first attempts, return so many bytes."""
    me = current()
    for number in range(log_lines):
        me.logger.info("line %d of %d", number + 1, log_lines)
    started = clock.monotonic()
    told = 0
    while (spent := clock.monotonic() - started) < seconds:
        if steps and int(spent / seconds * steps) > told:
            told = int(spent / seconds * steps)
            progress(told, steps, f"{spent:.1f} s")
        clock.sleep(min(_STEP_SECONDS, seconds - spent))
    if me.attempt <= fail_times:
        raise ProbeFailed(f"Told to fail {fail_times} times; this is attempt {me.attempt}.")
    return {"seconds": seconds, "attempt": me.attempt, "filler": "x" * bytes}
