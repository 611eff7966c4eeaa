"""Queues: look at, pause, resume, purge."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from callboard import control, inspector
from callboard.errors import UnknownQueue
from callboard.inspector import QueueView
from callboard.records.state import State
from callboard_api.answers import Answer
from callboard_api.catalog import known_queue
from callboard_api.problems import Rejected
from callboard_api.routing import Call
from callboard_api.schemas.fields import Faults, Fields, kind, no_fields

#: A million tasks in steps of 200.
_PURGE_PATIENCE_SECONDS: Final = 600.0


async def queues(call: Call) -> ASGIApp:
    """GET /v1/queues"""
    snapshot = await call.platform.catalog.snapshot()
    operation = inspector.queues(
        call.platform.keys,
        snapshot.objectives(),
        also=snapshot.catalog.queue_names(),
        scalings=await call.platform.scalings(),
    )
    views = await call.platform.run(operation)
    return Answer({"items": [view.to_json() for view in views], "next_cursor": None})


async def queue(call: Call) -> ASGIApp:
    """GET /v1/queues/{queue}"""
    return Answer((await _view(call)).to_json())


async def pause(call: Call) -> ASGIApp:
    """POST /v1/queues/{queue}/pause"""
    no_fields(call.body)
    name = await _known(call)
    await call.platform.run(control.pause(call.platform.keys, name))
    return await queue(call)


async def resume(call: Call) -> ASGIApp:
    """POST /v1/queues/{queue}/resume"""
    no_fields(call.body)
    name = await _known(call)
    await call.platform.run(control.resume(call.platform.keys, name))
    return await queue(call)


async def purge(call: Call) -> ASGIApp:
    """POST /v1/queues/{queue}/purge"""
    faults = Faults()
    fields = Fields(call.body, faults)
    given = fields.take("state")
    fields.end()
    if isinstance(call.body, dict) and (not isinstance(given, str) or given not in set(State)):
        fields.fault("state", f"Expected any of {', '.join(State)}; got {kind(given)}.")
    faults.check()
    name = await _known(call)
    purge = control.purge(call.platform.keys, name, State(given))
    purged = await call.platform.run(purge, patience_seconds=_PURGE_PATIENCE_SECONDS)
    return Answer({"queue": name, "state": given, "purged": purged})


async def _known(call: Call) -> str:
    """The queue in the path, if the catalog, the registry or a worker knows it. Raises Rejected (404)."""
    return (await _view(call)).name


async def _view(call: Call) -> QueueView:
    name = call.path("queue")
    snapshot = await call.platform.catalog.look_up((), [name])
    unknown: UnknownQueue | None = None
    try:
        known_queue(snapshot, name)
    except UnknownQueue as error:
        unknown = error
    objective = snapshot.objectives().get(name)
    operation = inspector.queue(
        call.platform.keys,
        name,
        objective,
        known=unknown is None,
        scalings=await call.platform.scalings(),
    )
    view = await call.platform.run(operation)
    if view is None:
        raise Rejected("not-found", unknown.message if unknown else f"No queue is named {name!r}.")
    return view
