"""A task that lives in the test's own process: its handle, and its record as the door would make it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from callboard import clock
from callboard.errors import IllegalTransition, TaskFailed, WaitTimeout
from callboard.handle import TaskHandle
from callboard.records import State, TaskRecord, new_id
from callboard.records.log import LogLine
from callboard.submit import Submission


class LocalHandle(TaskHandle):
    """A TaskHandle whose task lives in this process. With `recording` it stays queued for ever."""

    def __init__(self, record: TaskRecord) -> None:
        super().__init__(record.id)
        self.known = record
        self.lines: list[LogLine] = []
        self.error: BaseException | None = None

    def record(self) -> TaskRecord:
        return self.known

    async def arecord(self) -> TaskRecord:
        return self.known

    def logs(self, after: int = 0) -> list[LogLine]:
        return self.lines[after:]

    async def alogs(self, after: int = 0) -> list[LogLine]:
        return self.lines[after:]

    def cancel(self, *, terminate: bool = False) -> bool:
        """Cancel a recorded task. Raises IllegalTransition for one that has ended."""
        state = self.known.state
        if state in (State.COMPLETED, State.FAILED):
            raise IllegalTransition(f"Task {self.id!r} is {state}; it cannot be cancelled.", state=str(state))
        self.known = replace(self.known, state=State.CANCELLED, reason="cancelled")
        return True

    async def acancel(self, *, terminate: bool = False) -> bool:
        return self.cancel(terminate=terminate)

    def wait(self, timeout: float | None = None) -> TaskRecord:
        """The record; raises WaitTimeout at once for a task that was only recorded."""
        if not self.known.state.terminal:
            raise WaitTimeout(f"Task {self.id!r} was recorded, not run: use callboard.testing.eager().")
        return self.known

    async def await_end(self, timeout: float | None = None) -> TaskRecord:
        return self.wait(timeout)

    def result(self, timeout: float | None = None) -> Any:
        """What the body returned, as JSON gives it back; TaskFailed is caused by the body's exception."""
        try:
            return super().result(timeout)
        except TaskFailed as error:
            raise error from self.error

    async def aresult(self, timeout: float | None = None) -> Any:
        return self.result(timeout)


def accepted(submission: Submission) -> TaskRecord:
    """The record of a task that has just been submitted."""
    now = clock.now_ms()
    due = submission.due_at_ms or (now + submission.delay_ms if submission.delay_ms else None)
    return TaskRecord(
        id=submission.task_id or new_id(submission.queue),
        name=submission.name,
        queue=submission.queue,
        state=State.PENDING if due else State.QUEUED,
        payload=json.loads(submission.payload) if isinstance(submission.payload, bytes) else None,
        result=None,
        error=None,
        reason="delayed" if due else None,
        attempt=0,
        max_attempts=submission.max_attempts,
        attempts=(),
        interruptions=(),
        progress=None,
        priority=submission.priority,
        owner=submission.owner,
        fairness_key=submission.fairness_key or submission.owner,
        tags=tuple(submission.tags),
        unique_key=None,
        created_at=now,
        due_at=due,
        queued_at=None if due else now,
        started_at=None,
        finished_at=None,
        expires_at=now + submission.expires_in_ms if submission.expires_in_ms else None,
        cancel_requested_at=None,
        worker=None,
        parent_id=submission.parent_id or None,
        schedule_id=submission.schedule_id or None,
        workflow_run_id=None,
        resubmitted_from=submission.resubmitted_from or None,
        traceparent=submission.traceparent or None,
    )
