"""Tasks: submit, list, look at, steer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from starlette.types import ASGIApp

from callboard import control, inspector
from callboard.errors import CallboardError, Invalid, StoreUnavailable, TaskNotFound, UnknownTask
from callboard.inspector import TaskFilter
from callboard.records.record import INCLUDABLE, TaskRecord
from callboard.records.state import State
from callboard.submit import Submission, Submitted
from callboard_api import problems
from callboard_api.accepted import record_of
from callboard_api.answers import Answer, encode, etag
from callboard_api.routing import Call
from callboard_api.schemas.fields import Faults, Fields, kind, no_fields
from callboard_api.schemas.query import bad
from callboard_api.schemas.submission import Wish, read_wish, settle, traceparent_of
from callboard_api.submitting import count, submit_many, submit_one
from callboard_api.waiting import applied, known, preferred_seconds, record_at_end

MOST_IN_BATCH: Final = 1000
PAGE: Final = 50
MOST_IN_PAGE: Final = 200
MOST_LINES: Final = 1000
#: Payloads checked in a row before other requests get a turn.
_CHECKED_AT_ONCE: Final = 20
#: Attempts that a retry by hand grants when nobody publishes the task any more.
_DEFAULT_ATTEMPTS: Final = 4
#: Looking through 50,000 tasks takes many small steps.
_SCAN_PATIENCE_SECONDS: Final = 30.0


async def submit(call: Call) -> ASGIApp:
    """POST /v1/tasks"""
    faults = Faults()
    wish = read_wish(call.body, faults)
    faults.check()
    [submission] = await _settled(call, [wish], faults)
    submitted = await submit_one(call.platform, submission)
    record = await _accepted(call, submission, submitted, wish.payload or {})
    headers = {"Location": _path(record.id)}
    seconds = preferred_seconds(call.header(b"prefer"))
    if seconds is None or "read" not in call.principal.scopes:
        return Answer(record.to_json(), 202, headers)
    # Accepted is accepted: an error in the answer would make the client send it again.
    with suppress(StoreUnavailable, TaskNotFound):
        record = await record_at_end(call.platform, record.id, seconds)
    return Answer(record.to_json(), 200 if record.state.terminal else 202, headers | applied(seconds))


async def submit_batch(call: Call) -> ASGIApp:
    """POST /v1/tasks/batch"""
    faults = Faults()
    fields = Fields(call.body, faults)
    given = fields.take("tasks")
    fields.end()
    if isinstance(call.body, dict) and (not isinstance(given, list) or not 1 <= len(given) <= MOST_IN_BATCH):
        fields.fault("tasks", f"Expected a list of 1 to {MOST_IN_BATCH} tasks; got {kind(given)}.")
    faults.check()
    wishes = [read_wish(item, faults, f"#/tasks/{index}") for index, item in enumerate(given)]
    submissions = await _settled(call, wishes, faults)
    replies = await submit_many(call.platform, submissions)
    return Answer({"items": [_item(index, reply) for index, reply in enumerate(replies)]}, 202)


async def tasks(call: Call) -> ASGIApp:
    """GET /v1/tasks"""
    query = call.query
    wanted = TaskFilter(
        states=frozenset(State(state) for state in query.choices("state", set(State))),
        queues=tuple(query.texts("queue")),
        name=query.text("name"),
        tag=query.text("tag"),
        owner=_owner(call),
        created_after=query.instant("created_after"),
        created_before=query.instant("created_before"),
        q=query.text("q"),
    )
    include = query.choices("include", INCLUDABLE)
    limit = query.integer("limit", PAGE, 1, MOST_IN_PAGE)
    find = inspector.find(
        call.platform.keys,
        wanted,
        limit=limit,
        cursor=query.text("cursor") or None,
        history=bool(include & {"result", "attempts"}),
    )
    try:
        page = await call.platform.run(find, patience_seconds=_SCAN_PATIENCE_SECONDS)
    except Invalid as error:
        raise bad("cursor", error.message) from error
    answer: dict[str, Any] = {
        "items": [record.to_json(include) for record in page.items],
        "next_cursor": page.next_cursor,
        "complete": page.complete,
    }
    if page.scanned is not None:
        answer["scanned"] = page.scanned
    return Answer(answer)


async def task(call: Call) -> ASGIApp:
    """GET /v1/tasks/{id}"""
    seconds = preferred_seconds(call.header(b"prefer"))
    record = await record_at_end(call.platform, call.path("id"), seconds or 0)
    body = encode(record.to_json())
    tag = etag(body)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if seconds is not None:
        return Answer(body, 200 if record.state.terminal else 202, headers | applied(seconds))
    known_tags = [word.strip() for word in call.header(b"if-none-match").split(",")]
    if tag in known_tags or "*" in known_tags or tag.removeprefix("W/") in known_tags:
        return Answer(status=304, headers=headers)
    return Answer(body, 200, headers)


async def logs(call: Call) -> ASGIApp:
    """GET /v1/tasks/{id}/logs"""
    after = call.query.integer("after", 0, 0, 10**9)
    limit = call.query.integer("limit", MOST_LINES, 1, MOST_LINES)
    page = await call.platform.run(inspector.logs(call.platform.keys, call.path("id"), after, limit))
    return Answer(
        {
            "items": [line.to_json() for line in page.items],
            "next_after": page.next_after,
            "dropped": page.dropped,
        }
    )


async def delete(call: Call) -> ASGIApp:
    """DELETE /v1/tasks/{id}"""
    await call.platform.run(control.delete(call.platform.keys, call.path("id")))
    return Answer(status=204)


async def cancel(call: Call) -> ASGIApp:
    """POST /v1/tasks/{id}/cancel"""
    faults = Faults()
    fields = Fields(_or_empty(call.body), faults)
    terminate = fields.flag("terminate")
    fields.end()
    faults.check()
    keys = call.platform.keys
    cancelled = await call.platform.run(control.cancel(keys, call.path("id"), terminate=terminate))
    return Answer(cancelled.record.to_json(), 200 if cancelled.done else 202)


async def retry(call: Call) -> ASGIApp:
    """POST /v1/tasks/{id}/retry"""
    no_fields(call.body)
    record = await known(call.platform, call.path("id"))
    found = (await call.platform.catalog.snapshot()).catalog.tasks.get(record.name)
    attempts = found.terms.max_attempts if found else _DEFAULT_ATTEMPTS
    retried = await call.platform.run(control.retry(call.platform.keys, record.id, attempts=attempts))
    return Answer(retried.to_json(), 202, {"Location": _path(record.id)})


async def resubmit(call: Call) -> ASGIApp:
    """POST /v1/tasks/{id}/resubmit"""
    platform = call.platform
    faults = Faults()
    wish = read_wish(_or_empty(call.body), faults, named=False)
    faults.check()
    record = await known(platform, call.path("id"))
    queues = [wish.queue] if wish.queue else []
    snapshot = await platform.catalog.look_up([record.name], queues)
    found = snapshot.catalog.tasks.get(record.name)
    if found is None:
        raise UnknownTask(record.name, snapshot.catalog.tasks)
    asked = replace(wish, name=record.name)
    # The old payload was checked when it came; a Dramatiq message's positional arguments fit no schema.
    checker = platform.payloads if wish.payload is not None else None
    submission = settle(asked, snapshot, checker, faults, owner=record.owner, traceparent="")
    faults.check()
    assert submission is not None
    again = await platform.run(
        control.resubmit(
            platform.keys,
            record.id,
            payload=wish.payload,
            overrides=_overrides(wish, submission),
            max_attempts=submission.max_attempts,
            limits=platform.limits,
        )
    )
    count(submission, again)
    if again.problem is not None:
        raise again.problem
    return Answer((await known(platform, again.id)).to_json(), 202, {"Location": _path(again.id)})


async def _settled(call: Call, wishes: list[Wish], faults: Faults) -> list[Submission]:
    """The submissions of all wishes. Raises Rejected with every fault."""
    platform = call.platform
    names = {wish.name for wish in wishes if wish.name}
    queues = {wish.queue for wish in wishes if wish.queue}
    snapshot = await platform.catalog.look_up(names, queues)
    owner, traceparent = call.principal.owner, traceparent_of(call.scope)
    settled: list[Submission] = []
    for index, wish in enumerate(wishes):
        if index % _CHECKED_AT_ONCE == _CHECKED_AT_ONCE - 1:
            await asyncio.sleep(0)
        if wish.name is None:
            continue
        submission = settle(wish, snapshot, platform.payloads, faults, owner=owner, traceparent=traceparent)
        if submission is not None:
            settled.append(submission)
    faults.check()
    return settled


async def _accepted(call: Call, submission: Submission, submitted: Submitted, payload: Any) -> TaskRecord:
    if submitted.created_at is None:
        # The first reply was lost and the submit sent again: the record is there, read it.
        return await known(call.platform, submitted.id)
    return record_of(submission, submitted, payload)


def _overrides(wish: Wish, submission: Submission) -> dict[str, Any]:
    """What a resubmit changes of the old task's fields: what the body names."""
    given = {
        "queue": wish.queue,
        "delay_ms": wish.delay_ms,
        "due_at_ms": None if wish.due_at_ms is None else submission.due_at_ms,
        "priority": wish.priority,
        "fairness_key": wish.fairness_key,
        "tags": wish.tags or None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if submission.expires_in_ms:
        changes["expires_in_ms"] = submission.expires_in_ms
    return changes


def _item(index: int, reply: Submitted | CallboardError) -> dict[str, Any]:
    if isinstance(reply, Submitted):
        return {"index": index, "id": reply.id, "state": str(reply.state)}
    return {"index": index, "problem": problems.of(reply).document()}


def _owner(call: Call) -> str:
    """The owner to filter by: a key that sees its own things alone never sees another's."""
    return call.principal.sees or call.query.text("owner")


def _or_empty(body: Any) -> Any:
    return {} if body is None else body


def _path(task_id: str) -> str:
    return f"/v1/tasks/{task_id}"
