"""Side by side: drain and submits of Callboard, Dramatiq and Huey on one Redis, in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

import redis

from bench.line import Line, Stage
from bench.process import ROOT
from callboard.storage.embedded import EmbeddedServer

NAMES = ("callboard", "dramatiq", "huey")


def measure_once(server: EmbeddedServer, name: str, what: str, count: int) -> dict[str, Any]:
    """One measurement in a process of its own, on an empty Redis."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    done = subprocess.run(
        [sys.executable, "-m", "bench.contender", name, what, str(count)],
        input=server.url,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"bench.contender {name} {what} failed: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def versus(server: EmbeddedServer, tasks: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Every round's figures, per contender and kind. The rounds interleave, so a noisy minute hits all."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in NAMES}
    for _ in range(rounds):
        for name in NAMES:
            drained = measure_once(server, name, "drain", tasks)
            found[name].setdefault("drain", []).append(drained["per_second"])
            found[name].setdefault("drain_cpu", []).append(drained["cpu_us"])
    # A process that submits one by one sleeps for each answer, and takes 85 or 140 us for it depending on
    # whether the kernel put the server on its core or on the idle other one; it stays where it was put. So
    # three rounds are a draw of three: more of them.
    for _ in range(rounds * 5):
        for name in NAMES:
            sent = measure_once(server, name, "submits", tasks // 4)
            for kind in ("single", "batch"):
                found[name].setdefault(kind, []).append(sent[f"{kind}_per_second"])
                found[name].setdefault(f"{kind}_cpu", []).append(sent[f"{kind}_cpu_us"])
    return found


def measure(stage: Stage) -> list[Line]:
    tasks, rounds = stage.size(20_000, 2_000), stage.size(3, 1)
    found = versus(stage.server, tasks, rounds)
    return [
        _line(found, f"tracked drain of {tasks:,} no-ops", "drain", "dramatiq", 4),
        _line(found, f"tracked drain of {tasks:,} no-ops", "drain", "huey", 3),
        _line(found, "single submits", "single", "dramatiq", 1.2),
        _line(found, "single submits", "single", "huey", None),
        _line(found, "batch submits", "batch", "dramatiq", 5),
    ]


def _line(
    found: dict[str, dict[str, list[float]]], what: str, kind: str, other: str, target: float | None
) -> Line:
    ours, theirs = found["callboard"][kind], found[other][kind]
    # A ratio within its round: what else the machine did then was the same for both.
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    our_cpu, their_cpu = median(found["callboard"][f"{kind}_cpu"]), median(found[other][f"{kind}_cpu"])
    return Line(
        f"{what} beside {other.capitalize()}",
        f"{ratio:.1f}×",
        f"≥ {target:g}×" if target else "",
        ratio >= target if target else None,
        f"{median(ours):,.0f}/s against {median(theirs):,.0f}/s; rounds "
        + ", ".join(f"{one:.1f}" for one in ratios)
        + f"; Python's own CPU {our_cpu:.0f} against {their_cpu:.0f} µs a task",
    )
