"""What a finished task keeps of Redis's memory: its keys and its rows in the sets."""

from __future__ import annotations

from typing import Any

from bench import process, tasks
from bench.line import Line, Stage
from callboard.storage import default
from callboard.storage.keys import STATE_SETS

TASKS = 1000
TARGET = 1536


def measure(stage: Stage) -> list[Line]:
    with process.worker(stage, tasks.FILED.name):
        # 130 bytes of JSON: {"text":"…"}
        tasks.filed.submit_many([{"text": "p" * 119}] * TASKS)
        connection = default.connection()
        queue = connection.keys.queue(tasks.FILED.name)
        client: Any = connection.client
        completed = queue.state("completed")
        process.until(lambda: bool(client.zcard(completed) == TASKS), "1,000 tasks")
    # The worker is gone: nothing of its own is counted.
    keys: list[bytes] = list(client.scan_iter(match=queue.prefix.replace("[", "\\[") + "*", count=1000))
    own = [key for key in keys if key.count(b":") == 3]
    kinds = sorted({key.split(b":")[2].decode() for key in own})
    strings = sum(client.memory_usage(key, samples=0) for key in own)
    rows = sum(
        client.memory_usage(name, samples=0) or 0
        for name in (*(queue.state(state) for state in STATE_SETS), queue.all, queue.age)
    )
    events = client.memory_usage(queue.events, samples=0) or 0
    size = (strings + rows) / TASKS
    return [
        Line(
            "a finished record (130 B payload, 180 B result, one attempt)",
            f"{size:,.0f} B",
            "≤ 1.5 KiB",
            size <= TARGET,
            f"keys {'+'.join(kinds)} {strings / TASKS:,.0f} B, rows in the sets {rows / TASKS:,.0f} B; "
            f"its events, capped a queue, {events / TASKS:,.0f} B",
        )
    ]
