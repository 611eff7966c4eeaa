"""Reweigh: another weight for a fairness key, for what waits already too, in bounded steps."""

from __future__ import annotations

import math

from callboard.errors import Invalid
from callboard.records.ids import check_queue
from callboard.records.state import State
from callboard.storage.keys import Keys
from callboard.storage.operation import Argument, Operation, ScriptCall
from callboard.storage.scripts import script

_BACKLOG = script("callboard.broker", "backlog")
_REWEIGH = script("callboard.broker", "reweigh")

#: Tasks that one call looks at, and that one call changes.
LOOK, STEP = 500, 100


def reweigh(
    keys: Keys, queue: str, fairness_key: str, weight: float, *, look: int = LOOK, step: int = STEP
) -> Operation[int]:
    """Give the live tasks of `fairness_key` in `queue` this weight; how many there were.

    Those that are queued keep their order and take turns by the new weight from now on; delayed and running
    ones when they enter the queue again. What is submitted later has the weight that its submit says. Not
    atomic: a backlog is reweighed in steps (of `step`, found by looks at `look`), and what is claimed
    meanwhile has gone.

    Raises Invalid for a weight that is not above 0, StoreFull at maxmemory.
    """
    if not 0 < weight < math.inf:
        raise Invalid(f"A weight is a number above 0; got {weight!r}.")
    prefix = keys.queue(check_queue(queue)).prefix
    queued: dict[int, list[bytes]] = {}
    others: list[bytes] = []
    for state in (State.PENDING, State.RUNNING, State.QUEUED):
        cursor: Argument | None = ""
        while cursor is not None:
            after, *found = yield ScriptCall(_BACKLOG, prefix, (state, fairness_key, cursor, look))
            for local, priority in zip(found[::2], found[1::2], strict=True):
                (queued.setdefault(priority, []) if state is State.QUEUED else others).append(local)
            cursor = after or None
    changed = 0
    groups: list[tuple[int | str, list[bytes]]] = [("", others), *queued.items()]
    for at, locals_ in groups:
        tag = reserved = b""
        for start in range(0, len(locals_), step):
            chosen = locals_[start : start + step]
            later = len(locals_) - start - len(chosen)
            words: tuple[Argument, ...] = (fairness_key, weight, at, later, tag, reserved, *chosen)
            done, tag, reserved = yield ScriptCall(_REWEIGH, prefix, words)
            changed += int(done)
    return changed
