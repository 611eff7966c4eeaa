"""The record of a task, as the doors give it, and the API's task resource made from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from callboard.clock import rfc3339
from callboard.events import progress
from callboard.records import layout
from callboard.records.state import State

#: Parts that lists leave out unless they are asked for.
INCLUDABLE = frozenset({"payload", "result", "attempts"})
#: Attempts and interruptions shown; the newest.
HISTORY_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished (or the running) attempt. `outcome` None while it runs; times in ms since 1970."""

    number: int
    outcome: str | None
    started_at: int
    finished_at: int | None
    worker: str | None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interruption:
    """A claim that ended without spending an attempt: a shutdown, a snooze, a lease that expired."""

    at: int
    cause: str
    worker: str | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task. Times are ms since 1970 or None; `max_attempts` None: endless.

    `payload` and `result` are decoded JSON. A Dramatiq message's payload is its keyword arguments, or
    {"args": […], "kwargs": {…}} when it has positional ones.
    """

    id: str
    name: str
    queue: str
    state: State
    payload: Any
    result: Any
    error: Mapping[str, Any] | None
    reason: str | None
    attempt: int
    max_attempts: int | None
    attempts: tuple[Attempt, ...]
    interruptions: tuple[Interruption, ...]
    progress: Mapping[str, Any] | None
    priority: int
    owner: str
    fairness_key: str
    tags: tuple[str, ...]
    unique_key: str | None
    created_at: int
    due_at: int | None
    queued_at: int | None
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    cancel_requested_at: int | None
    worker: str | None
    parent_id: str | None
    schedule_id: str | None
    workflow_run_id: str | None
    resubmitted_from: str | None
    traceparent: str | None
    wait_ms: int | None = None
    log_lines: int = 0

    @property
    def run_ms(self) -> int | None:
        """The last attempt's run; None while none has ended."""
        if self.state.terminal and self.started_at and self.finished_at:
            return max(0, self.finished_at - self.started_at)
        ended = [attempt for attempt in self.attempts if attempt.finished_at is not None]
        return max(0, (ended[-1].finished_at or 0) - ended[-1].started_at) if ended else None

    def to_json(self, include: Collection[str] = INCLUDABLE) -> dict[str, Any]:
        """The task resource of the HTTP API, with the `include`d parts of INCLUDABLE."""
        shown: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "queue": self.queue,
            "state": str(self.state),
            "payload": self.payload,
            "result": self.result,
            "error": self.error,
            "reason": self.reason,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "attempts": [
                {
                    "number": attempt.number,
                    "outcome": attempt.outcome,
                    "started_at": _time(attempt.started_at),
                    "finished_at": _time(attempt.finished_at),
                    "worker": attempt.worker,
                    "error": attempt.error,
                }
                for attempt in self.attempts
            ],
            "interruptions": [
                {"at": _time(stop.at), "cause": stop.cause, "worker": stop.worker}
                for stop in self.interruptions
            ],
            "progress": self.progress,
            "priority": self.priority,
            "owner": self.owner,
            "fairness_key": self.fairness_key,
            "tags": list(self.tags),
            "unique_key": self.unique_key,
            "created_at": _time(self.created_at),
            "due_at": _time(self.due_at),
            "queued_at": _time(self.queued_at),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "expires_at": _time(self.expires_at),
            "cancel_requested_at": _time(self.cancel_requested_at),
            "wait_ms": self.wait_ms,
            "run_ms": self.run_ms,
            "worker": self.worker,
            "parent_id": self.parent_id,
            "schedule_id": self.schedule_id,
            "workflow_run_id": self.workflow_run_id,
            "resubmitted_from": self.resubmitted_from,
            "traceparent": self.traceparent,
        }
        for part in INCLUDABLE - set(include):
            del shown[part]
        if "attempts" not in include:
            del shown["interruptions"]
            if shown["error"]:
                shown["error"] = {k: v for k, v in shown["error"].items() if k != "traceback"}
        return shown


