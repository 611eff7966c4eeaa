"""Every operation of the API, once: as exchanges that `Client` blocks on and `AsyncClient` awaits.

All raise RequestRefused when the API refuses, and ApiUnreachable when it does not answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from callboard import clock
from callboard.client.exchange import READ_SECONDS, Call, Exchange, Pause, ask, document
from callboard.client.faults import ApiUnreachable
from callboard.client.resources import (
    BatchItem,
    CatalogEntry,
    LogPage,
    Queue,
    Task,
    TaskPage,
    Worker,
)
from callboard.errors import Invalid, WaitTimeout
from callboard.records.state import State

#: Tasks in one page, by the API's rule.
PAGE = 200
#: One long poll, by the API's rule.
LONGEST_POLL_SECONDS = 50
#: The cursor of somebody who has seen nothing: a stream after it begins with the oldest kept event.
OLDEST: Final = "c1.WzAse31d"
#: A wait sits out an API that is away for so long.
WAIT_PATIENCE_SECONDS = 60.0
_IMPATIENT_SERVER_PAUSE_SECONDS = 1.0
#: A purge answers when the last task has gone.
_PURGE_SECONDS = 600.0

Params = tuple[tuple[str, str], ...]


class _Default:
    """The type of DEFAULT, so that it prints as what it means."""

    def __repr__(self) -> str:
        return "DEFAULT"


#: Stands for "as the task's contract says", where None means "endless".
DEFAULT: Final = _Default()


def submit(
    name: str,
    payload: Mapping[str, Any] | None = None,
    *,
    queue: str | None = None,
    delay_seconds: float | None = None,
    run_at: datetime | None = None,
    priority: int | None = None,
    fairness_key: str | None = None,
    tags: Sequence[str] = (),
    expires_in_seconds: float | None = None,
    max_attempts: int | _Default | None = DEFAULT,
) -> Exchange[Task]:
    """Submit a task; as it was accepted.

    Unset options follow the task's contract; `max_attempts` None is endless. `priority` 0 (first) to 9.
    `run_at` is aware of its time zone. Not repeated when the answer is lost: it may have been accepted.
    """
    body: dict[str, Any] = {"name": name, "payload": dict(payload or {})}
    given = {
        "queue": queue,
        "delay_seconds": delay_seconds,
        "run_at": None if run_at is None else _time("run_at", run_at),
        "priority": priority,
        "fairness_key": fairness_key,
        "tags": list(tags) or None,
        "expires_in_seconds": expires_in_seconds,
    }
    body |= {field: value for field, value in given.items() if value is not None}
    if not isinstance(max_attempts, _Default):
        body["max_attempts"] = max_attempts
    return Task.read(document((yield from ask(Call("POST", "/v1/tasks", body=body)))))


def submit_batch(tasks: Sequence[Mapping[str, Any]]) -> Exchange[list[BatchItem]]:
    """Submit 1 to 1000 tasks, each a body as `POST /v1/tasks` takes it; what became of each, in order.

    One bad task refuses the whole batch; a `problem` in the answer is one met while storing.
    """
    call = Call("POST", "/v1/tasks/batch", body={"tasks": [dict(task) for task in tasks]})
    return [BatchItem.read(item) for item in _items((yield from _json(call)))]


def task(task_id: str) -> Exchange[Task]:
    """One task, whole."""
    return Task.read((yield from _get(_task_path(task_id))))


def wait(task_id: str, timeout_seconds: float | None = None) -> Exchange[Task]:
    """The task once it has ended, however it did.

    An API that is away for a while (a restart) is waited out. Raises WaitTimeout; the task goes on then.
    """
    deadline = math.inf if timeout_seconds is None else clock.monotonic() + timeout_seconds
    while True:
        left = deadline - clock.monotonic()
        poll = math.ceil(min(LONGEST_POLL_SECONDS, left)) if left > 0 else 0
        call = Call(
            "GET",
            _task_path(task_id),
            headers={"Prefer": f"wait={poll}"} if poll else {},
            repeatable=True,
            read_seconds=READ_SECONDS + poll,
            patience_seconds=max(0.0, min(WAIT_PATIENCE_SECONDS, left)),
        )
        began = clock.monotonic()
        reply = yield from ask(call)
        found = Task.read(document(reply))
        if found.ended:
            return found
        if not poll:
            given = f"{round(timeout_seconds or 0, 3):g} s"
            raise WaitTimeout(
                f"Task {task_id} has not ended within {given}; it is {found.state} and goes on."
            )
        # A proxy may drop the preference; then this loop must not spin.
        if "preference-applied" not in reply.headers and clock.monotonic() - began < 1:
            yield Pause(min(_IMPATIENT_SERVER_PAUSE_SECONDS, max(0.0, deadline - clock.monotonic())))


def tasks(
    *,
    states: Iterable[State | str] = (),
    queue: str | None = None,
    name: str | None = None,
    tag: str | None = None,
    owner: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    q: str | None = None,
    include: Iterable[str] = (),
    limit: int = 50,
    cursor: str | None = None,
) -> Exchange[TaskPage]:
    """Up to `limit` tasks, newest first, in as many requests as that takes.

    `q` is looked for in id, name, payload and tags. `include`: any of payload, result, attempts.
    """
    params = _filled(
        queue=queue,
        name=name,
        tag=tag,
        owner=owner,
        created_after=None if created_after is None else _time("created_after", created_after),
        created_before=None if created_before is None else _time("created_before", created_before),
        q=q,
        include=",".join(include) or None,
    )
    params += tuple(("state", str(state)) for state in states)
    merged: dict[str, Any] = {"items": [], "next_cursor": cursor}
    while True:
        place = _filled(limit=str(min(PAGE, limit - len(merged["items"]))), cursor=merged["next_cursor"])
        page = yield from _get("/v1/tasks", params + place)
        merged = {**page, "items": merged["items"] + _items(page)}
        if not merged.get("next_cursor") or len(merged["items"]) >= limit:
            return TaskPage.read(merged)


def logs(task_id: str, after: int = 0) -> Exchange[LogPage]:
    """Lines of a task's log with `seq` above `after`; `next_after` goes on from there."""
    params = _filled(after=str(after) if after else None)
    return LogPage.read((yield from _get(_task_path(task_id, "logs"), params)))


