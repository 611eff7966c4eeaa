"""The six states of a task."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task stands. `docs/state-machine.md` draws the transitions."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a task in this state stays there until somebody acts."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
