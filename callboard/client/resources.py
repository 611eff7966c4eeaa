"""What the API answers with, typed. Fields that a newer API adds stay readable in `document`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from callboard.client.faults import ApiUnreachable
from callboard.records.state import State


class Resource(BaseModel):
    """A JSON object of the API. `document` is the object itself, as it came."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    _document: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        return self._document

    @classmethod
    def read(cls, document: Any) -> Self:
        """Raises ApiUnreachable when `document` is not such an object: then no API of ours answered."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise ApiUnreachable(
                f"What answers there does not speak as Callboard's API does ({place}: {fault['msg']})."
            ) from error

    @model_validator(mode="wrap")
    @classmethod
    def _keep_document(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        resource = handler(value)
        if isinstance(value, dict):
            resource._document = value
        return resource


class TaskError(Resource):
    """Why an attempt failed. `traceback` is left out in lists."""

    type: str = ""
    message: str = ""
    traceback: str | None = None
    retryable: bool | None = None


class Attempt(Resource):
    """One attempt; `outcome` None while it runs."""

    number: int
    outcome: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    error: TaskError | None = None


class Interruption(Resource):
    """A claim that ended without spending an attempt."""

    at: datetime | None = None
    cause: str = ""
    worker: str | None = None


class Progress(Resource):
    """How far a body is, as it told."""

    current: float | None = None
    total: float | None = None
    message: str | None = None

    @property
    def percent(self) -> float | None:
        """0 to 100; None without a total. Computed here, for events carry only what the body told."""
        if self.current is None or not self.total or self.total < 0:
            return None
        return min(100.0, max(0.0, 100 * self.current / self.total))


class Task(Resource):
    """A task. In lists `payload`, `result` and `attempts` are absent unless they were included."""

    id: str
    name: str
    queue: str
    state: State
    payload: Any = None
    result: Any = None
    error: TaskError | None = None
    reason: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    attempts: tuple[Attempt, ...] = ()
    interruptions: tuple[Interruption, ...] = ()
    progress: Progress | None = None
    priority: int = 5
    owner: str = "default"
    fairness_key: str | None = None
    tags: tuple[str, ...] = ()
    unique_key: str | None = None
    created_at: datetime | None = None
    due_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    wait_ms: int | None = None
    run_ms: int | None = None
    worker: str | None = None
    parent_id: str | None = None
    schedule_id: str | None = None
    workflow_run_id: str | None = None
    resubmitted_from: str | None = None
    traceparent: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it stays as it is until somebody acts."""
        return self.state.terminal


class TaskPage(Resource):
    """Tasks, newest first. `complete` False: the scan stopped before it had seen all."""

    items: tuple[Task, ...]
    next_cursor: str | None = None
    scanned: int | None = None
    complete: bool = True


class BatchItem(Resource):
    """What became of one task of a batch: an id, or the problem met while it was stored."""

    index: int
    id: str | None = None
    state: State | None = None
    problem: Mapping[str, Any] | None = None


class LogLine(Resource):
    """One line of a task's log; `seq` counts from 1 over all attempts."""

    seq: int
    at: datetime
    attempt: int = 1
    level: str = "info"
    message: str = ""


class LogPage(Resource):
    """Lines, and the place to go on from."""

    items: tuple[LogLine, ...]
    next_after: int | None = None


class Scaling(Resource):
    """Pods that serve a queue: wanted, ready, the most that may be, and what keeps it from more."""

    desired: int
    ready: int
    max: int | None = None
    limited_by: str | None = None


class Queue(Resource):
    """A queue. `depth`: tasks by state; `scaling`: None outside a cluster."""

    name: str
    depth: Mapping[State, int] = {}
    paused: bool = False
    oldest_ready_age_seconds: float | None = None
    demand_slots: int | None = None
    scaling: Scaling | None = None


class Worker(Resource):
    """A living worker process; `tasks` are those that it runs."""

    id: str
    host: str = ""
    pid: int | None = None
    version: str = ""
    since: datetime | None = None
    queues: tuple[str, ...] = ()
    slots: int = 0
    busy: int = 0
    tasks: tuple[Mapping[str, Any], ...] = ()
    memory_bytes: int = 0
    draining: bool = False


class CatalogEntry(Resource):
    """A task name that can be submitted. `payload_schema` is the JSON Schema of its payload."""

    name: str
    queue: str

    @property
    def payload_schema(self) -> Mapping[str, Any]:
        found = self.document.get("schema")
        return found if isinstance(found, dict) else {}


class Event(Resource):
    """One event. `cursor` resumes a stream after it; None for an event without one."""

    type: str
    at: datetime | None = None
    id: str | None = None
    name: str | None = None
    queue: str | None = None
    state: str | None = None
    attempt: int | None = None
    owner: str | None = None
    reason: str | None = None
    progress: Progress | None = None
    cursor: str | None = None

    @property
    def ends_task(self) -> bool:
        """Whether its task has ended with it."""
        return self.type.startswith("task.") and self.state in ("completed", "failed", "cancelled")
