"""The table of all endpoints: what is served, and what openapi.json says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from callboard.events.stream import TYPES
from callboard.records.record import INCLUDABLE
from callboard.records.state import State
from callboard_api.routes import catalog, events, probes, queues, tasks, workers
from callboard_api.routing import EVENTS, HTML, Body, Endpoint, Outcome, Parameter
from callboard_api.schemas.body import BATCH_BYTES

_TIME = {"type": "string", "format": "date-time"}
_LOCATION = {"Location": "The task's path."}
_AFTER = Parameter("after", "The id of an event to go on after; the header Last-Event-ID wins.")
_LAST_EVENT = Parameter("Last-Event-ID", "Sent by browsers when they connect again.")
_PREFER = Parameter(
    "Prefer", "`wait=N`: answer when the task has ended, after N seconds (at most 50) at the latest."
)
_TRACE = Parameter("traceparent", "W3C trace context; kept with the task.")
_STREAM_NOTE = (
    "Begins with `retry:`; `: ping` every 15 s. Each event has an `id:`, an opaque cursor from which any "
    "stream resumes within the kept window, each event at least once. A reader that lets 1,000 events wait "
    "is dropped."
)

TABLE: Final[Sequence[Endpoint]] = (
    Endpoint(
        "POST", "/v1/tasks", tasks.submit, "tasks", "Submit a task", "submit",
        {
            202: Outcome("Accepted, and readable from now on.", "Task", _LOCATION),
            200: Outcome("With `Prefer: wait`: it has ended, well or not.", "Task", _LOCATION),
        },
        headers=(_PREFER, _TRACE),
        body=Body("Submit"),
        problems=("unknown-task", "unknown-queue", "invalid-payload", "queue-full", "store-full"),
    ),
    Endpoint(
        "POST", "/v1/tasks/batch", tasks.submit_batch, "tasks", "Submit up to 1,000 tasks", "submit",
        {202: Outcome("What became of each, in order.", "BatchAnswer")},
        "Checked whole: one bad task refuses the batch and `errors` names each. An item of the answer has a "
        "`problem` only for what was met while storing it; the batch is not all or nothing.",
        headers=(_TRACE,),
        body=Body("Batch", BATCH_BYTES),
        problems=("unknown-task", "unknown-queue", "invalid-payload"),
    ),
    Endpoint(
        "GET", "/v1/tasks", tasks.tasks, "tasks", "List tasks, newest first", "read",
        {200: Outcome("A page.", "TaskPage")},
        "State, queue and time are indexed. With name, tag, owner or q the newest 50,000 are looked at; "
        "`complete` and `scanned` say so.",
        query=(
            Parameter("state", "Any of these.", {"enum": [str(state) for state in State]}, many=True),
            Parameter("queue", "Any of these.", many=True),
            Parameter("name", "The task's name."),
            Parameter("tag", "One of its tags."),
            Parameter("owner", "Its owner."),
            Parameter("created_after", "At or after this time.", _TIME),
            Parameter("created_before", "Before this time.", _TIME),
            Parameter("q", "Looked for in id, name, payload and tags, case ignored."),
            Parameter(
                "include",
                "What lists leave out otherwise, separated by commas: payload, result, attempts.",
                {"type": "string", "examples": [",".join(sorted(INCLUDABLE))]},
                many=True,
            ),
            Parameter(
                "limit", "Items on a page.",
                {"type": "integer", "minimum": 1, "maximum": tasks.MOST_IN_PAGE, "default": tasks.PAGE},
            ),
            Parameter("cursor", "The `next_cursor` of the page before."),
        ),
    ),
    Endpoint(
        "GET", "/v1/tasks/{id}", tasks.task, "tasks", "Look at a task", "read",
        {
            200: Outcome("The task.", "Task", {"ETag": "For If-None-Match."}),
            202: Outcome("With `Prefer: wait`: it has not ended yet.", "Task"),
            304: Outcome("It is as If-None-Match says."),
        },
        headers=(_PREFER, Parameter("If-None-Match", "The ETag of an earlier answer.")),
        problems=("not-found",),
    ),
    Endpoint(
        "DELETE", "/v1/tasks/{id}", tasks.delete, "tasks", "Delete a task that has ended", "operate",
        {204: Outcome("Record, log and result are gone.")},
        problems=("not-found", "conflict-state"),
    ),
    Endpoint(
        "GET", "/v1/tasks/{id}/logs", tasks.logs, "tasks", "Read a task's log", "read",
        {200: Outcome("Lines, oldest first.", "LogPage")},
        query=(
            Parameter(
                "after", "Lines with a `seq` above this.", {"type": "integer", "minimum": 0, "default": 0}
            ),
            Parameter(
                "limit", "Lines at most.",
                {"type": "integer", "minimum": 1, "maximum": tasks.MOST_LINES, "default": tasks.MOST_LINES},
            ),
        ),
        problems=("not-found",),
    ),
    Endpoint(
        "GET", "/v1/tasks/{id}/events", events.task_events, "events", "Follow a task", "read",
        {
            200: Outcome("Server-sent events, up to the one that ends the task.", "Event"),
            204: Outcome("The task has ended, and the client has heard of it."),
        },
        "A `task.snapshot` first, unless the stream resumes. " + _STREAM_NOTE,
        query=(_AFTER,), headers=(_LAST_EVENT,), problems=("not-found",), media_type=EVENTS,
    ),
    Endpoint(
        "POST", "/v1/tasks/{id}/cancel", tasks.cancel, "tasks", "Cancel a task", "operate",
        {
            200: Outcome("It is cancelled.", "Task"),
            202: Outcome("It runs and has been asked to stop.", "Task"),
        },
        body=Body("Cancel", required=False),
        problems=("not-found", "conflict-state"),
    ),
    Endpoint(
        "POST", "/v1/tasks/{id}/retry", tasks.retry, "tasks", "Queue a failed or cancelled task again",
        "operate",
        {202: Outcome("The same id; as many more attempts as the task's contract has.", "Task", _LOCATION)},
        body=Body("Nothing", required=False),
        problems=("not-found", "conflict-state"),
    ),
    Endpoint(
        "POST", "/v1/tasks/{id}/resubmit", tasks.resubmit, "tasks", "Submit a task like this one", "submit",
        {202: Outcome("The new task; `resubmitted_from` names the old one.", "Task", _LOCATION)},
        body=Body("Resubmit", required=False),
        problems=(
            "not-found", "unknown-task", "unknown-queue", "invalid-payload", "queue-full", "store-full",
        ),
    ),
    Endpoint(
        "GET", "/v1/queues", queues.queues, "queues", "List queues", "read",
        {200: Outcome("Every queue.", "QueueList")},
    ),
    Endpoint(
        "GET", "/v1/queues/{queue}", queues.queue, "queues", "Look at a queue", "read",
        {200: Outcome("The queue.", "Queue")},
        problems=("not-found",),
    ),
    Endpoint(
        "POST", "/v1/queues/{queue}/pause", queues.pause, "queues", "Pause a queue", "operate",
        {200: Outcome("The queue: what runs ends, nothing new starts, submits are accepted.", "Queue")},
        body=Body("Nothing", required=False),
        problems=("not-found",),
    ),
    Endpoint(
        "POST", "/v1/queues/{queue}/resume", queues.resume, "queues", "Resume a queue", "operate",
        {200: Outcome("The queue.", "Queue")},
        body=Body("Nothing", required=False),
        problems=("not-found",),
    ),
    Endpoint(
        "POST", "/v1/queues/{queue}/purge", queues.purge, "queues", "Drop all tasks of one state", "operate",
        {200: Outcome("How many there were.", "Purged")},
        body=Body("Purge"),
        problems=("not-found", "conflict-state"),
    ),
    Endpoint(
        "GET", "/v1/workers", workers.workers, "workers", "List the living workers", "read",
        {200: Outcome("Every worker.", "WorkerList")},
    ),
    Endpoint(
        "GET", "/v1/catalog", catalog.entries, "catalog", "List the tasks that can be submitted", "read",
        {200: Outcome("What workers have published.", "CatalogList")},
    ),
    Endpoint(
        "GET", "/v1/catalog/{name}", catalog.entry, "catalog", "Look at one of them", "read",
        {200: Outcome("Queue, JSON Schema, limits.", "CatalogEntry")},
        problems=("not-found",),
    ),
    Endpoint(
        "GET", "/v1/events", events.events, "events", "Follow everything", "read",
        {200: Outcome("Server-sent events of all that the key may see.", "Event")},
        "When the place to resume from is no longer kept, a `stream.reset` comes first. " + _STREAM_NOTE,
        query=(
            Parameter("queue", "Any of these.", many=True),
            Parameter("name", "Any of these.", many=True),
            Parameter("tag", "Tasks with this tag."),
            Parameter("type", "Any of these, separated by commas.",
                      {"type": "string", "examples": [",".join(sorted(TYPES.values())[-2:])]}, many=True),
            _AFTER,
        ),
        headers=(_LAST_EVENT,), media_type=EVENTS,
    ),
    Endpoint(
        "GET", "/livez", probes.livez, "probes", "Whether the process lives", None,
        {200: Outcome("It does.", "Status")},
    ),
    Endpoint(
        "GET", "/readyz", probes.readyz, "probes", "Whether it can serve", None,
        {200: Outcome("Redis answers.", "Status")},
    ),
    Endpoint(
        "GET", "/openapi.json", probes.openapi, "probes", "This description", None,
        {200: Outcome("OpenAPI 3.1.")},
    ),
    Endpoint(
        "GET", "/docs", probes.docs, "probes", "This description as a page", None,
        {200: Outcome("A page without scripts.")},
        media_type=HTML,
    ),
)  # fmt: skip
