"""One task's stream: a snapshot, then what happens, up to the task's end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.types import Receive, Scope, Send

from callboard import clock, inspector
from callboard.errors import TaskNotFound
from callboard.events.stream import TERMINAL_TYPES, read
from callboard.records import ids
from callboard.records.record import TaskRecord
from callboard_api.answers import Answer
from callboard_api.platform import Platform
from callboard_api.streams import sse
from callboard_api.streams.cursor import Position, text
from callboard_api.streams.listener import Interest, Listener, Signal
from callboard_api.streams.window import kept

_PAGE: Final = 500


class TaskStream:
    """The ASGI answer of `GET /v1/tasks/{id}/events`. `after`: positions of a cursor, None to begin now.

    Raises TaskNotFound before anything is sent.
    """

    def __init__(self, platform: Platform, task_id: str, after: Mapping[str, Position] | None) -> None:
        self._platform = platform
        self._id = task_id
        self._queue = ids.queue_of(task_id)
        self._keys = platform.keys.queue(self._queue)
        self._place = None if after is None else after.get(self._queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._record()
        interest = Interest(queues=frozenset({self._queue}), task_id=self._id)
        async with self._platform.hub.listen(interest) as listener:
            window = await self._platform.run(kept(self._keys))
            past: list[Signal] = []
            resumed = self._place is not None and not window.misses(self._place)
            listener.places[self._queue] = self._place if resumed and self._place is not None else window.last
            # The record is read after the place: what it says may be told again, and nothing is missed.
            record = await self._record()
            if resumed:
                past = await self._past(listener.places[self._queue])
                if record.state.terminal and not past:
                    await Answer(status=204)(scope, receive, send)
                    return
            chunks = self._chunks(listener, past, None if resumed else record)
            await sse.respond(scope, receive, send, listener, chunks)

    async def _record(self) -> TaskRecord:
        record = await self._platform.run(inspector.get(self._platform.keys, self._id))
        if record is None:
            raise TaskNotFound(self._id)
        return record

    async def _past(self, place: Position) -> list[Signal]:
        """This task's kept events after `place`."""
        found: list[Signal] = []
        while events := await self._platform.run(read(self._keys, text(place), _PAGE)):
            signals = [Signal(event) for event in events]
            place = signals[-1].place
            found += [signal for signal in signals if signal.event.id == self._id]
        return found

    async def _chunks(
        self, listener: Listener, past: list[Signal], record: TaskRecord | None
    ) -> AsyncIterator[bytes]:
        """`record`: the snapshot to begin with, None when `past` has all that the client lacks."""
        yield sse.opening(listener.places)
        listener.replaying = False
        if record is not None:
            yield self._snapshot(listener, record)
            if record.state.terminal:
                return
        for signal in past:
            if not listener.heard(signal):
                yield self._told(listener, signal)
        if past and past[-1].event.type in TERMINAL_TYPES:
            return
        # When memory is short events are not written; the record is the truth. It is read at once after a
        # replay that lacks the end, and whenever nothing has come for a while.
        quiet_since = clock.monotonic() if record is not None else float("-inf")
        while True:
            batch = await listener.take(max(0.0, sse.PING_SECONDS - (clock.monotonic() - quiet_since)))
            for signal in batch:
                if listener.heard(signal):
                    continue
                yield self._told(listener, signal)
                quiet_since = clock.monotonic()
                if signal.event.type in TERMINAL_TYPES:
                    return
            if listener.ended is not None and listener.idle:
                return
            if clock.monotonic() - quiet_since >= sse.PING_SECONDS:
                quiet_since = clock.monotonic()
                here = self._platform.hub.places.get(self._queue) if listener.idle else None
                try:
                    latest = await self._record()
                except TaskNotFound:  # deleted meanwhile
                    return
                if latest.state.terminal:
                    yield self._snapshot(listener, latest)
                    return
                if here is not None and here > listener.places[self._queue] and listener.idle:
                    listener.places[self._queue] = here
                yield sse.ping(listener.places)

    @staticmethod
    def _told(listener: Listener, signal: Signal) -> bytes:
        return signal.data + sse.mark(listener.places) + b"\n"

    @staticmethod
    def _snapshot(listener: Listener, record: TaskRecord) -> bytes:
        return sse.snapshot(record) + sse.mark(listener.places) + b"\n"
