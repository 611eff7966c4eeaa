"""The sampler: how deep a queue is, how old its work, how long its tasks wait and run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from callboard.metrics import STATES, QueueFigures
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

_SAMPLE = script("callboard.maintenance", "sample")
_TALLIES = script("callboard.maintenance", "tallies")

#: Minutes of finished runs that are kept.
WINDOW_MINUTES = 30


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in ms, within a factor of √2 (that is how wide the stored buckets are)."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute's finished runs. `at_ms`: its start; `failed` are those that ended failed or cancelled."""

    at_ms: int
    finished: int
    failed: int
    run_ms: int


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Finished runs of a queue's last minutes, the running minute included. None: nothing finished.

    `per_second`: finished runs a second over the whole window; `minutes`: oldest first, empty ones left out.
    """

    queue: str
    window_minutes: int
    finished: int
    failed: int
    per_second: float
    mean_run_ms: float | None
    run_ms: Spread | None
    wait_ms: Spread | None
    minutes: tuple[Minute, ...]


class Sampler:
    """Samples queues; who asked decides what is done with the figures."""

    name = "sampler"
    interval_seconds = 5.0

    def run_once(self, connection: Connection, queue: str) -> QueueFigures:
        """The figures now. Raises StoreUnavailable."""
        return connection.run(figures(connection.keys, queue))


def figures(keys: Keys, queue: str, wait_objective_seconds: float | None = None) -> Operation[QueueFigures]:
    """The queue's figures in one round trip; the mean run is that of the last 30 minutes."""
    reply = yield ScriptCall(_SAMPLE, keys.queue(queue).prefix, (WINDOW_MINUTES,))
    *counts, oldest_ms, due, runs, run_ms = reply
    return QueueFigures(
        queue=queue,
        tasks=dict(zip(STATES, counts, strict=True)),
        oldest_queued_age_seconds=None if oldest_ms < 0 else oldest_ms / 1000,
        due_pending=due,
        mean_run_seconds=run_ms / runs / 1000 if runs else None,
        wait_objective_seconds=wait_objective_seconds,
    )


def statistics(keys: Keys, queue: str, minutes: int = WINDOW_MINUTES) -> Operation[QueueStatistics]:
    """Counts and percentiles of the last `minutes` (1 to 30), the running one included."""
    now_ms, *flat = yield ScriptCall(_TALLIES, keys.queue(queue).prefix, ())
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return read_tallies(queue, now_ms, {name.decode(): int(count) for name, count in fields.items()}, minutes)


def read_tallies(queue: str, now_ms: int, fields: Mapping[str, int], minutes: int) -> QueueStatistics:
    """Statistics of the `minutes` up to `now_ms`, from the fields of the `runs` hash (`storage.keys`)."""
    minutes = max(1, min(minutes, WINDOW_MINUTES))
    last = now_ms // 60_000
    sums: dict[int, Counter[str]] = {}
    runs: Counter[int] = Counter()
    waits: Counter[int] = Counter()
    for name, count in fields.items():
        minute_text, _, kind = name.partition(":")
        minute = int(minute_text)
        if not last - minutes < minute <= last:
            continue
        if kind[0] == "r":
            runs[int(kind[1:])] += count
        elif kind[0] == "w":
            waits[int(kind[1:])] += count
        else:
            sums.setdefault(minute, Counter())[kind] += count
    rows = tuple(
        Minute(minute * 60_000, found["n"], found["f"], found["ms"]) for minute, found in sorted(sums.items())
    )
    finished = sum(row.finished for row in rows)
    seconds = (minutes - 1) * 60 + now_ms % 60_000 / 1000
    return QueueStatistics(
        queue=queue,
        window_minutes=minutes,
        finished=finished,
        failed=sum(row.failed for row in rows),
        per_second=finished / max(1.0, seconds),
        mean_run_ms=sum(row.run_ms for row in rows) / finished if finished else None,
        run_ms=spread(runs),
        wait_ms=spread(waits),
        minutes=rows,
    )


def spread(buckets: Mapping[int, int]) -> Spread | None:
    """Percentiles of counts by bucket: bucket k holds the ms with floor(2 × log2(ms + 1)) = k."""
    if not sum(buckets.values()):
        return None
    return Spread(*(_percentile(buckets, share) for share in (0.50, 0.95, 0.99)))


def _percentile(buckets: Mapping[int, int], share: float) -> float:
    rank = share * sum(buckets.values())
    below = 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if count and below + count >= rank:
            # Within a bucket, as far between its borders as the rank is between its members.
            return float(2 ** ((bucket + (rank - below) / count) / 2) - 1)
        below += count
    return math.nan  # unreachable: the ranks end within the last bucket
