"""A crowd of delayed tasks: how late one of them starts, and what they cost the worker's memory."""

from __future__ import annotations

import time

import psutil

from bench import process, tasks
from bench.line import Line, Stage

LATE_MS, GROWTH_MIB = 50.0, 5.0


def measure(stage: Stage) -> list[Line]:
    crowd = stage.size(20_000, 2_000)
    with process.worker(stage, tasks.STARTED.name) as worker:
        for _ in range(200):
            tasks.started.submit(time.monotonic()).result(process.PATIENCE_SECONDS)
        before = _resident(worker.pid)
        waiting = tasks.started.with_options(delay=3600)
        for start in range(0, crowd, 1000):
            waiting.submit_many([{"sent": 0.0}] * min(1000, crowd - start))
        late: list[float] = []
        soon = tasks.started.with_options(delay=1)
        for _ in range(stage.size(10, 3)):
            handle = soon.submit(time.monotonic() + 1.0)
            late.append(handle.result(process.PATIENCE_SECONDS) * 1000)
        growth = (_resident(worker.pid) - before) / 2**20
    return [
        Line(
            f"one due in 1 s among {crowd:,} delayed",
            f"{max(late):.1f} ms late at worst",
            f"≤ {LATE_MS:g} ms",
            max(late) <= LATE_MS,
            f"{len(late)} times, best {min(late):.1f} ms",
        ),
        Line(
            f"the worker's memory with {crowd:,} delayed",
            f"{growth:+.1f} MiB",
            f"< {GROWTH_MIB:g} MiB",
            growth < GROWTH_MIB,
        ),
    ]


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
