"""What a worker holds: a claimed task, from the claim until its end is recorded."""

from __future__ import annotations

import threading
from contextvars import Context
from dataclasses import dataclass, field

from callboard import clock
from callboard.broker.message import HeldMessage
from callboard.broker.turn import Claim, Notes
from callboard.records import layout
from callboard_worker.definition import Definition
from callboard_worker.slots.slot import Assignment

#: Writes of progress and log lines, per task.
NOTE_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class Held:
    """A claimed task. `asked`: why its body was told to stop. `ended`: its end is decided.

    `suspect`: its lease has run out so often that it may be what kills workers; it runs alone.
    """

    claim: Claim
    queue: str
    definition: Definition
    assignment: Assignment
    message: HeldMessage | None = None
    priority: int = 5
    suspect: bool = False
    accepted_at: float = 0.0
    running: bool = False
    started_ms: int = 0
    wait_ms: int | None = None
    asked: str = ""
    ended: bool = False
    told: Told | None = None
    hook_context: Context | None = None
    """Where Dramatiq's hooks keep their context variables, when they run on several threads."""

    def tell(self) -> Told:
        """Where its progress and lines are kept; made at the first."""
        if self.told is None:
            self.told = Told(self.assignment.attempt)
        return self.told


class Told:
    """What a body has told and Redis has not confirmed. Filled from its slot, emptied by the note writer."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._first = 1
        self._progress = b""
        self._seq = 0
        self._progress_sent = 0
        self._next = 0.0

    def log(self, level: str, text: str) -> None:
        """Add a line."""
        line = layout.log_line(clock.now_ms(), self._attempt, level, text)
        with self._lock:
            self._lines.append(line)

    def progress(self, blob: bytes) -> None:
        """Replace the progress."""
        with self._lock:
            self._progress, self._seq = blob, self._seq + 1

    def due(self, now: float) -> bool:
        """Whether there is something to write, and the last write is long enough ago."""
        return bool(self._lines or self._seq > self._progress_sent) and now >= self._next

    def pending(self, now: float | None = None) -> Notes:
        """All that is not confirmed; the store drops lines and progress that it has."""
        with self._lock:
            if now is not None:
                self._next = now + NOTE_SECONDS
            fresh = self._seq > self._progress_sent
            return Notes(
                self._progress if fresh else b"", self._seq if fresh else 0, self._first, tuple(self._lines)
            )

    def confirm(self, notes: Notes) -> None:
        """`notes` have arrived."""
        with self._lock:
            del self._lines[: len(notes.lines)]
            self._first += len(notes.lines)
            self._progress_sent = max(self._progress_sent, notes.progress_seq)


@dataclass(slots=True)
class Ledger:
    """Everything held, by token."""

    by_token: dict[str, Held] = field(default_factory=dict)

    def running(self) -> list[Held]:
        """What has been given to a slot and has not ended. From any thread."""
        return [held for held in list(self.by_token.values()) if held.running]

    def find(self, local: str, token: str) -> Held | None:
        """The held task with this id and token."""
        held = self.by_token.get(token)
        return held if held is not None and held.claim.local == local else None
