"""The queue of the model, and the moves that a task makes in it."""

from __future__ import annotations

from tests.support.scripted_queue import START_MS, TERMINAL
from tests.support.task_model import Fairness, Task


class QueueModel:
    """What a queue holds. Scripts are made of the moves; each script ends with `_close`."""

    def __init__(self) -> None:
        self.clock, self.seen = START_MS, 0
        self.tasks: dict[str, Task] = {}
        self.tombs: dict[str, str] = {}
        #: Of foreign ids; the first run may be gone while the last one lives.
        self.last_runs: dict[str, int] = {}
        self.claims: dict[str, tuple[str, list[str]]] = {}
        self.outbox: dict[str, bytes] = {}
        self.fair = [Fairness() for _ in range(10)]
        self.paused = False
        self.finished_runs = self.failed_runs = 0
        #: When the consumer that looked last wakes by itself.
        self.told_due: int | None = None

    @property
    def now(self) -> int:
        behind = self.seen - self.clock
        return self.seen if 0 < behind <= 5000 else self.clock

    def within(self, state: str) -> list[Task]:
        return sorted((t for t in self.tasks.values() if t.state == state), key=lambda task: task.place)

    def _fair(self, task: Task) -> Fairness:
        return self.fair[task.new.priority]

    def _end(self, task: Task, state: str, reason: str) -> None:
        assert task.state not in TERMINAL, "one outcome a run"
        task.state, task.reason, task.finished = state, reason, self.now
        task.outcomes += 1

    def _end_cancelled(self, task: Task) -> None:
        self._end(task, "cancelled", "terminated" if task.terminate else "cancelled")

    def _enter(self, task: Task) -> None:
        self._fair(task).enter(task)
        task.state, task.reason, task.queued = "queued", "", self.now

    def _come_back(self, task: Task) -> None:
        self._fair(task).come_back(task)
        task.state, task.reason, task.queued = "queued", "", self.now

    def _wait(self, task: Task, delay_ms: int, reason: str) -> None:
        if task.cancel:
            self._end_cancelled(task)
        else:
            task.state, task.reason, task.due = "pending", reason, self.now + delay_ms

    def _interrupted(self, task: Task, cause: str) -> None:
        task.interruptions.append(cause)
        task.attempt -= 1

    def _close(self) -> None:
        """The end of every script: a priority that ran empty starts afresh from its highest mark."""
        waiting = {task.new.priority for task in self.tasks.values() if task.state == "queued"}
        for priority, fairness in enumerate(self.fair):
            if priority not in waiting and fairness.places:
                fairness.run_empty()
