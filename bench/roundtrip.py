"""What this machine's Redis and loopback cost by themselves: the yardstick of the other lines."""

from __future__ import annotations

import time

import redis

from bench.line import Line, Stage, percentile


def bare(stage: Stage, count: int = 1000) -> list[float]:
    """Milliseconds of `count` PINGs over redis-py."""
    found: list[float] = []
    with redis.Redis.from_url(stage.server.url) as client:
        for _ in range(count):
            started = time.perf_counter()
            client.ping()
            found.append((time.perf_counter() - started) * 1000)
    return found


def told(found: list[float]) -> str:
    return f"bare round trip p50 {percentile(found, 50):.2f} ms, p95 {percentile(found, 95):.2f} ms"


def measure(stage: Stage) -> list[Line]:
    found = bare(stage, stage.size(5000, 1000))
    return [
        Line(
            "bare Redis round trip (PING)",
            f"p50 {percentile(found, 50):.2f} ms, p95 {percentile(found, 95):.2f} ms",
        )
    ]
