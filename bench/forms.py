"""Process slots beside thread slots, end to end: no-ops through Redis and back, once all slots are up."""

from __future__ import annotations

from statistics import median

from bench.line import Line, Stage
from bench.versus import measure_once

TARGET_US = 200


def measure(stage: Stage) -> list[Line]:
    count = stage.size(10_000, 1_000)
    found: dict[str, list[float]] = {"thread": [], "process": []}
    for _ in range(stage.size(3, 1)):
        for form, times in found.items():
            name = "callboard" if form == "thread" else "callboard-process"
            times.append(1e6 / measure_once(stage.server, name, "steady", count)["per_second"])
    threads, processes = median(found["thread"]), median(found["process"])
    return [
        Line(
            "process slots, more than threads, a task",
            f"{processes - threads:+.0f} µs",
            f"≤ {TARGET_US} µs",
            processes - threads <= TARGET_US,
            f"end to end, 8 slots: threads {threads:.0f} µs, processes {processes:.0f} µs a task",
        )
    ]
