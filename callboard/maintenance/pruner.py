"""The pruner: finished tasks leave by age, by count, and when Redis fills up, whichever comes first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from callboard.maintenance.policy import Policies, Policy
from callboard.metrics import Metrics
from callboard.metrics import metrics as process_metrics
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, Pressure, ScriptCall
from callboard.storage.scripts import script

_PRUNE = script("callboard.maintenance", "prune")
_STRIP = script("callboard.maintenance", "strip")

Terminal = Literal["completed", "failed", "cancelled"]
Reason = Literal["age", "count", "memory"]

#: Tasks dropped by one call.
STEP = 200
#: Calls in one run, so that the other loops get their turn.
STEPS = 25
#: Under memory pressure, logs and results of tasks that finished longer ago go before any record does.
BARE_AFTER_MS = 3600 * 1000
#: The reading of used memory is a second old at most; what was dropped shows in it only then.
MEMORY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """`dropped`: records, by what was reached. `stripped`: records looked at that lost log and result."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    stripped: int = 0
    more: bool = False

    @property
    def again_seconds(self) -> float | None:
        """When to go on, if before the loop's interval."""
        if self.more:
            return 0.05
        return MEMORY_SECONDS if self.stripped or self.dropped.get("memory") else None


class Pruner:
    """Drops finished tasks of a queue in steps of 200; counts them in `tasks_pruned`.

    Cancelled tasks are kept like completed ones. Above the memory mark the completed go first, logs and
    results before records, then the cancelled, then the failed; never a task that is not finished.
    """

    name = "pruner"
    interval_seconds = 5.0

    def __init__(self, policies: Policies, metrics: Metrics = process_metrics) -> None:
        self._policies = policies
        self._metrics = metrics

    def run_once(self, connection: Connection, queue: str) -> Pruned:
        """At most 25 steps. Raises StoreUnavailable."""
        policy = self._policies(queue)
        dropped: Counter[str] = Counter()
        steps = STEPS
        states: list[tuple[Terminal, int, int]] = [
            ("completed", policy.completed_ms, policy.completed_count),
            ("cancelled", policy.completed_ms, policy.completed_count),
            ("failed", policy.failed_ms, policy.failed_count),
        ]
        rules: list[tuple[Terminal, Reason, int, int]] = []
        for state, age_ms, count in states:
            rules += [(state, "age", age_ms, -1), (state, "count", -1, count)]
        for state, reason, age_ms, keep in rules:
            gone = STEP
            while gone == STEP and steps > 0:
                steps -= 1
                gone, _ = connection.run(prune(connection.keys, queue, state, age_ms=age_ms, keep=keep))
                self._count(dropped, queue, reason, gone)
        stripped = 0
        if steps > 0:
            stripped = self._relieve(connection, queue, policy, dropped, steps)
        return Pruned(dropped, stripped, more=steps == 0)

    def _relieve(
        self, connection: Connection, queue: str, policy: Policy, dropped: Counter[str], steps: int
    ) -> int:
        share = connection.run(_share(connection.keys, queue))
        if share <= policy.memory_share:
            return 0
        # Nobody knows what one record weighs. The share of memory that must go, taken as a share of the
        # records, comes near the mark over a few readings; the extra hundredth makes it arrive.
        fraction = (share - policy.memory_share) / share + 0.01
        order: tuple[Terminal, ...] = ("completed", "cancelled", "failed")
        for state in order:
            size = connection.run(_size(connection.keys, queue, state))
            excess = min(math.ceil(size * fraction), steps * STEP)
            stripped = self._strip(connection, queue, excess) if state == "completed" else 0
            if stripped:
                return stripped
            while excess > 0:
                gone, _ = connection.run(
                    prune(connection.keys, queue, state, keep=0, limit=min(STEP, excess))
                )
                self._count(dropped, queue, "memory", gone)
                excess = excess - gone if gone else 0
            if size:
                break
        return 0

    def _strip(self, connection: Connection, queue: str, excess: int) -> int:
        stripped = 0
        while stripped < excess:
            looked_at = connection.run(strip(connection.keys, queue, limit=min(STEP, excess - stripped)))
            if not looked_at:
                break
            stripped += looked_at
        return stripped

    def _count(self, dropped: Counter[str], queue: str, reason: Reason, gone: int) -> None:
        if gone:
            dropped[reason] += gone
            self._metrics.tasks_pruned.labels(queue, reason).inc(gone)


def prune(
    keys: Keys, queue: str, state: Terminal, *, age_ms: int = -1, keep: int = -1, limit: int = STEP
) -> Operation[tuple[int, int]]:
    """Drop the oldest of `state` that finished more than `age_ms` ago or are more than `keep` (-1: either way
    none), at most `limit` (200). Returns (dropped, left)."""
    dropped, left = yield ScriptCall(_PRUNE, keys.queue(queue).prefix, (state, age_ms, keep, limit))
    return dropped, left


def strip(keys: Keys, queue: str, older_ms: int = BARE_AFTER_MS, limit: int = STEP) -> Operation[int]:
    """Drop logs and results of the oldest completed tasks; how many were looked at, 0: none is left."""
    looked_at: int = yield ScriptCall(_STRIP, keys.queue(queue).prefix, (older_ms, limit))
    return looked_at


def _share(keys: Keys, queue: str) -> Operation[float]:
    share: float = yield Pressure(keys.queue(queue).prefix)
    return share


def _size(keys: Keys, queue: str, state: Terminal) -> Operation[int]:
    size: int = yield Command("ZCARD", keys.queue(queue).state(state))
    return size
