"""What each queue comes to in one worker: form of its slots, how many, limits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.catalog.contract import Contract
from callboard.catalog.queue import Queue, check_queue_name, declared_queues, queue_named
from callboard.catalog.terms import Isolation
from callboard.errors import InvalidDeclaration, UnknownQueue
from callboard.settings import Settings

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class ResolvedQueue:
    """A queue as one worker serves it. None: no limit; `retention_ms` None: the settings'.

    slots: the most that run at once here. Queues of process and thread form share the worker's slots;
        a loop's are its own.
    tasks: the names that this worker knows in it.
    """

    name: str
    isolation: Isolation
    slots: int
    soft_limit_ms: int | None
    hard_limit_ms: int | None
    retries: int | None
    lease_ms: int
    wait_objective_ms: int | None
    retention_ms: int | None
    tasks: tuple[str, ...]


def resolve_queues(
    contracts: Iterable[Contract], settings: Settings, names: Sequence[str] = ()
) -> dict[str, ResolvedQueue]:
    """The queues that a worker with these contracts serves, in order of precedence.

    `names`: only these, in this order (by default `settings.worker_queues`, else all that are declared
    or have a task). Raises InvalidDeclaration for a task that is no `async def` in a queue of form loop
    (with both places), UnknownQueue for a name that neither a task nor a declaration knows.
    """
    by_queue: dict[str, list[Contract]] = {name: [] for name in declared_queues()}
    for contract in contracts:
        by_queue.setdefault(contract.queue_name, []).append(contract)
    chosen = tuple(names) or settings.worker_queues or tuple(by_queue)
    for name in chosen:
        if check_queue_name(name) not in by_queue:
            raise UnknownQueue(name, by_queue)
    return {name: _resolve(queue_named(name), by_queue[name], settings) for name in dict.fromkeys(chosen)}


def _resolve(queue: Queue, contracts: Sequence[Contract], settings: Settings) -> ResolvedQueue:
    isolation = queue.isolation
    if isolation is None:
        isolation = "loop" if contracts and all(contract.is_async for contract in contracts) else "process"
    if isolation == "loop":
        for contract in contracts:
            if not contract.is_async:
                raise InvalidDeclaration(
                    f"Queue {queue.name!r} ({queue.place}) runs its tasks on one event loop, which "
                    f"{contract.name!r} ({contract.place}) would block: make it `async def`, or move it to "
                    "another queue."
                )
    most = settings.worker_loop_slots if isolation == "loop" else worker_slots(settings)
    slots = most if queue.slots is None else queue.slots if isolation == "loop" else min(queue.slots, most)
    return ResolvedQueue(
        name=queue.name,
        isolation=isolation,
        slots=slots,
        soft_limit_ms=queue.soft_limit_ms,
        hard_limit_ms=queue.hard_limit_ms,
        retries=queue.retries,
        lease_ms=queue.lease_ms or int(settings.worker_lease_seconds * 1000),
        wait_objective_ms=queue.wait_objective_ms,
        retention_ms=queue.retention_ms,
        tasks=tuple(sorted(contract.name for contract in contracts)),
    )


def worker_slots(settings: Settings) -> int:
    """The slots for processes and threads together: the setting, else the CPUs this process may use."""
    return settings.worker_slots or usable_cpus()


def usable_cpus(limit_file: Path = _CPU_LIMIT) -> int:
    """The CPUs of this process's affinity, or its container's quota (cgroup v2, rounded up) if less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit_file.read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or `max`: no quota
    return max(1, count)
