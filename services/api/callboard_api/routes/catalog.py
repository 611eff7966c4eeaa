"""The catalog: which tasks can be submitted, and with what."""

from __future__ import annotations

from starlette.types import ASGIApp

from callboard.errors import UnknownTask
from callboard_api.answers import Answer
from callboard_api.catalog import known_task
from callboard_api.problems import Rejected
from callboard_api.routing import Call


async def entries(call: Call) -> ASGIApp:
    """GET /v1/catalog"""
    snapshot = await call.platform.catalog.current()
    items = [task.to_json() for task in snapshot.catalog.tasks.values()]
    return Answer({"items": items, "next_cursor": None})


async def entry(call: Call) -> ASGIApp:
    """GET /v1/catalog/{name}"""
    name = call.path("name")
    snapshot = await call.platform.catalog.look_up([name], ())
    try:
        return Answer(known_task(snapshot, name).to_json())
    except UnknownTask as error:
        raise Rejected("not-found", error.message) from error
