"""The record of a task that has just been accepted, without reading it back: a submit is one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callboard.records.record import TaskRecord
from callboard.records.state import State
from callboard.submit import Submission, Submitted


def record_of(submission: Submission, submitted: Submitted, payload: Mapping[str, Any]) -> TaskRecord:
    """What `inspector.get` would give right now. `submitted.created_at` must be there."""
    assert submitted.created_at is not None
    created = submitted.created_at
    pending = submitted.state is State.PENDING
    due = None
    if pending:
        due = created + submission.delay_ms if submission.delay_ms else submission.due_at_ms
    return TaskRecord(
        id=submitted.id,
        name=submission.name,
        queue=submission.queue,
        state=submitted.state,
        payload=payload,
        result=None,
        error=None,
        reason="delayed" if pending else None,
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
        created_at=created,
        due_at=due,
        queued_at=None if pending else created,
        started_at=None,
        finished_at=None,
        expires_at=created + submission.expires_in_ms if submission.expires_in_ms else None,
        cancel_requested_at=None,
        worker=None,
        parent_id=submission.parent_id or None,
        schedule_id=submission.schedule_id or None,
        workflow_run_id=None,
        resubmitted_from=submission.resubmitted_from or None,
        traceparent=submission.traceparent or None,
    )
