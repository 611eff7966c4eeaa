"""The ledger: what bodies did, counted from outside. A file to which each of them appends a line.

A line is `MARK ID ATTEMPT PID MILLISECONDS`, by the machine's monotonic clock: S for a start, E for an end, X
for an end by an exception. A body that was killed leaves its S alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from callboard.context import current

#: The environment variable with the file's path; no setting of Callboard's, so not with its prefix.
VARIABLE = "CHAOS_LEDGER"


@contextmanager
def entered() -> Iterator[None]:
    """Around a body: writes its start and its end."""
    write("S")
    try:
        yield
    except BaseException:
        write("X")
        raise
    write("E")


def write(mark: str) -> None:
    """One line, in one write, so that processes do not mix theirs."""
    me = current()
    line = f"{mark} {me.id} {me.attempt} {os.getpid()} {time.monotonic_ns() // 1_000_000}\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at`: seconds by the monotonic clock."""

    mark: str
    task_id: str
    attempt: int
    pid: int
    at: float


class Ledger:
    """Reads the file at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Every line so far, in order."""
        try:
            lines = self.path.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            mark, task_id, attempt, pid, at = line.split()
            found.append(Entry(mark, task_id, int(attempt), int(pid), int(at) / 1000))
        return found

    def starts(self) -> Counter[str]:
        """How often each task's body started."""
        return Counter(entry.task_id for entry in self.entries() if entry.mark == "S")

    def ends(self) -> Counter[str]:
        """How often each task's body came to its end, good or bad."""
        return Counter(entry.task_id for entry in self.entries() if entry.mark != "S")

    def repeated(self) -> dict[str, int]:
        """Tasks whose bodies started more than once, and how often."""
        return {task_id: count for task_id, count in self.starts().items() if count > 1}

    def running(self) -> set[str]:
        """Tasks with a start that no end has followed."""
        open_: Counter[str] = Counter()
        for entry in self.entries():
            open_[entry.task_id] += 1 if entry.mark == "S" else -1
        return {task_id for task_id, count in open_.items() if count > 0}

    def started_at(self, task_id: str) -> float | None:
        """When a body last started."""
        return next(
            (e.at for e in reversed(self.entries()) if e.task_id == task_id and e.mark == "S"),
            None,
        )

    def overlapping(self) -> set[str]:
        """Tasks that ran in two places at one time."""
        live: Counter[str] = Counter()
        found = set()
        for entry in self.entries():
            live[entry.task_id] += 1 if entry.mark == "S" else -1
            if live[entry.task_id] > 1:
                found.add(entry.task_id)
        return found
