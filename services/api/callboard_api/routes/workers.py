"""Workers, as their presence shows them."""

from __future__ import annotations

from starlette.types import ASGIApp

from callboard import inspector
from callboard_api.answers import Answer
from callboard_api.routing import Call


async def workers(call: Call) -> ASGIApp:
    """GET /v1/workers"""
    found = await call.platform.run(inspector.workers(call.platform.keys))
    return Answer({"items": [worker.to_json() for worker in found], "next_cursor": None})
