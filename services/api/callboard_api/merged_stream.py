"""The merged stream: events of all queues, filtered; resumed by a cursor within the kept window."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from callboard import clock
from callboard.events.stream import read
from callboard.records import ids, store
from callboard_api.platform import Platform
from callboard_api.streams import sse
from callboard_api.streams.cursor import START, Position, text
from callboard_api.streams.listener import Interest, Listener, Signal
from callboard_api.streams.window import kept

#: Events of one queue read at once for a replay.
_PAGE: Final = 200
#: One write to a client, about.
_CHUNK_BYTES: Final = 32 * 1024
#: A queue that a cursor does not name is resumed from its latest time less what the hub needs to find a new
#: queue, and servers' clocks may differ by.
_MARGIN_MS: Final = 10_000
_TAGS_KEPT: Final = 5_000


class MergedStream:
    """The ASGI answer of `GET /v1/events`. `after`: positions of a cursor, None to begin now."""

    def __init__(self, platform: Platform, interest: Interest, after: Mapping[str, Position] | None) -> None:
        self._platform = platform
        self._interest = interest
        self._after = after
        self._tags: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._platform.hub.listen(self._interest) as listener:
            lost: list[Position | None] = []
            if self._after is None:
                listener.places = {
                    q: p for q, p in self._platform.hub.places.items() if self._interest.covers(q)
                }
            else:
                lost = await self._resume(listener, self._after)
            await sse.respond(scope, receive, send, listener, self._chunks(listener, lost))

    async def _resume(self, listener: Listener, after: Mapping[str, Position]) -> list[Position | None]:
        """Set where to go on; the oldest kept position of each queue that has a gap."""
        latest = max((ms for ms, _ in after.values()), default=0)
        floor = (max(0, latest - _MARGIN_MS), 0)
        lost: list[Position | None] = []
        for queue in {*self._platform.hub.places, *after}:
            if not self._interest.covers(queue):
                continue
            window = await self._platform.run(kept(self._platform.keys.queue(queue)))
            place = after.get(queue)
            if place is None:
                place = min(floor, window.last)
            if window.misses(place):
                lost.append(window.first)
                place = START
            listener.places[queue] = place
        return lost

    async def _chunks(self, listener: Listener, lost: list[Position | None]) -> AsyncIterator[bytes]:
        yield sse.opening(listener.places)
        if lost:
            yield sse.reset(min((place for place in lost if place is not None), default=None)) + b"\n"
        while self._after is not None:
            listener.overflowed = False
            async for batch in self._replay(listener):
                for chunk in await self._told(listener, batch):
                    yield chunk
                if listener.ended is not None:
                    return
            if not listener.overflowed:
                break
        listener.replaying = False
        quiet_since = clock.monotonic()
        while True:
            batch = await listener.take(max(0.0, sse.PING_SECONDS - (clock.monotonic() - quiet_since)))
            told = await self._told(listener, batch)
            for chunk in told:
                yield chunk
            if listener.ended is not None and listener.idle:
                return
            if told:
                quiet_since = clock.monotonic()
            elif clock.monotonic() - quiet_since >= sse.PING_SECONDS:
                if listener.idle:
                    self._catch_up(listener)
                yield sse.ping(listener.places)
                quiet_since = clock.monotonic()

    def _catch_up(self, listener: Listener) -> None:
        """With nothing waiting, everything up to the hub's place has been looked at."""
        for queue, place in self._platform.hub.places.items():
            if self._interest.covers(queue) and place > listener.places.get(queue, START):
                listener.places[queue] = place

    async def _replay(self, listener: Listener) -> AsyncIterator[list[Signal]]:
        """Kept events after the listener's places, merged over the queues by time."""
        names = {q for q in (*self._platform.hub.places, *listener.places) if self._interest.covers(q)}
        reached = {name: listener.places.get(name, START) for name in names}
        pages: dict[str, deque[Signal]] = {}
        ended: set[str] = set()
        batch: list[Signal] = []
        while len(ended) < len(names):
            for name in names - ended:
                if pages.get(name):
                    continue
                found = await self._page(name, reached[name])
                pages[name] = deque(found)
                if found:
                    reached[name] = found[-1].place
                else:
                    ended.add(name)
            open_pages = [page for page in pages.values() if page]
            while open_pages and all(open_pages):
                batch.append(min(open_pages, key=lambda page: page[0].place).popleft())
            yield batch
            batch = []

    async def _page(self, name: str, after: Position) -> list[Signal]:
        queue = self._platform.keys.queue(name)
        return [Signal(event) for event in await self._platform.run(read(queue, text(after), _PAGE))]

    async def _told(self, listener: Listener, batch: Sequence[Signal]) -> list[bytes]:
        """The wire form of those events that are new and of interest, in chunks."""
        if self._interest.tag:
            await self._learn_tags(signal for signal in batch if self._interest.matches(signal.event))
        chunks: list[bytes] = []
        parts: list[bytes] = []
        size = 0
        for signal in batch:
            # One by one: each event's id names what has been told up to it, and nothing beyond.
            if listener.heard(signal) or not self._interest.matches(signal.event):
                continue
            if self._interest.tag and self._interest.tag not in self._tags.get(signal.event.id, ()):
                continue
            parts += (signal.data, sse.mark(listener.places), b"\n")
            size += len(signal.data) + len(parts[-2])
            if size > _CHUNK_BYTES:
                chunks.append(b"".join(parts))
                parts, size = [], 0
        if parts:
            chunks.append(b"".join(parts))
        return chunks

    async def _learn_tags(self, signals: Iterable[Signal]) -> None:
        """Tags never change, so each task is looked up once."""
        unknown: dict[str, list[str]] = {}
        for task_id in dict.fromkeys(signal.event.id for signal in signals if signal.event.id):
            if task_id not in self._tags:
                queue, local = ids.split(task_id)
                unknown.setdefault(queue, []).append(local)
        for queue, locals_ in unknown.items():
            keys = self._platform.keys.queue(queue)
            records = await self._platform.run(store.fetch_many(keys, locals_, history=False))
            for local, record in zip(locals_, records, strict=True):
                self._tags[f"{queue}_{local}"] = record.tags if record else ()
        while len(self._tags) > _TAGS_KEPT:
            self._tags.popitem(last=False)
