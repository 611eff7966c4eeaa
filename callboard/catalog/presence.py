"""Presence: which workers live, what they serve, and what they do right now.

A worker's entry is one string that dies 20 s after its last renewal. Its absence, seen while Redis was
healthy, is what makes a lease's expiry the worker's death.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from callboard.clock import rfc3339
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

_SHOW = script("callboard.catalog", "show")
_ENROL = script("callboard.catalog", "enrol")

#: An entry outlives its last renewal by this long.
PRESENCE_MS = 20_000


@dataclass(frozen=True, slots=True)
class Presence:
    """A worker process. `slots`: of all its forms, some shared by queues; times in ms since 1970.

    `tasks`: what it runs, the first 100, as {"id", "name", "queue", "attempt", "started_at"}. `by_queue`:
    what each queue uses and the most that it may use, (busy, slots). `slots` is 0 for a guest: a process that
    runs Dramatiq's own Worker, which does not say what its threads do.
    """

    id: str
    host: str
    pid: int
    version: str
    since: int
    queues: Sequence[str]
    slots: int
    busy: int
    tasks: Sequence[Mapping[str, Any]] = field(default=())
    memory_bytes: int = 0
    draining: bool = False
    by_queue: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def used(self, queue: str) -> tuple[int, int]:
        """Busy slots of one of its queues, and the most that it may have."""
        if queue in self.by_queue:
            busy, slots = self.by_queue[queue]
            return busy, slots
        return sum(1 for task in self.tasks if task["queue"] == queue), self.slots

    def to_json(self) -> dict[str, Any]:
        """The worker on the wire."""
        shown = asdict(self)
        del shown["by_queue"]
        shown["since"] = rfc3339(self.since)
        shown["queues"] = list(self.queues)
        shown["tasks"] = [{**task, "started_at": rfc3339(task["started_at"])} for task in self.tasks]
        return shown


def show(keys: Keys, presence: Presence, ttl_ms: int = PRESENCE_MS) -> Operation[None]:
    """Write the entry anew; works at maxmemory.

    Its queues are registered too: what a worker serves has figures, or its autoscaler would be blind until
    the first task.
    """
    body = json.dumps(asdict(presence), separators=(",", ":"))
    yield ScriptCall(_SHOW, keys.worker(presence.id), (body, ttl_ms))
    yield ScriptCall(_ENROL, keys.workers, (presence.id,))
    for name in keys.unregistered(presence.queues):
        yield ScriptCall(_ENROL, keys.queues, (name,))
        keys.note_registered(name)


def withdraw(keys: Keys, worker: str) -> Operation[None]:
    """Take the entry away, when the worker has stopped."""
    yield Command("DEL", keys.worker(worker))
    yield Command("SREM", keys.workers, worker)


def read(keys: Keys) -> Operation[list[Presence]]:
    """Every living worker, by id. Names of dead ones found on the way are dropped."""
    found: list[Presence] = []
    for name in sorted((yield Command("SMEMBERS", keys.workers))):
        raw = yield Command("GET", keys.worker(name.decode()))
        if raw is None:
            yield Command("SREM", keys.workers, name)
            continue
        fields = json.loads(raw)
        known = {key: fields[key] for key in Presence.__slots__ if key in fields}
        found.append(Presence(**known))
    return found


def alive(keys: Keys, worker: str) -> Operation[bool]:
    """Whether one worker's entry is there."""
    return bool((yield Command("EXISTS", keys.worker(worker))))
