"""The promoter: due tasks become ready, also while no worker is idle to do it in its own turn."""

from __future__ import annotations

from dataclasses import dataclass

from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

_PROMOTE = script("callboard.maintenance", "promote")
#: Tasks moved by one call of promote.lua.
STEP = 50


@dataclass(frozen=True, slots=True)
class Promoted:
    """`moved`: tasks that were due. `next_due_ms`: from now until the next one is; None: none is waiting."""

    moved: int
    next_due_ms: int | None

    @property
    def again_seconds(self) -> float | None:
        """When to look again, if before the loop's interval."""
        if self.moved >= STEP:
            return 0.0
        # Never 0 for a task that is due in a fraction of a millisecond: that would spin.
        return None if self.next_due_ms is None else max(0.01, self.next_due_ms / 1000)


class Promoter:
    """Moves due tasks from pending to queued, at most 50 a step."""

    name = "promoter"
    interval_seconds = 1.0

    def run_once(self, connection: Connection, queue: str) -> Promoted:
        """One step. Raises StoreUnavailable."""
        return connection.run(promote(connection.keys, queue))


def promote(keys: Keys, queue: str) -> Operation[Promoted]:
    """Promote what is due in `queue`, a bounded step."""
    moved, next_due_ms = yield ScriptCall(_PROMOTE, keys.queue(queue).prefix, ())
    return Promoted(moved, None if next_due_ms < 0 else next_due_ms)
