"""Where a worker lives, and whether it was told to go: what its death is judged by.

Unlike its presence the note outlives the worker, for a day: it is read when a lease has run out. A worker in
a cluster leaves it at its start, every worker when it is told to stop; one that stops in order takes it away.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation

#: Kept so long after it was written; a living worker writes it anew every minute.
KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Origin:
    """A worker's start in ms; its pod ("" outside a cluster); since when it drains, 0 for not yet.

    `cluster` tells clusters apart. `reason`: why its pod is being taken away, as far as the worker could see.
    """

    since: int
    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    draining: int = 0
    reason: str = ""


def note(keys: Keys, worker: str, origin: Origin) -> Operation[None]:
    """Leave the note, or leave it anew."""
    body = json.dumps(asdict(origin), separators=(",", ":"))
    yield Command("SET", keys.origin(worker), body, "EX", KEPT_SECONDS)


def read(keys: Keys, worker: str) -> Operation[Origin | None]:
    """A worker's note, if it has left one."""
    raw = yield Command("GET", keys.origin(worker))
    if raw is None:
        return None
    try:
        fields = json.loads(raw)
        return Origin(**{name: fields[name] for name in Origin.__slots__ if name in fields})
    except (ValueError, TypeError):
        return None  # it helps to judge; what it judges must not wait for it


def forget(keys: Keys, worker: str) -> Operation[None]:
    """Take the note away, when the worker holds nothing any more."""
    yield Command("DEL", keys.origin(worker))
