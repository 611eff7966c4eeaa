"""JSON Schemas of what the API gives and takes: the components of openapi.json, held to by tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from callboard.events.stream import TYPES
from callboard.inspector.scaling import PRECEDENCE
from callboard.records.state import State
from callboard.submit import LONGEST_DELAY_MS
from callboard_api.problems import KINDS
from callboard_api.schemas.submission import (
    LONGEST_KEY,
    LONGEST_NAME,
    LONGEST_TAG,
    MOST_ATTEMPTS,
    MOST_TAGS,
)

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
FLAG: Final[Schema] = {"type": "boolean"}
STATE: Final[Schema] = {"enum": [str(state) for state in State]}
_CURSOR: Final[Schema] = {"type": ["string", "null"], "description": "For the next page; null at the end."}
_LONGEST_SECONDS: Final = LONGEST_DELAY_MS / 1000


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema or "enum" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, optional: tuple[str, ...] = (), description: str = "") -> Schema:
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if description:
        schema["description"] = description
    return schema


def _list(item: Schema, **more: Schema) -> Schema:
    return _object({"items": {"type": "array", "items": item}, **more})


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


_ERROR = _object(
    {"type": TEXT, "message": TEXT, "traceback": TEXT, "retryable": FLAG},
    optional=("type", "message", "traceback", "retryable"),
)
_PROGRESS = _object(
    {
        "current": _or_null(NUMBER),
        "total": _or_null(NUMBER),
        "percent": _or_null(NUMBER),
        "message": _or_null(TEXT),
    }
)
_ATTEMPT = _object(
    {
        "number": COUNT,
        "outcome": _described(
            _or_null(TEXT),
            "completed, failed, lost, timeout, memory, crashed or cancelled; null while it runs.",
        ),
        "started_at": TIME,
        "finished_at": _or_null(TIME),
        "worker": _or_null(TEXT),
        "error": _or_null(_ref("TaskError")),
    }
)  # fmt: skip
_SPREAD = _or_null(_object({"p50": NUMBER, "p95": NUMBER, "p99": NUMBER}))

_TASK = _object(
    {
        "id": _described(TEXT, "Opaque; it names the task's queue."),
        "name": TEXT,
        "queue": TEXT,
        "state": STATE,
        "payload": _described({}, "In lists with include=payload alone."),
        "result": _described({}, "What the body returned. In lists with include=result alone."),
        "error": _described(
            _or_null(_ref("TaskError")), "Of the last attempt, once the task has ended badly."
        ),
        "reason": _described(_or_null(TEXT), "Why it is in this state, in a word."),
        "attempt": COUNT,
        "max_attempts": _described(_or_null(COUNT), "Retries and the first attempt; null: endless."),
        "attempts": {"type": "array", "items": _ref("Attempt"), "description": "The last 20."},
        "interruptions": {
            "type": "array",
            "items": _object({"at": TIME, "cause": TEXT, "worker": _or_null(TEXT)}),
            "description": "Claims that ended without spending an attempt; the last 20.",
        },
        "progress": _or_null(_PROGRESS),
        "priority": {"type": "integer", "minimum": 0, "maximum": 9, "description": "0 is first."},
        "owner": TEXT,
        "fairness_key": TEXT,
        "tags": {"type": "array", "items": TEXT},
        "unique_key": _or_null(TEXT),
        "created_at": TIME,
        "due_at": _or_null(TIME),
        "queued_at": _or_null(TIME),
        "started_at": _or_null(TIME),
        "finished_at": _or_null(TIME),
        "expires_at": _or_null(TIME),
        "cancel_requested_at": _or_null(TIME),
        "wait_ms": _described(_or_null(COUNT), "From due or created to the first start."),
        "run_ms": _described(_or_null(COUNT), "Of the last attempt that has ended."),
        "worker": _or_null(TEXT),
        "parent_id": _or_null(TEXT),
        "schedule_id": _or_null(TEXT),
        "workflow_run_id": _or_null(TEXT),
        "resubmitted_from": _or_null(TEXT),
        "traceparent": _or_null(TEXT),
    },
    optional=("payload", "result", "attempts", "interruptions"),
)

_OPTIONS: Final[Schema] = {
    "payload": {"type": "object", "description": "Fits the task's schema in the catalog; at most 256 KiB."},
    "queue": _described(_or_null(TEXT), "Instead of the task's own; a known one."),
    "delay_seconds": _or_null({"type": "number", "minimum": 0, "maximum": _LONGEST_SECONDS}),
    "run_at": _described(_or_null(TIME), "Instead of delay_seconds; at most ten years ahead."),
    "priority": _or_null({"type": "integer", "minimum": 0, "maximum": 9, "description": "0 is first."}),
    "fairness_key": _or_null({"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}),
    "tags": _or_null(
        {
            "type": "array",
            "maxItems": MOST_TAGS,
            "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_TAG},
        }
    ),
    "expires_in_seconds": _described(
        _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST_SECONDS}),
        "Not started later than this after the submit; then it is cancelled, reason expired.",
    ),
    "max_attempts": _described(
        _or_null({"type": "integer", "minimum": 1, "maximum": MOST_ATTEMPTS}),
        "Instead of the task's own; null is endless.",
    ),
}


def _closed(schema: Schema) -> Schema:
    return {**schema, "additionalProperties": False}


SCHEMAS: Final[Mapping[str, Schema]] = {
    "Task": _TASK,
    "Attempt": _ATTEMPT,
    "TaskError": _ERROR,
    "TaskPage": _object(
        {
            "items": {"type": "array", "items": _ref("Task")},
            "next_cursor": _CURSOR,
            "complete": _described(FLAG, "False: only the newest 50,000 tasks were looked at."),
            "scanned": _described(COUNT, "Tasks that were looked at for filters that no index serves."),
        },
        optional=("scanned",),
    ),
    "Submit": _closed(
        _object(
            {"name": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}, **_OPTIONS},
            optional=tuple(_OPTIONS),
        )
    ),
    "Resubmit": _closed(
        _object(_OPTIONS, tuple(_OPTIONS), "What differs from the old task; nothing is needed.")
    ),
    "Batch": _closed(
        _object({"tasks": {"type": "array", "minItems": 1, "maxItems": 1000, "items": _ref("Submit")}})
    ),
    "BatchAnswer": _list(
        {
            "anyOf": [
                _object({"index": COUNT, "id": TEXT, "state": STATE}),
                _object({"index": COUNT, "problem": _ref("Problem")}),
            ]
        }
    ),
    "Cancel": _closed(
        _object({"terminate": _described(FLAG, "Kill a running body instead of asking it.")}, ("terminate",))
    ),
    "Nothing": _closed(_object({}, description="An empty object, or no body.")),
    "Purge": _closed(_object({"state": {"enum": [str(s) for s in State if s is not State.RUNNING]}})),
    "Purged": _object({"queue": TEXT, "state": STATE, "purged": COUNT}),
    "LogPage": _object(
        {
            "items": {
                "type": "array",
                "items": _object(
                    {"seq": COUNT, "at": TIME, "attempt": COUNT, "level": TEXT, "message": TEXT}
                ),
            },
            "next_after": _described(COUNT, "Goes on from here, now or when there is more."),
            "dropped": _described(COUNT, "Lines that the log had no room for."),
        }
    ),
    "Queue": _object(
        {
            "name": TEXT,
            "depth": {
                "type": "object",
                "properties": {str(state): COUNT for state in State},
                "required": [str(state) for state in State],
                "additionalProperties": False,
            },
            "oldest_ready_age_seconds": _or_null(NUMBER),
            "paused": FLAG,
            "wait_ms": _SPREAD,
            "run_ms": _SPREAD,
            "mean_run_ms": _or_null(NUMBER),
            "throughput_per_second": NUMBER,
            "finished": COUNT,
            "failed": COUNT,
            "window_minutes": _described(COUNT, "What the last six fields look back on."),
            "limits": {},
            "slots": _object({"busy": COUNT, "total": COUNT}),
            "workers": COUNT,
            "demand_slots": COUNT,
            "scaling": _described(
                _or_null(
                    _object(
                        {
                            "desired": COUNT,
                            "ready": COUNT,
                            "max": _or_null(COUNT),
                            "limited_by": _or_null({"enum": list(PRECEDENCE)}),
                        }
                    )
                ),
                "Of its workers' pods, where the API runs in the same Kubernetes cluster.",
            ),
        }
    ),
    "QueueList": _list(_ref("Queue"), next_cursor=_CURSOR),
    "Worker": _object(
        {
            "id": TEXT,
            "host": TEXT,
            "pid": COUNT,
            "version": TEXT,
            "since": TIME,
            "queues": {"type": "array", "items": TEXT},
            "slots": COUNT,
            "busy": COUNT,
            "tasks": {"type": "array", "items": {"type": "object"}},
            "memory_bytes": COUNT,
            "draining": FLAG,
        }
    ),
    "WorkerList": _list(_ref("Worker"), next_cursor=_CURSOR),
    "CatalogEntry": _object(
        {
            "name": TEXT,
            "queue": TEXT,
            "description": TEXT,
            "schema": {"type": "object", "description": "The JSON Schema of the payload."},
            "priority": COUNT,
            "retries": _or_null(COUNT),
            "max_attempts": _or_null(COUNT),
            "tags": {"type": "array", "items": TEXT},
            "limits": {"type": "object"},
            "is_async": FLAG,
            "version": TEXT,
            "digest": TEXT,
            "published_at": TIME,
            "published_by": TEXT,
            "seen_at": TIME,
        }
    ),
    "CatalogList": _list(_ref("CatalogEntry"), next_cursor=_CURSOR),
    "Event": _object(
        {
            "type": {"enum": [*TYPES.values(), "task.snapshot", "stream.reset"]},
            "at": TIME,
            "id": _described(_or_null(TEXT), "The task's; null for an event of a queue or worker."),
            "name": _or_null(TEXT),
            "queue": TEXT,
            "state": _or_null(TEXT),
            "attempt": COUNT,
            "owner": _or_null(TEXT),
            "reason": TEXT,
            "progress": _PROGRESS,
            "oldest": _described(_or_null(TIME), "Of stream.reset alone: the oldest event that is kept."),
        },
        optional=("id", "name", "queue", "state", "attempt", "owner", "reason", "progress", "oldest"),
        description="The data of one server-sent event.",
    ),
    "Status": _object({"status": TEXT}),
    "Problem": _object(
        {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "instance": _described(TEXT, "urn:request: and the X-Request-Id."),
            "code": {"enum": list(KINDS)},
            "errors": {
                "type": "array",
                "items": _object(
                    {"pointer": _described(TEXT, "A JSON pointer into the body, or ? and a parameter."),
                     "detail": TEXT, "code": TEXT}
                ),
            },
            "state": _described(STATE, "Of conflict-state: what the task is."),
        },
        optional=("instance", "errors", "state"),
        description="RFC 9457.",
    ),
}  # fmt: skip
