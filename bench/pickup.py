"""Idle pick-up: from `.submit()` in this process until the body starts in a worker that had nothing to do."""

from __future__ import annotations

import random
import time

from bench import process, tasks
from bench.line import Line, Stage, percentile
from bench.roundtrip import bare, told

TARGET_MS = 2.0


def measure(stage: Stage) -> list[Line]:
    found: list[float] = []
    trips: list[float] = []
    chance = random.Random(1)
    with process.worker(stage, tasks.STARTED.name):
        for _ in range(20):
            tasks.started.submit(time.monotonic()).result(process.PATIENCE_SECONDS)
        for number in range(stage.size(400, 60)):
            # Long enough for the worker to fall asleep, and not in step with anything of its own.
            time.sleep(chance.uniform(0.01, 0.03))
            if number % 20 == 0:
                trips += bare(stage, 50)
            handle = tasks.started.submit(time.monotonic())
            # Who waits for the result at once takes one of two cores from Redis and the worker meanwhile.
            time.sleep(chance.uniform(0.01, 0.03))
            found.append(handle.result(process.PATIENCE_SECONDS) * 1000)
    p95 = percentile(found, 95)
    return [
        Line(
            "idle pick-up, thread slot",
            f"p50 {percentile(found, 50):.2f} ms, p95 {p95:.2f} ms",
            f"p95 ≤ {TARGET_MS:g} ms",
            p95 <= TARGET_MS,
            told(trips),
        )
    ]
