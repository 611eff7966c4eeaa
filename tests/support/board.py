"""The board as a test sees it: one namespace through the doors, in a few words."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from callboard import control, inspector
from callboard.catalog import presence
from callboard.doctor import Checkup, Fault
from callboard.errors import StoreUnavailable
from callboard.records import ids
from callboard.records.record import TaskRecord
from callboard.records.state import TERMINAL, State
from callboard.storage.connection import Connection
from callboard.storage.operation import Command, Operation
from callboard.submit import Submission, Submitted, submit
from tests.support.waiting import wait_until

T = TypeVar("T")

_BATCH = 500


class Board:
    """Submits, looks and waits. `through`: another connection for submits and control, such as a proxy's."""

    def __init__(self, connection: Connection, through: Connection | None = None) -> None:
        self.connection = connection
        self.through = through or connection
        self.keys = connection.keys

    def run(self, operation: Operation[T]) -> T:
        return self.connection.run(operation)

    def submit(self, name: str, count: int = 1, *, payload: object = None, **options: object) -> list[str]:
        """Submit `count` tasks of `name`, whose queue is its first word; their ids."""
        return self.send(self.prepare(name, count, payload=payload, **options))

    @staticmethod
    def prepare(name: str, count: int = 1, *, payload: object = None, **options: object) -> list[Submission]:
        """What `submit` sends, with the ids that the tasks will have."""
        queue = str(options.pop("queue", name.partition(".")[0]))
        return [
            Submission(
                name=name,
                queue=queue,
                payload=payload or {},  # type: ignore[arg-type]
                task_id=ids.new_id(queue),
                **options,  # type: ignore[arg-type]
            )
            for _ in range(count)
        ]

    def send(self, submissions: Sequence[Submission], patience: float = 0.0) -> list[str]:
        """Submit these. Outages are waited out for `patience` seconds: the ids make it safe to send again."""
        accepted: list[Submitted] = []
        for start in range(0, len(submissions), _BATCH):
            batch = submissions[start : start + _BATCH]
            accepted += insist(partial(self._send, batch), patience)
        problems = [one.problem for one in accepted if one.problem is not None]
        assert not problems, problems[0]
        return [one.id for one in accepted]

    def _send(self, batch: Sequence[Submission]) -> list[Submitted]:
        return self.through.run(submit(self.keys, batch))

    def record(self, task_id: str) -> TaskRecord:
        found = self.run(inspector.get(self.keys, task_id))
        assert found is not None, f"{task_id} is unknown"
        return found

    def records(self, task_ids: Iterable[str]) -> list[TaskRecord]:
        return [self.record(task_id) for task_id in task_ids]

    def state(self, task_id: str) -> State:
        return self.record(task_id).state

    def states(self, task_ids: Iterable[str]) -> Counter[str]:
        """How many of these are in each state."""
        return Counter(str(self.state(task_id)) for task_id in task_ids)

    def size(self, queue: str, *states: State) -> int:
        """How many tasks of a queue stand in these states."""
        queue_keys = self.keys.queue(queue)
        return sum(
            int(self.connection.execute(Command("ZCARD", queue_keys.state(state)))) for state in states
        )

    def await_state(self, task_ids: Iterable[str], state: State, timeout: float = 30.0) -> None:
        """Wait until each of these exists and is in `state`, whatever happens to Redis meanwhile."""
        left = list(task_ids)

        def arrived(task_id: str) -> bool:
            found = self.run(inspector.get(self.keys, task_id))
            return found is not None and found.state is state

        def all_there() -> bool:
            with suppress(StoreUnavailable):
                left[:] = [task_id for task_id in left if not arrived(task_id)]
            return not left

        wait_until(all_there, timeout, f"all tasks to be {state}", poll=0.05)

    def await_end(self, task_ids: Iterable[str], timeout: float = 60.0) -> list[TaskRecord]:
        """Wait until each of these has ended, whatever happens to Redis meanwhile; their records."""
        left = list(task_ids)
        queues = {ids.queue_of(task_id) for task_id in left}
        wanted = len(left)

        def all_ended() -> bool:
            try:
                # First the sets, which are cheap to ask.
                if sum(self.size(queue, *TERMINAL) for queue in queues) < wanted:
                    return False
                return all(self.state(task_id).terminal for task_id in left)
            except StoreUnavailable:
                return False

        wait_until(all_ended, timeout, f"the end of {wanted} tasks", poll=0.1)
        return self.records(left)

    def faults(self) -> list[Fault]:
        """What the doctor finds: a broken invariant, wherever it is. Claims of dead workers are none."""
        return [fault for fault in Checkup(self.connection).faults() if fault.code != "stale-claim"]

    def workers(self) -> list[str]:
        """Ids of the workers that are present."""
        return [worker.id for worker in self.run(presence.read(self.keys))]

    def cancel(self, task_id: str, *, terminate: bool = False) -> bool:
        return self.through.run(control.cancel(self.keys, task_id, terminate=terminate)).done


def insist(call: Callable[[], T], patience: float, *, pause: float = 0.1) -> T:
    """What `call` gives, however often Redis is away, for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(pause)
