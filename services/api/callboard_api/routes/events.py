"""Events, as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp

from callboard.events.stream import TYPES
from callboard_api.merged_stream import MergedStream
from callboard_api.problems import Rejected
from callboard_api.routing import Call
from callboard_api.schemas.query import bad
from callboard_api.streams import cursor
from callboard_api.streams.cursor import Position
from callboard_api.streams.listener import Interest
from callboard_api.task_stream import TaskStream


async def events(call: Call) -> ASGIApp:
    """GET /v1/events"""
    query = call.query
    interest = Interest(
        queues=frozenset(query.texts("queue")),
        names=frozenset(query.texts("name")),
        types=query.choices("type", set(TYPES.values())),
        tag=query.text("tag"),
        owner=call.principal.sees,
    )
    return MergedStream(call.platform, interest, _after(call))


async def task_events(call: Call) -> ASGIApp:
    """GET /v1/tasks/{id}/events"""
    return TaskStream(call.platform, call.path("id"), _after(call))


def _after(call: Call) -> Mapping[str, Position] | None:
    """Where to resume: a reconnecting browser sends the header, and keeps the URL that it was opened with."""
    header, parameter = call.header(b"last-event-id"), call.query.text("after")
    if not header and not parameter:
        return None
    try:
        return cursor.decode(header or parameter)
    except cursor.BadCursor:
        told = "This is no id of an event of ours."
        if header:
            raise Rejected("invalid-query", f"Last-Event-ID: {told}") from None
        raise bad("after", told) from None
