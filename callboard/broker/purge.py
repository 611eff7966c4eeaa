"""Purge: drop what stands in one state of a queue, in bounded steps."""

from __future__ import annotations

from callboard.errors import IllegalTransition
from callboard.records.ids import check_queue
from callboard.records.state import State
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

_PURGE = script("callboard.broker", "purge")

#: Ids that one call may touch.
STEP = 200
#: States that can be purged.
PURGEABLE = frozenset(State) - {State.RUNNING}


def purge(keys: Keys, queue: str, state: State) -> Operation[int]:
    """Drop every task that stands in `state` now, records and all; how many there were.

    Raises IllegalTransition for `running`: cancel those instead.
    """
    if state not in PURGEABLE:
        raise IllegalTransition("Running tasks cannot be purged; cancel them.", state=state)
    queue_keys = keys.queue(check_queue(queue))
    dropped, looked, cursor = 0, STEP, ""
    # A step that saw fewer than it might has come to the end; younger tasks never keep it from getting there.
    while looked >= STEP:
        gone, looked, cursor = yield ScriptCall(_PURGE, queue_keys.prefix, (state, STEP, cursor))
        dropped += int(gone)
    return dropped
