"""A task's log, read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callboard.clock import rfc3339
from callboard.errors import TaskNotFound
from callboard.records import ids, layout
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `seq` counts from 1 over all attempts; `at` is in ms since 1970, by the worker's clock."""

    seq: int
    at: int
    attempt: int
    level: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """The line on the wire."""
        return {
            "seq": self.seq,
            "at": rfc3339(self.at),
            "attempt": self.attempt,
            "level": self.level,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines after a place. `next_after` goes into the next call; `dropped` lines did not fit the log."""

    items: tuple[LogLine, ...]
    next_after: int
    dropped: int = 0


def logs(keys: Keys, task_id: str, after: int = 0, limit: int = 1000) -> Operation[LogPage]:
    """Up to `limit` lines of a task's log with `seq` above `after`. Raises TaskNotFound."""
    queue, local = ids.split(task_id)
    queue_keys = keys.queue(queue)
    mutable, raw = yield Command("MGET", queue_keys.mutable(local), queue_keys.log(local))
    if mutable is None:
        raise TaskNotFound(task_id)
    try:
        entries = layout.log(raw)
        written = layout.Mutable.unpack(mutable).log_lines
    except layout.UndecodableRecord:
        return LogPage((), after)
    numbered = list(enumerate(entries, start=1))[after : after + limit]
    lines = tuple(LogLine(seq, e.at, e.attempt, e.level, e.message) for seq, e in numbered)
    return LogPage(lines, lines[-1].seq if lines else after, max(0, written - len(entries)))
