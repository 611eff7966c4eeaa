"""1,000 coroutines that sleep, on one worker: they should end in about one sleep."""

from __future__ import annotations

import time

from bench import process, tasks
from bench.line import Line, Stage

TASKS = 1000
RATIO = 1.2


def measure(stage: Stage) -> list[Line]:
    seconds = float(stage.size(5, 2))
    with process.worker(stage, tasks.LOOP.name):
        tasks.sleeper.submit(0.0).result(process.PATIENCE_SECONDS)
        started = time.monotonic()
        handles = tasks.sleeper.submit_many([{"seconds": seconds}] * TASKS)
        handles[-1].wait(process.PATIENCE_SECONDS)
        ended = max(handle.result(process.PATIENCE_SECONDS) for handle in handles)
    took = ended - started
    return [
        Line(
            f"{TASKS:,} coroutines that sleep {seconds:g} s, one worker",
            f"{took:.2f} s",
            f"≤ {RATIO:g} sleeps",
            took <= RATIO * seconds,
            "from the batch submit to the last body's end",
        )
    ]