def cancel(task_id: str, *, terminate: bool = False) -> Exchange[Task]:
    """Cancel a task: at once while it waits; a running one is asked to stop (`terminate`: killed)."""
    body = {"terminate": True} if terminate else {}
    call = Call("POST", _task_path(task_id, "cancel"), body=body, repeatable=True)
    return Task.read((yield from _json(call)))


def retry(task_id: str) -> Exchange[Task]:
    """Queue a failed or cancelled task again under its id."""
    return Task.read((yield from _json(Call("POST", _task_path(task_id, "retry"), body={}))))


def resubmit(task_id: str, payload: Mapping[str, Any] | None = None) -> Exchange[Task]:
    """Submit a new task like this one, with another `payload` if one is given."""
    body = {} if payload is None else {"payload": dict(payload)}
    return Task.read((yield from _json(Call("POST", _task_path(task_id, "resubmit"), body=body))))


def delete(task_id: str) -> Exchange[None]:
    """Delete a task that has ended: record, log and result."""
    yield from ask(Call("DELETE", _task_path(task_id), repeatable=True))


def queues() -> Exchange[list[Queue]]:
    """Every queue."""
    return [Queue.read(item) for item in _items((yield from _get("/v1/queues")))]


def queue(name: str) -> Exchange[Queue]:
    """One queue."""
    return Queue.read((yield from _get(_queue_path(name))))


def pause(name: str) -> Exchange[dict[str, Any]]:
    """Stop a queue: what runs ends, nothing new starts, submits are accepted. The API's answer."""
    answer: dict[str, Any] = yield from _json(_on_queue(name, "pause"))
    return answer


def resume(name: str) -> Exchange[dict[str, Any]]:
    """Undo `pause`. The API's answer."""
    answer: dict[str, Any] = yield from _json(_on_queue(name, "resume"))
    return answer


def purge(name: str, state: State | str) -> Exchange[dict[str, Any]]:
    """Drop every task that stands in `state` now (not `running`). The API's answer."""
    call = Call("POST", _queue_path(name, "purge"), body={"state": str(state)}, read_seconds=_PURGE_SECONDS)
    answer: dict[str, Any] = yield from _json(call)
    return answer


def workers() -> Exchange[list[Worker]]:
    """The living workers."""
    return [Worker.read(item) for item in _items((yield from _get("/v1/workers")))]


def catalog() -> Exchange[list[CatalogEntry]]:
    """Every task name that workers have published."""
    return [CatalogEntry.read(item) for item in _items((yield from _get("/v1/catalog")))]


def ready() -> Exchange[bool]:
    """Whether the API answers and its store does."""
    try:
        yield from ask(Call("GET", "/readyz"))
    except ApiUnreachable:
        return False
    return True


def events_path(**filters: str | None) -> tuple[str, Params]:
    """Path and parameters of the stream of all that the key may see."""
    return "/v1/events", _filled(**filters)


def task_events_path(task_id: str) -> str:
    """Path of one task's stream."""
    return _task_path(task_id, "events")


def _get(path: str, params: Params = ()) -> Exchange[Any]:
    return (yield from _json(Call("GET", path, params, repeatable=True)))


def _json(call: Call) -> Exchange[Any]:
    return document((yield from ask(call)))


def _items(page: Any) -> list[Any]:
    items = page.get("items") if isinstance(page, dict) else None
    if not isinstance(items, list):
        raise ApiUnreachable("What answers there does not speak as Callboard's API does (a list is missing).")
    return items


def _task_path(task_id: str, action: str = "") -> str:
    return f"/v1/tasks/{_segment(task_id)}" + (f"/{action}" if action else "")


def _queue_path(name: str, action: str = "") -> str:
    return f"/v1/queues/{_segment(name)}" + (f"/{action}" if action else "")


def _on_queue(name: str, action: str) -> Call:
    return Call("POST", _queue_path(name, action), body={}, repeatable=True)


def _segment(text: str) -> str:
    # "", "." and ".." would name another route; no id looks like them.
    return quote(text, safe="") if text.strip(".") else quote(text or " ", safe="").replace(".", "%2E")


def _filled(**params: str | None) -> Params:
    return tuple((name, value) for name, value in params.items() if value is not None)


def _time(name: str, moment: datetime) -> str:
    if moment.tzinfo is None:
        raise Invalid(f"{name}: expected a time with its time zone; got {moment!r}.")
    return clock.rfc3339(int(moment.timestamp() * 1000))
