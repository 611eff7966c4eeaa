"""Side by side: drain and submits of Callboard, Dramatiq and Huey on one Redis, in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

import redis

from callboard.storage.embedded import EmbeddedServer

ROUNDS = 3


def measure(server: EmbeddedServer, name: str, what: str, count: int) -> dict[str, Any]:
    """One measurement in a process of its own, on an empty Redis."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    done = subprocess.run(
        [sys.executable, "-m", "bench.contender", name, what, server.url, str(count)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def versus(server: EmbeddedServer, tasks: int = 20_000) -> dict[str, dict[str, float]]:
    """Medians of ROUNDS interleaved rounds, per contender."""
    names = ("callboard", "dramatiq", "huey")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for _ in range(ROUNDS):
        for name in names:
            drained = measure(server, name, "drain", tasks)
            found[name].setdefault("drain_per_second", []).append(drained["per_second"])
            sent = measure(server, name, "submits", tasks // 4)
            for key, value in sent.items():
                found[name].setdefault(key, []).append(value)
    return {
        name: {key: median(values) for key, values in figures.items()} for name, figures in found.items()
    }
