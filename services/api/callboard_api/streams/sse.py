"""The wire of server-sent events: head, pings, ids, the end, and readers that hang up or are too slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.types import Receive, Scope, Send

from callboard import clock
from callboard.errors import CallboardError
from callboard.records.record import TaskRecord
from callboard_api.streams import cursor
from callboard_api.streams.cursor import Position
from callboard_api.streams.listener import MOST_WAITING, Listener, frame

logger = logging.getLogger("callboard.api")

PING_SECONDS: Final = 15.0
#: How long a client should wait before it connects again.
RETRY_MS: Final = 2000
_LAST_WORDS_SECONDS: Final = 1.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def respond(
    scope: Scope, receive: Receive, send: Send, listener: Listener, chunks: AsyncIterator[bytes]
) -> None:
    """Send `chunks` until they end, the client hangs up, or its listener has been dropped for slowness."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    pump = asyncio.create_task(_pump(chunks, send), name="events-pump")
    gone = asyncio.create_task(_until_gone(receive), name="events-gone")
    dropped = asyncio.create_task(listener.too_slow.wait(), name="events-dropped")
    try:
        await asyncio.wait({pump, gone, dropped}, return_when=asyncio.FIRST_COMPLETED)
        if not pump.done() and dropped.done():
            logger.warning("A reader of events was dropped: %d events were waiting for it", MOST_WAITING)
    finally:
        unfinished = [task for task in (pump, gone, dropped) if not task.done()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
    if pump.done() and not pump.cancelled():
        pump.result()
    if not gone.done() or gone.cancelled():
        # A reader that takes nothing does not take this either; then the server closes the connection.
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            pass


async def _pump(chunks: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except CallboardError as error:
        # The stream ends; the client comes back with its cursor, and is told then if Redis is still away.
        logger.debug("A stream of events ends early: %s", error)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def opening(places: Mapping[str, Position]) -> bytes:
    """The first lines. The id lets a client that is cut off before its first event miss nothing."""
    return f"retry: {RETRY_MS}\n".encode() + mark(places) + b"\n"


def mark(places: Mapping[str, Position]) -> bytes:
    """The line `id:`."""
    return f"id: {cursor.encode(places)}\n".encode()


def ping(places: Mapping[str, Position]) -> bytes:
    """A sign of life; the id moves on although nothing of interest has come."""
    return b": ping\n" + mark(places) + b"\n"


def snapshot(record: TaskRecord) -> bytes:
    """`task.snapshot`: where a task stands, in the shape of an event."""
    times = (
        record.created_at,
        record.queued_at,
        record.started_at,
        record.finished_at,
        record.cancel_requested_at,
    )
    data = {
        "type": "task.snapshot",
        "at": clock.rfc3339(max(time for time in times if time is not None)),
        "id": record.id,
        "name": record.name,
        "queue": record.queue,
        "state": str(record.state),
        "attempt": record.attempt,
        "owner": record.owner,
    }
    if record.reason:
        data["reason"] = record.reason
    if record.progress:
        data["progress"] = record.progress
    return frame("task.snapshot", data)


def reset(oldest: Position | None) -> bytes:
    """`stream.reset`: events are missing; what follows begins with the oldest that are kept."""
    data = {
        "type": "stream.reset",
        "at": clock.rfc3339(clock.now_ms()),
        "oldest": None if oldest is None else clock.rfc3339(oldest[0]),
    }
    return frame("stream.reset", data)
