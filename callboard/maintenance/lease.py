"""The lease on a queue's maintenance: one process at a time has it, the next when that one dies."""

from __future__ import annotations

from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

LEASE_SECONDS = 5.0

_LEASE = script("callboard.maintenance", "lease")
_LOOP = "maintenance"


def take(keys: Keys, queue: str, holder: str, seconds: float = LEASE_SECONDS) -> Operation[bool]:
    """Take or renew the lease; whether `holder` (no spaces) has it now. Safe to send twice."""
    got = yield ScriptCall(_LEASE, keys.queue(queue).prefix, (_LOOP, holder, int(seconds * 1000)))
    return bool(got)


def let_go(keys: Keys, queue: str, holder: str) -> Operation[None]:
    """Give the lease up, if `holder` has it."""
    yield ScriptCall(_LEASE, keys.queue(queue).prefix, (_LOOP, holder, 0))
