"""`POST /v1/tasks` at 300 a second: the real API in a process of its own, Redis and the generator alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from bench import process, tasks
from bench.line import Line, Stage, percentile
from callboard.catalog import published
from callboard.storage import default

RATE = 300
TARGET_MS = 10.0


def measure(stage: Stage) -> list[Line]:
    seconds = stage.size(20, 5)
    process.fresh(stage)
    connection = default.connection()
    connection.run(published.publish(connection.keys, [tasks.nothing.contract], ["bench"], "bench-1"))
    with process.service(stage, "callboard_api", API_PORT=0):
        url = _address(stage)
        _generate(url, 2, "even")
        return [_line(_generate(url, seconds, arrivals), arrivals) for arrivals in ("even", "poisson")]


def _line(found: dict[str, Any], arrivals: str) -> Line:
    latencies, statuses = found["latencies"], found["statuses"]
    p99 = percentile(latencies, 99)
    even = arrivals == "even"
    failed = {status: count for status, count in statuses.items() if status != "202"}
    return Line(
        f"`POST /v1/tasks` at {RATE}/s, {'evenly' if even else 'at random (Poisson)'}",
        f"p99 {p99:.1f} ms",
        f"p99 ≤ {TARGET_MS:g} ms" if even else "",
        (p99 <= TARGET_MS and not failed) if even else None,
        f"p50 {percentile(latencies, 50):.1f}, p95 {percentile(latencies, 95):.1f}, "
        f"max {max(latencies):.1f} ms of {len(latencies):,}; the generator itself p99 "
        f"{percentile(found['late'], 99):.1f} ms late" + (f"; not 202: {failed}" if failed else ""),
    )


def _generate(url: str, seconds: int, arrivals: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator", url, str(RATE), str(seconds), arrivals],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        cwd=process.ROOT,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _address(stage: Stage) -> str:
    log = stage.folder / "callboard_api.log"
    pattern = re.compile(r"(?:on|at) (http://127\.0\.0\.1:\d+)")
    found: list[str] = []

    def told() -> bool:
        found[:] = [
            match.group(1)
            for line in log.read_text(encoding="utf-8").splitlines()
            if "robes" not in line and (match := pattern.search(line))
        ]
        return bool(found)

    process.until(told, "the API's address")
    return found[-1]
