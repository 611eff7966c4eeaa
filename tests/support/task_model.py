"""A task, and one priority's fairness, as the model of the stateful test has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.scripted_queue import NewTask, line, operation

K = 2**49


@dataclass(frozen=True, slots=True)
class Op:
    """What a worker says of a running task, with the arguments that its kind wants."""

    kind: str
    id: str
    token: str
    delay_ms: int = 0
    followers: tuple[bytes, ...] = ()
    progress: bytes = b""
    progress_seq: int = 0
    first: int = 1
    lines: tuple[str, ...] = ()

    def pack(self) -> bytes:
        rest: dict[str, Sequence[Any]] = {
            "completed": (b'{"ok":1}', list(self.followers)),
            "failed": ("failed", "permanent", b"{}", list(self.followers)),
            "retry": ("failed", b"{}", self.delay_ms, b"options", list(self.followers)),
            "snooze": ("snoozed", self.delay_ms, b"", list(self.followers)),
            "release": ("shutdown",),
            "unknown": (),
            "cancelled": ("cancelled", b"{}"),
        }
        return operation(
            self.kind, self.id, self.token, *rest[self.kind], progress=(self.progress, self.progress_seq),
            lines=[line(text) for text in self.lines], first=self.first,
        )  # fmt: skip


@dataclass(slots=True)
class Task:
    """One task as it ought to be. `settled`: what was last taken from a worker under each token."""

    new: NewTask
    created: int
    expires: int = 0
    state: str = ""
    reason: str = ""
    due: int = 0
    queued: int = 0
    started: int = 0
    finished: int = 0
    wait: int = -1
    lease: int = 0
    attempt: int = 0
    max_attempts: int = 4
    losses: int = 0
    misses: int = 0
    runs: int = 0
    token: str = ""
    worker: str = ""
    cancel: int = 0
    terminate: int = 0
    tag: int = 0
    progress: bytes = b""
    progress_seq: int = 0
    options: bytes = b""
    log: list[str] = field(default_factory=list)
    log_seq: int = 0
    replay: str = ""
    attempts: list[tuple[int, str]] = field(default_factory=list)
    interruptions: list[str] = field(default_factory=list)
    settled: dict[str, str] = field(default_factory=dict)
    outcomes: int = 0
    replays: int = 0

    @property
    def id(self) -> str:
        return self.new.id

    @property
    def score(self) -> int:
        """Where it stands, or stood, in `queued`."""
        return self.new.priority * K + self.tag

    @property
    def place(self) -> tuple[int, str]:
        """Its order within its state's set."""
        scores = {"pending": self.due, "queued": self.score, "running": self.lease}
        return (scores.get(self.state, self.finished), self.id)


@dataclass(slots=True)
class Place:
    """A fairness key at one priority."""

    tail: int = 0
    served: int = 0
    n: int = 0


class Fairness:
    """One priority's clock and places: start-time fair queueing over whole numbers."""

    def __init__(self) -> None:
        self.v = 0
        self.places: dict[str, Place] = {}

    def place(self, task: Task) -> Place:
        return self.places.setdefault(task.new.key, Place())

    def enter(self, task: Task) -> None:
        place = self.place(task)
        task.tag = max(self.v, place.tail)
        place.tail = task.tag + step(task)
        place.n += 1

    def come_back(self, task: Task) -> None:
        place = self.place(task)
        place.tail = max(place.tail, task.tag + step(task))
        place.n += 1

    def serve(self, task: Task) -> None:
        self.v = max(self.v, task.tag)
        place = self.place(task)
        place.served = max(place.served, task.tag + step(task))
        self.leave(task)

    def leave(self, task: Task) -> None:
        place = self.place(task)
        place.n -= 1
        assert place.n >= 0
        if place.n == 0:
            place.tail = place.served

    def reweigh(self, tasks: list[Task]) -> None:
        """The queued tasks of one key enter anew, in their order; what came back keeps its tag."""
        place = self.place(tasks[0])
        place.tail = passed = max(self.v, place.served)
        for task in tasks:
            if task.tag >= passed:
                task.tag = place.tail
                place.tail += step(task)

    def run_empty(self) -> None:
        self.v = max([self.v, *(place.served for place in self.places.values())])
        self.places.clear()


def step(task: Task) -> int:
    return max(1, int(1000 / task.new.weight + 0.5))
