"""Waiting: `Prefer: wait=N` (RFC 7240), a long poll for a task's end."""

from __future__ import annotations

import re
from typing import Final

from callboard import clock, inspector
from callboard.errors import TaskNotFound
from callboard.records.record import TaskRecord
from callboard_api.platform import Platform

LONGEST_SECONDS: Final = 50
#: A notice can be lost in a failover, so the record is read again this often.
_LOOK_AGAIN_SECONDS: Final = 5.0
_LOOK_AGAIN_UNHEARD_SECONDS: Final = 1.0

_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d+)\"?\s*(?:[;,]|$)", re.IGNORECASE)


def preferred_seconds(prefer: str) -> int | None:
    """N of `Prefer: wait=N`, at most LONGEST_SECONDS; None without one, or for nonsense."""
    found = _WAIT.search(prefer)
    if found is None:
        return None
    # However many digits there are, the first of them tell. The zeros before are no part of the pattern: with
    # two ways to take a zero, a header full of them would hold the process for minutes.
    return min(int(found[1].lstrip("0")[:9] or 0), LONGEST_SECONDS)


def applied(seconds: int) -> dict[str, str]:
    """The headers of an answer that waited for up to `seconds`."""
    return {"Preference-Applied": f"wait={seconds}", "Vary": "Prefer"}


async def record_at_end(platform: Platform, task_id: str, seconds: float) -> TaskRecord:
    """The record once the task has ended, or as it is after `seconds` or when this process stops.

    Raises TaskNotFound, StoreUnavailable.
    """
    given_up = clock.monotonic() + seconds
    record = await known(platform, task_id)
    if record.state.terminal or seconds <= 0:
        return record
    async with platform.completions.bell(task_id) as bell:
        while True:
            record = await known(platform, task_id)
            left = given_up - clock.monotonic()
            if record.state.terminal or left <= 0 or platform.completions.stopped:
                return record
            pause = _LOOK_AGAIN_SECONDS if bell.held.is_set() else _LOOK_AGAIN_UNHEARD_SECONDS
            await bell.wait(min(left, pause))


async def known(platform: Platform, task_id: str) -> TaskRecord:
    """The record. Raises TaskNotFound."""
    record = await platform.run(inspector.get(platform.keys, task_id))
    if record is None:
        raise TaskNotFound(task_id)
    return record