def build(
    task_id: str, queue: str, mutable: bytes, immutable: bytes | None, history: bytes | None = None
) -> TaskRecord:
    """The record from its stored parts; `history` None leaves attempts and result out.

    Raises UndecodableRecord for parts of a version that this one cannot read.
    """
    m = layout.Mutable.unpack(mutable)
    i = layout.Immutable.unpack(immutable) if immutable else layout.Immutable()
    entries, stops, result = layout.history(history)
    state = State(m.state.decode())
    attempts = [
        Attempt(e.number, e.outcome, e.started, e.finished, e.worker or None, _json(e.error)) for e in entries
    ]
    worker = m.worker.decode() or None
    if state is State.RUNNING:
        attempts.append(Attempt(m.attempt, None, m.started, None, worker))
    elif state is State.COMPLETED:
        attempts.append(Attempt(m.attempt, "completed", m.started, m.finished, worker))
    ends_badly = state in (State.FAILED, State.CANCELLED)
    last_error = attempts[-1].error if attempts and ends_badly else None
    return TaskRecord(
        id=task_id,
        name=m.name.decode(),
        queue=queue,
        state=state,
        payload=_payload(i),
        result=_json(result),
        error=last_error,
        reason=m.reason.decode() or None,
        attempt=m.attempt,
        max_attempts=None if m.max_attempts < 0 else m.max_attempts,
        attempts=tuple(attempts[-HISTORY_LIMIT:]),
        interruptions=tuple(Interruption(s.at, s.cause, s.worker or None) for s in stops[-HISTORY_LIMIT:]),
        progress=progress.shown(m.progress),
        priority=m.priority,
        owner=m.owner.decode(),
        fairness_key=m.fairness_key.decode(),
        tags=tuple(i.tags),
        unique_key=i.unique_key or None,
        created_at=m.created,
        due_at=m.due or None,
        queued_at=m.queued or None,
        started_at=m.started or None,
        finished_at=m.finished or None,
        expires_at=m.expires or None,
        cancel_requested_at=m.cancel or None,
        worker=worker if state is State.RUNNING or state.terminal else None,
        parent_id=i.parent_id or None,
        schedule_id=i.schedule_id or None,
        workflow_run_id=i.workflow_run_id or None,
        resubmitted_from=i.resubmitted_from or None,
        traceparent=i.traceparent or None,
        wait_ms=max(0, m.wait) if m.wait >= 0 else None,
        log_lines=m.log_lines,
    )


def unreadable(task_id: str, queue: str, fault: Exception) -> TaskRecord:
    """Stands for a record that cannot be decoded, so that looking and listing still work."""
    return TaskRecord(
        id=task_id,
        name="unknown",
        queue=queue,
        state=State.FAILED,
        payload=None,
        result=None,
        error={"type": "UndecodableRecord", "message": str(fault), "traceback": "", "retryable": False},
        reason="permanent",
        attempt=0,
        max_attempts=None,
        attempts=(),
        interruptions=(),
        progress=None,
        priority=5,
        owner="default",
        fairness_key="default",
        tags=(),
        unique_key=None,
        created_at=0,
        due_at=None,
        queued_at=None,
        started_at=None,
        finished_at=None,
        expires_at=None,
        cancel_requested_at=None,
        worker=None,
        parent_id=None,
        schedule_id=None,
        workflow_run_id=None,
        resubmitted_from=None,
        traceparent=None,
    )


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _json(raw: bytes | None) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return {"undecodable": raw[:200].decode("utf-8", "replace")}


def _payload(i: layout.Immutable) -> Any:
    if not i.message:
        return _json(i.payload)
    fields = _json(i.message)
    if not isinstance(fields, dict) or "kwargs" not in fields:
        return {"undecodable": "a Dramatiq message in an encoding other than JSON"}
    if fields.get("args"):
        return {"args": fields["args"], "kwargs": fields["kwargs"]}
    return fields["kwargs"]
