"""A listener for slots that remembers everything, and assignments to give them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from callboard_worker.slots.slot import Assignment, Outcome, SlotGroup
from tests.support.waiting import wait_until

_numbers = count(1)


def assignment(name: str, payload: Mapping[str, Any] | None = None, **options: Any) -> Assignment:
    """One attempt of the task `name`; options are the fields of Assignment."""
    number = next(_numbers)
    return Assignment(
        **{
            "task_id": f"slots_{number}",
            "name": name,
            "queue": "slots",
            "owner": "team-a",
            "token": f"1.n{number}-0",
            "attempt": 1,
            "max_attempts": 4,
            "payload": json.dumps(payload or {}).encode(),
            **options,
        }
    )


@dataclass
class Recorder:
    """What slots told, in order. `told` mixes lines and outcomes of all tasks."""

    told: list[tuple[str, str, Any]] = field(default_factory=list)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def logged(self, assignment: Assignment, level: str, text: str) -> None:
        self._note("log", assignment.task_id, (level, text))

    def progressed(self, assignment: Assignment, blob: bytes) -> None:
        self._note("progress", assignment.task_id, json.loads(blob))

    def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
        with self._changed:
            self.outcomes.setdefault(assignment.task_id, []).append(outcome)
            self.slots[assignment.task_id] = slot
            self.told.append(("finished", assignment.task_id, outcome.kind))
            self._changed.notify_all()

    def outcome(self, of: Assignment, timeout: float = 30.0) -> Outcome:
        """How it ended, waiting for that. Fails when it ended twice."""
        with self._changed:
            assert self._changed.wait_for(lambda: of.task_id in self.outcomes, timeout), (
                f"{of.name} did not end within {timeout:g} s; told: {self.told}"
            )
            [outcome] = self.outcomes[of.task_id]
            return outcome

    def lines(self, of: Assignment) -> list[tuple[str, str]]:
        """Its log so far: (level, text)."""
        with self._changed:
            return [what for kind, task_id, what in self.told if kind == "log" and task_id == of.task_id]

    def texts(self, of: Assignment) -> list[str]:
        return [text for _, text in self.lines(of)]

    def progresses(self, of: Assignment) -> list[dict[str, Any]]:
        with self._changed:
            return [what for kind, task_id, what in self.told if kind == "progress" and task_id == of.task_id]

    def await_line(self, of: Assignment, text: str, timeout: float = 30.0) -> str:
        """The first line of its log that contains `text`."""
        [line, *_] = wait_until(
            lambda: [line for line in self.texts(of) if text in line], timeout, f"a line with {text!r}"
        )
        return line

    def await_progress(self, of: Assignment, timeout: float = 30.0) -> dict[str, Any]:
        """Its first progress: the body has started."""
        [first, *_] = wait_until(lambda: self.progresses(of), timeout, "a progress")
        return first

    def _note(self, kind: str, task_id: str, what: Any) -> None:
        with self._changed:
            self.told.append((kind, task_id, what))
            self._changed.notify_all()


def run(group: SlotGroup, recorder: Recorder, of: Assignment, timeout: float = 30.0) -> Outcome:
    """Start it and wait for its end."""
    group.run(of)
    return recorder.outcome(of, timeout)
